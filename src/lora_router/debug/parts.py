"""Rows that processes tell each other beside those of the pages, because they are to be merged."""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct, field

from lora_router.debug.rows import AdapterRow, PodRow


class OnPod(NamedTuple):
    """An adapter on a pod."""

    name: str
    place: str
    in_flight: int
    """Its requests of this process."""
    peers: int
    """Its requests of the peers of this process."""
    closed: bool


class PodPart(PodRow, kw_only=True, omit_defaults=True):
    """A pod, as one process knows it. Its counts are those of this process alone."""

    on: list[OnPod] = field(default_factory=list)
    """The adapters on it. ``adapters`` is empty."""
    peers_requests: int = 0
    """What its peers reported. A peer that answers, too, counts once."""


class TimesPart(Struct, kw_only=True, frozen=True):
    """A histogram."""

    bounds: Sequence[float] = ()
    """Upper bounds of the buckets, without the last one, which has none."""
    counts: Sequence[int] = ()
    """Values by bucket, not cumulative."""

    def plus(self, other: "TimesPart") -> "TimesPart":
        """Return the sum. Histograms with other buckets, of another release, do not count."""
        if not self.counts:
            return other
        if not other.counts or list(other.bounds) != list(self.bounds):
            return self
        counts = [one + two for one, two in zip(self.counts, other.counts, strict=True)]
        return TimesPart(bounds=self.bounds, counts=counts)


class AdapterPart(AdapterRow, kw_only=True, omit_defaults=True):
    """An adapter, as one process knows it."""

    peers_in_flight: int = 0
    first_byte: TimesPart = TimesPart()
    hold: TimesPart = TimesPart()
