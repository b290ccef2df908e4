"""The place of a router that is one of several workers behind one address."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Where it is."""

    host: str
    """Identifies the run of all workers behind the address."""
    number: int
    """The worker's, from 1."""
    count: int
    """How many workers there are."""
