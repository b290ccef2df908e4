"""The TLS files of the gRPC server: certificate, key, and authorities for client certificates."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from lora_router.extproc.transport import TransportError


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The paths of the files, all in PEM format."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    """If set, a client must present a certificate that one of these authorities signed (mutual
    TLS)."""


@dataclass(frozen=True, slots=True)
class TlsContents:
    """The contents of the files."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


def read_tls(files: TlsFiles) -> TlsContents:
    """Return the contents of the files after checking that they can be used together.

    Raises:
        TransportError: A file cannot be read or used. The message names the setting and the file.
    """
    contents = TlsContents(
        certificate=_read("grpc_tls_cert_file", files.certificate),
        key=_read("grpc_tls_key_file", files.key),
        client_ca=None
        if files.client_ca is None
        else _read("grpc_tls_client_ca_file", files.client_ca),
    )
    tls_context(files)
    return contents


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context of a server that accepts only HTTP/2.

    Raises:
        TransportError: A file cannot be read or used. The message names the setting and the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    for name, path in (
        ("grpc_tls_cert_file", files.certificate),
        ("grpc_tls_key_file", files.key),
    ):
        _read(name, path)
    try:
        # Without a password, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise TransportError(
            f"grpc_tls_cert_file: {files.certificate} and grpc_tls_key_file: {files.key}: not a "
            f"PEM certificate and its private key: {_reason(error)}"
        ) from None
    if files.client_ca is not None:
        _read("grpc_tls_client_ca_file", files.client_ca)
        try:
            context.load_verify_locations(files.client_ca)
        except (ssl.SSLError, ValueError) as error:
            raise TransportError(
                f"grpc_tls_client_ca_file: {files.client_ca}: contains no PEM certificates: "
                f"{_reason(error)}"
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TransportError(f"{name}: {path}: cannot be read: {error.strerror}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error)
