"""The secret that routers share, by which a peer proves that it is one.

To a peer, it is sent as ``authorization: Bearer SECRET``. What is published where others can
publish too is signed with it instead. It is never logged.
"""

import hmac
from pathlib import Path

from lora_router.key_file import KeyFileError, read_key

HEADER = "authorization"
_SCHEME = b"Bearer "
_SIGNED = b"lora-router peering\0"
"""What a signature covers before the data, so that it is of no use anywhere else."""


class SecretError(KeyFileError):
    """The file holds no usable secret. The message says why, without the secret."""


def read_secret(path: Path) -> bytes:
    """Return the secret in a file, without white space around it.

    Raises:
        SecretError: The file cannot be read, or what it holds is not usable.
    """
    return read_key(path, "peer_secret_file", SecretError)


class Secret:
    """The secret in use and the one before it, so that it can be changed while routers run."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            SecretError: It holds no usable secret.
        """
        self.path = path
        self._current = read_secret(path)
        self._before = self._current

    @property
    def header(self) -> str:
        """The value of the header that this router sends."""
        return (_SCHEME + self._current).decode("ascii")

    def use(self, secret: bytes) -> None:
        """Use another secret. The one before it is accepted too."""
        if secret != self._current:
            self._before, self._current = self._current, secret

    def matches(self, header: bytes) -> bool:
        """Return whether a header has the secret. Takes the same time whatever the header is."""
        found = hmac.compare_digest(header, _SCHEME + self._current)
        return hmac.compare_digest(header, _SCHEME + self._before) or found

    def sign(self, data: bytes) -> bytes:
        """Return the signature of what this router publishes."""
        return hmac.digest(self._current, _SIGNED + data, "sha256")

    def has_signed(self, data: bytes, signature: bytes) -> bool:
        """Return whether a signature was made with the secret, or with the one before it."""
        if hmac.compare_digest(signature, self.sign(data)):
            return True
        before = hmac.digest(self._before, _SIGNED + data, "sha256")
        return hmac.compare_digest(signature, before)
