"""Reads keys, such as a token or a secret, from the file that a setting names."""

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
    [key] = read_keys(path, setting, error)
    return key


def read_keys(
    path: Path, setting: str, error: type[KeyFileError], *, most: int = 1
) -> tuple[bytes, ...]:
    """Return the keys in a file, each on a line of its own, without white space around them.

    Args:
        path: The file.
        setting: The setting that names it, for the message.
        error: What to raise.
        most: How many keys there may be.

    Raises:
        KeyFileError: An ``error``: the file cannot be read, or what it holds is not usable.
    """
    try:
        with path.open("rb") as file:
            text = file.read(most * (LONGEST + 64))
    except OSError as unread:
        raise error(f"{setting}: {path}: cannot be read: {unread.strerror}") from None
    keys = tuple(dict.fromkeys(line.strip() for line in text.strip().split(b"\n")))
    if len(keys) > most or not all(map(_is_key, keys)):
        allowed = (
            f"{SHORTEST} to {LONGEST} printable ASCII characters without spaces"
            if most == 1
            else f"1 to {most} lines of {SHORTEST} to {LONGEST} printable ASCII characters without "
            "spaces"
        )
        raise error(f"{setting}: {path}: must contain {allowed}")
    return keys


def _is_key(key: bytes) -> bool:
    return SHORTEST <= len(key) <= LONGEST and all(0x21 <= byte <= 0x7E for byte in key)
