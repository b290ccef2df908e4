"""The error of a transport that cannot start."""

from lora_router.listening import cannot_listen


class TransportError(OSError):
    """The server cannot start."""


class TlsFileError(TransportError, ValueError):
    """A file of a certificate or a key, which the settings name, cannot be used."""


def listen_error(host: str, port: int, cause: OSError | None = None) -> TransportError:
    """Return the error for an address that is not available.

    Args:
        host: The address.
        port: The port.
        cause: What the kernel or the resolver said, if that is known.
    """
    return TransportError(cannot_listen(host, port, "gRPC (grpc_host, grpc_port)", cause))
