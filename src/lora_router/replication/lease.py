"""What a Lease contains, and what can be done with one."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Claim:
    """The part of a Lease that routers write. Its times are for people: no router compares them."""

    holder: str = ""
    """Identity of the router that leads; empty: none."""
    duration: int = 0
    """Seconds after which a claim that is not renewed ends."""
    acquired: str = ""
    """When the holder began to lead: RFC 3339, by the holder's clock."""
    renewed: str = ""
    transitions: int = 0
    """How often the holder changed."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A Lease as the API server returned it."""

    claim: Claim
    version: str
    """Its resource version. A write succeeds only if the Lease still has it."""
    document: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The complete object. A write keeps what others set in it, such as labels."""


class LeaseStore(Protocol):
    """Access to one Lease. Each call may raise ``ApiError``, and ends within a time limit."""

    async def read(self) -> Lease | None:
        """Return the Lease, or ``None`` if it does not exist."""

    async def write(self, claim: Claim, over: Lease | None) -> Lease:
        """Replace the claim of ``over``, or create the Lease. Returns what was written.

        Raises:
            ApiError: ``conflict``: another write came first. ``missing``: ``over`` was deleted.
        """

    def watch(self, version: str) -> AsyncGenerator[Lease | None]:
        """Yield each change after ``version``, ``None`` for a deletion, until the watch ends."""

    async def close(self) -> None:
        """Close all connections."""
