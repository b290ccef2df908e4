"""A certificate that the router makes for itself: TLS to gateways that do not verify it.

Gateways that speak the endpoint-picker protocol connect to pickers over TLS by default, and do not
verify what they present. The key never leaves the memory of the process.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

VALID_DAYS = 365
_RENEWED_DAYS = 30
"""Time before its end from which on a certificate is replaced."""
_EARLIER = timedelta(hours=1)
"""How much earlier a certificate is valid, for clients whose clock is behind."""
_DAY = 86400.0


class SelfSigned:
    """The certificate in use, and its key. Made again before it expires."""

    shown = "the certificate of grpc_tls_self_signed"
    client_ca = None

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        """Create it without a certificate.

        Args:
            wall: Returns seconds since 1970.
        """
        self._wall = wall
        self._made: tuple[bytes, bytes] | None = None
        self._until = 0.0

    def current(self) -> tuple[bytes, bytes]:
        """Return the certificate and its key in PEM format, made now if that is due."""
        now = self._wall()
        if self._made is None or now >= self._until:
            self._made = _make(datetime.fromtimestamp(now, UTC))
            self._until = now + (VALID_DAYS - _RENEWED_DAYS) * _DAY
        return self._made

    def __repr__(self) -> str:
        """Return a description without the key."""
        return f"SelfSigned(made={self._made is not None})"


def _make(now: datetime) -> tuple[bytes, bytes]:
    # Most routers need none of it, and it takes a while to import.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lora-router")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("lora-router"), x509.DNSName("localhost")]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
