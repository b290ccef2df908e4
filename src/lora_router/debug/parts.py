"""Rows that processes tell each other beside those of the pages, because they are to be merged."""

from msgspec import Struct, field

from lora_router.debug.rows import AdapterRow, PodRow


class OnPod(Struct, frozen=True, array_like=True, gc=False):
    """An adapter on a pod."""

    name: str
    place: str
    in_flight: int
    """Its requests of this process."""
    peers: int
    """Its requests of the peers of this process."""
    closed: bool


class PodPart(PodRow, kw_only=True, omit_defaults=True, gc=False):
    """A pod, as one process knows it. Its counts are those of this process alone."""

    on: list[OnPod] = field(default_factory=list)
    """The adapters on it. ``adapters`` is empty."""
    peers_requests: int = 0
    """What its peers reported. A peer that answers, too, counts once."""


class AdapterPart(AdapterRow, kw_only=True, omit_defaults=True, gc=False):
    """An adapter, as one process knows it."""

    peers_in_flight: int = 0
    first_byte: list[int] = field(default_factory=list)
    """The counts of ``telemetry.times.Times``."""
    hold: list[int] = field(default_factory=list)
