"""Reads the labels of series: without the official parser where they are plain, and cached.

The text before the value of a series is the same from scrape to scrape, and mostly from pod to pod.
The cache is bounded in bytes, since a server can return a new label of megabytes in each scrape.
"""

import re
from collections.abc import Mapping

# A pair is looked for only after a comma, and nothing is tried twice: the time is linear in the
# length of any text.
_PAIRS = re.compile(r'(?:^|(?<=,))([a-zA-Z_][a-zA-Z0-9_]*+)="([^"\\\n]*+)"')
_LONGEST_CACHED = 8 * 1024
_ENTRY_BYTES = 400
"""Memory of an entry beside its text: its place in the cache, and the dictionary of labels."""
_LABEL_BYTES = 200
"""Memory of a label beside its text: two strings, and their place in the dictionary."""


def plain_labels(head: bytes, name: bytes) -> Mapping[str, str] | None:
    """Return the labels of ``name{label="value",…}``, or ``None`` if they need the parser.

    Only the simplest form is read: no escapes, no blanks, no trailing comma, no duplicate. For that
    form the result equals the official parser's.

    Args:
        head: The line up to the end of the labels.
        name: The metric's name, with which ``head`` starts.
    """
    if head == name:
        return {}
    try:
        inside = head[len(name) + 1 : -1].decode()
    except UnicodeDecodeError:
        return None
    pairs = _PAIRS.findall(inside)
    labels = dict(pairs)
    # The text contains nothing else exactly if the pairs, written again, equal it.
    if (
        len(labels) != len(pairs)
        or "__name__" in labels
        or head[len(name) : len(name) + 1] != b"{"
        or ",".join([f'{label}="{value}"' for label, value in pairs]) != inside
    ):
        return None
    return labels


class LabelCache:
    """Caches labels by the text they were read from, up to a number of bytes.

    A full cache is cleared: reading the labels again costs a few microseconds per series.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._known: dict[bytes, Mapping[str, str] | None] = {}
        self.bytes = 0
        """Approximate memory of the entries."""
        self.get = self._known.get
        """Returns the cached labels or a default."""

    def put(self, head: bytes, labels: Mapping[str, str] | None) -> None:
        """Cache labels, or ``None`` if they cannot be read apart from the value."""
        if len(head) > _LONGEST_CACHED:
            return
        # The text, and once more as the labels' names and values.
        size = 2 * len(head) + _ENTRY_BYTES + _LABEL_BYTES * len(labels or ())
        if self.bytes + size > self._max_bytes:
            self._known.clear()
            self.bytes = 0
        self._known[head] = labels
        self.bytes += size
