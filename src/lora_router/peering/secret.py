"""The secret that routers share, by which a peer proves that it is one.

To a peer, it is sent as ``authorization: Bearer SECRET``. What is published where others can
publish too is signed with it instead. It is never logged.

While a secret is changed, some routers know only the old one and some only the new one. So a file
may have two secrets, and those that it had before its last change stay valid: a router accepts all
of them. What it publishes is signed with two, so that both kinds of routers accept it.
"""

import hmac
from pathlib import Path

from lora_router.key_file import KeyFileError, read_keys

HEADER = "authorization"
_SCHEME = b"Bearer "
_SIGNED = b"lora-router peering\0"
"""What a signature covers before the data, so that it is of no use anywhere else."""
_MOST = 2
"""Secrets in a file, and in a signature."""
_DIGEST_BYTES = 32
_LENGTHS = frozenset(_DIGEST_BYTES * number for number in range(1, _MOST + 1))


class SecretError(KeyFileError):
    """The file holds no usable secret. The message says why, without the secret."""


def read_secrets(path: Path) -> tuple[bytes, ...]:
    """Return the secrets in a file: one, or two on two lines. White space around them is ignored.

    Raises:
        SecretError: The file cannot be read, or what it holds is not usable.
    """
    return read_keys(path, "peer_secret_file", SecretError, most=_MOST)


class Secret:
    """The secrets in use and those before them, so that they can be changed while routers run."""

    def __init__(self, path: Path, kept: tuple[bytes, ...] = ()) -> None:
        """Read the file.

        Args:
            path: The file.
            kept: The secrets that another process of this router uses. They are accepted too, and
                used while the file cannot be.

        Raises:
            SecretError: It holds no usable secret, and none was kept.
        """
        self.path = path
        try:
            self.current = read_secrets(path)
            """The secrets in use."""
        except SecretError:
            if not kept:
                raise
            self.current = kept
        self._accepted = tuple(dict.fromkeys(self.current + kept))
        """Without those twice that are in use and were so before."""

    @property
    def header(self) -> str:
        """The value of the header that this router sends: it has the first secret of the file."""
        return (_SCHEME + self.current[0]).decode("ascii")

    def use(self, *secrets: bytes) -> None:
        """Use other secrets. Those before them are accepted too."""
        if secrets != self.current:
            self._accepted = tuple(dict.fromkeys(secrets + self.current))
            self.current = secrets

    def matches(self, header: bytes) -> bool:
        """Return whether a header has a secret. Takes the same time whatever the header is."""
        found = False
        for secret in self._accepted:
            found |= hmac.compare_digest(header, _SCHEME + secret)
        return found

    def sign(self, data: bytes) -> bytes:
        """Return the signature of what this router publishes: a digest for each of two secrets.

        It is one digest as long as only one secret is known.
        """
        return b"".join(_digest(secret, data) for secret in self._accepted[:_MOST])

    def has_signed(self, data: bytes, signature: bytes) -> bool:
        """Return whether a signature was made with a secret that is accepted."""
        if len(signature) not in _LENGTHS:
            return False
        digests = [
            signature[begin : begin + _DIGEST_BYTES]
            for begin in range(0, len(signature), _DIGEST_BYTES)
        ]
        for secret in self._accepted:
            expected = _digest(secret, data)
            if any(hmac.compare_digest(digest, expected) for digest in digests):
                return True
        return False


def _digest(secret: bytes, data: bytes) -> bytes:
    return hmac.digest(secret, _SIGNED + data, "sha256")
