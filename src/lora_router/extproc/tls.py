"""The TLS files of the gRPC server: certificate, key, and authorities for client certificates."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from lora_router.extproc.self_signed import SelfSigned
from lora_router.extproc.transport_error import TlsFileError
from lora_router.extproc.x509 import expires_at
from lora_router.readable_content import readable
from lora_router.yaml_document import YamlDocumentError, read_file

_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The paths of the files, all in PEM format."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    """If set, a client must present a certificate that one of these authorities signed (mutual
    TLS)."""

    @property
    def shown(self) -> str:
        """How messages name the certificate."""
        return str(self.certificate)


TlsSource: TypeAlias = TlsFiles | SelfSigned
"""Where the server gets its certificate from."""


@dataclass(frozen=True, slots=True)
class TlsContents:
    """The contents of the files at one time."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """What the server presents and accepts: contents that fit together."""

    contents: TlsContents
    context: ssl.SSLContext
    expires: float | None
    """When the first certificate of the chain expires, in seconds since 1970; ``None``: unknown."""


def load_tls(source: TlsSource) -> TlsIdentity:
    """Return the identity that is to be used now.

    Raises:
        TransportError: A file cannot be read or used. The message names the setting and the file.
    """
    contents = read_tls(source)
    context = _own_context(contents) if isinstance(source, SelfSigned) else _context(source)
    # OpenSSL reads the files again, and they may be replaced in between.
    if isinstance(source, TlsFiles) and read_tls(source) != contents:
        raise TlsFileError(f"grpc_tls_cert_file: {source.shown}: changed while it was read")
    return TlsIdentity(contents, context, _expires(contents))


def identity_of(contents: TlsContents) -> TlsIdentity:
    """Return the identity of contents that could be used when they were read."""
    return TlsIdentity(contents, _own_context(contents), _expires(contents))


def read_tls(files: TlsSource) -> TlsContents:
    """Return the contents of the files. They may not fit together.

    Raises:
        TransportError: A file cannot be read. The message names the setting and the file.
    """
    if isinstance(files, SelfSigned):
        return TlsContents(*files.current(), client_ca=None)
    return TlsContents(
        certificate=_read("grpc_tls_cert_file", files.certificate),
        key=_read("grpc_tls_key_file", files.key),
        client_ca=None
        if files.client_ca is None
        else _read("grpc_tls_client_ca_file", files.client_ca),
    )


def _http2_context() -> ssl.SSLContext:
    """Return the context of a server that accepts only HTTP/2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    return context


def _expires(contents: TlsContents) -> float | None:
    try:
        return expires_at(contents.certificate)
    except ValueError:
        return None


def _own_context(contents: TlsContents) -> ssl.SSLContext:
    context = _http2_context()
    with readable(contents.certificate) as certificate, readable(contents.key) as key:
        context.load_cert_chain(certificate, key)
    if contents.client_ca is not None:
        with readable(contents.client_ca) as client_ca:
            context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = _http2_context()
    try:
        # Without a password, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise TlsFileError(
            f"grpc_tls_cert_file: {files.certificate} and grpc_tls_key_file: {files.key}: not a "
            f"PEM certificate and its private key: {_reason(error)}"
        ) from None
    if files.client_ca is not None:
        try:
            context.load_verify_locations(files.client_ca)
        except (OSError, ValueError) as error:
            raise TlsFileError(
                f"grpc_tls_client_ca_file: {files.client_ca}: contains no PEM certificates: "
                f"{_reason(error)}"
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _read(name: str, path: Path) -> bytes:
    try:
        return read_file(path, max_bytes=_MAX_BYTES)
    except YamlDocumentError as error:
        raise TlsFileError(f"{name}: {path}: {error}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error)
