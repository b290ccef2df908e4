"""Certificates and certificate authorities for tests."""

import ssl
from pathlib import Path

import grpc
import trustme

from lora_router.extproc.tls import TlsFiles


class Certificates:
    """A certificate authority, a second one that nobody trusts, and their certificates."""

    def __init__(self, directory: Path) -> None:
        self.authority, self.stranger = trustme.CA(), trustme.CA()
        issued = self.authority.issue_cert("localhost", "127.0.0.1")
        self.certificate, self.key = directory / "tls.crt", directory / "tls.key"
        self.client_ca = directory / "ca.crt"
        issued.private_key_pem.write_to_path(self.key)
        for blob in issued.cert_chain_pems:
            blob.write_to_path(self.certificate, append=True)
        self.authority.cert_pem.write_to_path(self.client_ca)
        gateway = self.authority.issue_cert("gateway")
        self.gateway_certificate, self.gateway_key = directory / "gw.crt", directory / "gw.key"
        gateway.private_key_pem.write_to_path(self.gateway_key)
        for blob in gateway.cert_chain_pems:
            blob.write_to_path(self.gateway_certificate, append=True)

    def files(self, *, mutual: bool) -> TlsFiles:
        """Return the server's files."""
        return TlsFiles(self.certificate, self.key, self.client_ca if mutual else None)

    def server_context(self, *, mutual: bool) -> ssl.SSLContext:
        """Return the TLS context of a server that is not the router, such as a pod."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        if mutual:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def credentials(self, *, client: "trustme.CA | None") -> grpc.ChannelCredentials:
        """Return a client's credentials, with a certificate of the given authority or without."""
        roots = self.authority.cert_pem.bytes()
        if client is None:
            return grpc.ssl_channel_credentials(roots)
        issued = client.issue_cert("gateway")
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        return grpc.ssl_channel_credentials(roots, issued.private_key_pem.bytes(), chain)
