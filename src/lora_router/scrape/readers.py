"""The routers that share the reads of pods: which of them reads a pod, and who is believed.

A router reads the pods for which its name has the highest hash (rendezvous hashing). So a router
that joins or leaves moves only its own share of the pods. No I/O.
"""

import math
from collections.abc import Iterator
from hashlib import blake2b

MAX_READERS = 256
"""Readers that are known at the same time."""
_QUIET_SECONDS = 1.0
"""A reader that has told nothing for this long, and for two intervals, does not take part.

The time in which this router stalled does not count: what others told meanwhile is still unread."""
_WINDOW_SECONDS = 30.0
"""Contradictions within this time are counted."""
_CONTRADICTIONS = 3
"""So many of them, in at least ``_SHARE`` of the audits, show that a reader cannot be believed."""
_SHARE = 0.2
_FIRST_DISTRUST_SECONDS, _LONGEST_DISTRUST_SECONDS = 60.0, 3600.0
_REFORMED_SECONDS = 3600.0
"""A reader that was believed for this long is not believed for the shortest time the next time."""


class _Reader:
    """Another router that reads pods."""

    __slots__ = ("audits", "contradictions", "distrust", "heard_at", "interval", "since", "until")

    def __init__(self) -> None:
        self.heard_at = -math.inf
        self.interval = 0.0
        self.since = -math.inf
        """The begin of the window."""
        self.audits = 0
        self.contradictions = 0
        self.until = -math.inf
        """Until when it is not believed."""
        self.distrust = _FIRST_DISTRUST_SECONDS
        """For how long it is not believed the next time."""


class Readers:
    """All routers that read pods and tell what they read, beside this one."""

    def __init__(self, name: str) -> None:
        """Create it without others.

        Args:
            name: This router's name.
        """
        self._name = name
        self._readers: dict[str, _Reader] = {}
        self._live: tuple[str, ...] = ()
        self.version = 0
        """Changes whenever another router takes part, or no longer does."""

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[str]:
        return iter(self._live)

    def order(self, pod: str) -> list[str]:
        """Return the names of all routers, this one included. The first one reads the pod.

        If it does not, the next one does.
        """
        return sorted((self._name, *self._live), key=lambda name: _weight(name, pod), reverse=True)

    def rename(self, name: str) -> None:
        """Use another name for this router, by which the others know it from now on."""
        self._name = name
        self.version += 1

    def interval(self, name: str) -> float:
        """Return the interval at which a router says that it reads each of its pods."""
        reader = self._readers.get(name)
        return 0.0 if reader is None else reader.interval

    def heard(self, name: str, interval: float, now: float) -> bool:
        """Note that a router told something; return whether it is believed."""
        reader = self._readers.get(name)
        if reader is None:
            if len(self._readers) >= MAX_READERS:
                return False
            reader = self._readers[name] = _Reader()
        reader.heard_at, reader.interval = now, interval
        if now < reader.until:
            return False
        if name not in self._live:
            self._set_live((*self._live, name))
        return True

    def gone(self, name: str) -> None:
        """Forget a router that stopped or is not heard any more."""
        # A router that is not believed keeps its bad name for as long as it would have had it.
        reader = self._readers.get(name)
        if reader is not None and reader.until == -math.inf:
            del self._readers[name]
        self._set_live(tuple(each for each in self._live if each != name))

    def excuse(self, seconds: float, now: float) -> None:
        """Do not count some seconds as silence: this router did not hear anybody in them."""
        for reader in self._readers.values():
            reader.heard_at = min(now, reader.heard_at + seconds)

    def expire(self, now: float) -> None:
        """Leave out those that have told nothing for too long."""
        live = tuple(
            name
            for name in self._live
            if now - (reader := self._readers[name]).heard_at
            <= max(_QUIET_SECONDS, 2 * reader.interval)
        )
        self._set_live(live)
        for name, reader in tuple(self._readers.items()):
            if name not in live and now > max(reader.until, reader.heard_at) + _WINDOW_SECONDS:
                del self._readers[name]

    def audited(self, name: str, now: float, *, good: bool) -> bool:
        """Count an audit of a router; return whether it is no longer believed because of it."""
        reader = self._readers.get(name)
        if reader is None or now < reader.until:
            return False
        if now - reader.since > _WINDOW_SECONDS:
            reader.since, reader.audits, reader.contradictions = now, 0, 0
        reader.audits += 1
        reader.contradictions += not good
        if (
            reader.contradictions < _CONTRADICTIONS
            or reader.contradictions < _SHARE * reader.audits
            or good
        ):
            return False
        if now - reader.until > _REFORMED_SECONDS:
            reader.distrust = _FIRST_DISTRUST_SECONDS
        reader.until = now + reader.distrust
        reader.distrust = min(2 * reader.distrust, _LONGEST_DISTRUST_SECONDS)
        reader.since = -math.inf
        self._set_live(tuple(each for each in self._live if each != name))
        return True

    def _set_live(self, live: tuple[str, ...]) -> None:
        if live != self._live:
            self._live = live
            self.version += 1


def _weight(router: str, pod: str) -> bytes:
    text = f"{router}\0{pod}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
