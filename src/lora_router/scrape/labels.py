"""Labels of series: read without the official parser where they are plain, and remembered.

What stands before the value of a series is the same from scrape to scrape and mostly from pod to
pod. The memory of it is bounded in bytes: a server can put a new label of megabytes on each page.
"""

import re
from collections.abc import Mapping

_PAIRS = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\\n]*)"')
_LONGEST_REMEMBERED = 8 * 1024
_ENTRY_BYTES = 600
"""What an entry takes beside its text: the dictionaries, the strings' own sizes."""


def plain_labels(head: bytes, name: bytes) -> Mapping[str, str] | None:
    """Return the labels of ``name{label="value",…}``; ``None``: they have to be parsed.

    Only the plainest form is read: no escapes, no blanks, no trailing comma, each label once. For
    that form the result is the official parser's.

    Args:
        head: All up to the end of the labels.
        name: The metric's name, with which ``head`` begins.
    """
    if head == name:
        return {}
    try:
        inside = head[len(name) + 1 : -1].decode()
    except UnicodeDecodeError:
        return None
    pairs = _PAIRS.findall(inside)
    labels = dict(pairs)
    # If the pairs are written down again and make up the whole, nothing else was there.
    if (
        len(labels) != len(pairs)
        or "__name__" in labels
        or head[len(name) : len(name) + 1] != b"{"
        or ",".join([f'{label}="{value}"' for label, value in pairs]) != inside
    ):
        return None
    return labels


class LabelMemory:
    """Remembers labels by the text they were read from, up to a number of bytes.

    When it is full, everything is forgotten: what is on the pages is read again at the next scrape,
    which costs microseconds for each series.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._known: dict[bytes, Mapping[str, str] | None] = {}
        self.bytes = 0
        """What is remembered takes about so much memory."""
        self.get = self._known.get
        """Returns the labels, or a default if they are not known."""

    def put(self, head: bytes, labels: Mapping[str, str] | None) -> None:
        """Remember labels, or that there are none that could be read apart from the value."""
        if len(head) > _LONGEST_REMEMBERED:
            return
        # The text, and about as much again in labels and values.
        size = 2 * len(head) + _ENTRY_BYTES
        if self.bytes + size > self._max_bytes:
            self._known.clear()
            self.bytes = 0
        self._known[head] = labels
        self.bytes += size
