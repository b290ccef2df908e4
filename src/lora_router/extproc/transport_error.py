"""The error of a transport that cannot start."""

import os

from lora_router.listening import shown_address


class TransportError(OSError):
    """The server cannot start."""


def listen_error(host: str, port: int, number: int | None = None) -> TransportError:
    """Return the error for an address that is not available.

    Args:
        host: The address.
        port: The port.
        number: The ``errno``, if it is known.
    """
    reason = os.strerror(number) if number else "address not available"
    address = shown_address(host, port)
    return TransportError(
        f"cannot listen on {address} for gRPC: {reason}; does another process use the port?"
    )
