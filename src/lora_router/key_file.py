"""Reads a key, such as a token or a secret, from the file that a setting names."""

from pathlib import Path

SHORTEST = 16
"""Characters of a key. With fewer it could be guessed."""
LONGEST = 1024


class KeyFileError(ValueError):
    """The file holds no usable key. The message says why, without the key."""


def read_key(path: Path, setting: str, error: type[KeyFileError]) -> bytes:
    """Return the key in a file, without white space around it.

    Args:
        path: The file.
        setting: The setting that names it, for the message.
        error: What to raise.

    Raises:
        KeyFileError: An ``error``: the file cannot be read, or what it holds is not usable.
    """
    try:
        with path.open("rb") as file:
            key = file.read(LONGEST + 64).strip()
    except OSError as unread:
        raise error(f"{setting}: {path}: cannot be read: {unread.strerror}") from None
    if not SHORTEST <= len(key) <= LONGEST or not all(0x21 <= byte <= 0x7E for byte in key):
        raise error(
            f"{setting}: {path}: must contain {SHORTEST} to {LONGEST} printable ASCII characters "
            "without spaces"
        )
    return key
