"""What the routers of a fleet tell each other: records; how they are carried is not known here.

A router tells all of it each time, not what changed. So a telling that is lost costs nothing but
age, and nobody has to remember what was told before.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PodShare:
    """What one router has in flight on one pod."""

    server: tuple[str, str]
    """The pod's address and uid. Of another server of the same name this says nothing."""
    requests: int
    adapters: Mapping[str, int]
    """Of the requests, how many for each adapter. An adapter with none is not in it."""


@dataclass(frozen=True, slots=True)
class HeldShare:
    """The requests for one adapter that one router holds."""

    seconds: float
    """How long the oldest of them has waited."""
    wanted: str | None = None
    """The name of the pod whose free slot it would have, were it this router's turn."""
    closed: tuple[str, str] | None = None
    """The slot that is to become free for it, if one was chosen: a pod's name, and the adapter that
    gets no further requests there."""


@dataclass(frozen=True, slots=True)
class LedgerShare:
    """One router's ledger at one moment."""

    router: str
    """Its name, which no other router of the fleet has."""
    number: int
    """Counts its tellings, from 1."""
    every: float
    """Seconds until the next one. A router that misses several is taken for gone."""
    pods: Mapping[str, PodShare]
    """By the pods' names. One with nothing in flight need not be in it."""
    held: Mapping[str, HeldShare]
    """By adapter."""
    heard: Mapping[str, int]
    """For each other router, the number of its last telling that came here."""
