"""Adapters that a pod has listed and does not list any more: they were unloaded.

Their last use says nothing any more. If it were remembered, they would be believed to be in slots
and in host memory, and push out adapters that are there. An adapter with requests is on the pod
whatever the list says, so it is forgotten when the last one has ended.
"""

from collections.abc import Collection, Container, Iterable, Sequence
from itertools import islice

_MOST = 1024
"""How many are remembered. A page that was made before the list may still show the last ones."""


class UnlistedAdapters:
    """Those of one pod. ``AdapterBeliefs`` writes to it."""

    __slots__ = ("_lost", "listed", "used")

    def __init__(self) -> None:
        self.listed: Collection[str] = ()
        """What the pod lists."""
        self.used: set[str] = set()
        """Those whose last use is still known."""
        self._lost: dict[str, None] = {}
        """All of them, those that were lost last at the end."""

    def list(self, adapters: Collection[str], used: Iterable[str]) -> None:
        """Apply what the pod lists.

        Args:
            adapters: Its list.
            used: The adapters that were used on it, as far as is known.
        """
        lost = self._lost
        for name in [name for name in lost if name in adapters]:
            del lost[name]
        # A list may have thousands, and changes with each load: this takes 0.15 ms for 3,000.
        lost.update(dict.fromkeys([name for name in self.listed if name not in adapters]))
        for name in tuple(islice(lost, max(0, len(lost) - _MOST))):
            del lost[name]
        self.listed = adapters
        self.used = {name for name in used if name in lost} if lost else set()

    def use(self, adapter: str) -> None:
        """Note that an adapter was used."""
        if adapter in self._lost:
            self.used.add(adapter)

    def without_requests(self, *in_flight: Container[str]) -> Sequence[str]:
        """Return, once, those whose last use is known and that are not in flight."""
        gone = [name for name in self.used if not any(name in some for some in in_flight)]
        self.used.difference_update(gone)
        return gone
