"""Cuts long texts before they are written, so that what they are written into stays valid."""

from collections.abc import Callable, Iterable, Mapping

_LENGTHS = (12 * 1024, 4096, 1024, 256, 64)
"""Characters that are kept of each text. The next length is tried if the whole is too long."""


def beginning(text: str, most: int) -> str:
    """Return a text, or its beginning and how long it was."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def both_ends(text: str, most: int) -> str:
    """Return a text, or its beginning and its end, as of a traceback, whose last lines say most."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}… ({len(text)} characters) …{text[-half:]}"


def fitting(
    texts: Mapping[str, object],
    encode: Callable[[Mapping[str, object]], str],
    most: int,
    *,
    ends: Iterable[str] = (),
) -> str:
    """Return values as one encoded text, whose long values are cut if it would be too long.

    Args:
        texts: The values by name. The order is kept.
        encode: Encodes them.
        most: Characters of the whole.
        ends: Names of the values of which the end is kept, too.
    """
    both = frozenset(ends)
    kept, line = dict(texts), encode(texts)
    for length in _LENGTHS:
        if len(line) <= most:
            return line
        kept = {
            name[:length]: _cut(value, length, both_ends if name in both else beginning)
            for name, value in texts.items()
        }
        line = encode(kept)
    while len(line) > most and kept:  # There are too many of them.
        for name in list(kept)[len(kept) // 2 :]:
            del kept[name]
        line = encode(kept)
    return line


def _cut(value: object, most: int, cut: Callable[[str, int], str]) -> object:
    text = value if isinstance(value, str) else str(value)
    return value if len(text) <= most else cut(text, most)
