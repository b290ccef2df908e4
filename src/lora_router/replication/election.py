"""Who leads, as far as this router knows: the state of an election, without I/O.

Rules:

- A claim is valid for its duration after its last renewal. The holder renews it every quarter of
  the duration.
- Clocks of different hosts are never compared. The holder counts from the moment before it sent the
  renewal. Others count from the moment at which they saw the claim change, which is later. All
  use monotonic clocks.
- The holder stops leading after three quarters of the duration without a renewal. Others may claim
  the Lease after the whole duration. So a holder that cannot renew has stopped before another
  begins, even if their clocks run at different speeds or its event loop is late.
- Two routers that claim the Lease at the same time write over the same resource version. The API
  server accepts one of them.

Source: the leader election of ``client-go``.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from lora_router.replication.lease import Claim, Lease

LONGEST_DURATION_SECONDS = 60
"""Longer durations in a Lease are not believed."""
_RENEW_SHARE = 0.25
_LEAD_SHARE = 0.75


class Election:
    """The state of one router."""

    def __init__(
        self,
        identity: str,
        duration: int,
        clock: Callable[[], float],
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Create it. Nothing is known of the Lease yet.

        Args:
            identity: The holder that this router writes. Each run of a router needs its own.
            duration: Seconds after which a claim of this router ends.
            clock: Returns seconds, monotonic.
            wall_clock: Returns the time that is written for people.
        """
        self.identity = identity
        self.duration = duration
        self._clock = clock
        self._wall_clock = wall_clock
        self.lease: Lease | None = None
        """The Lease as last seen; ``None``: it does not exist, or was never seen."""
        self.claim = Claim()
        """The claim as last seen. It outlives a deletion of the Lease."""
        self._changed_at = clock()
        self._renewed_at: float | None = None

    @property
    def leads(self) -> bool:
        """Whether this router holds a valid claim."""
        return self.valid_for > 0

    @property
    def valid_for(self) -> float:
        """Seconds for which this router leads if it does not renew its claim."""
        if self._renewed_at is None:
            return 0.0
        return max(0.0, self._renewed_at + self.duration * _LEAD_SHARE - self._clock())

    @property
    def renewal_in(self) -> float:
        """Seconds until the claim of this router should be renewed."""
        if self._renewed_at is None:
            return 0.0
        return max(0.0, self._renewed_at + self.duration * _RENEW_SHARE - self._clock())

    @property
    def free_in(self) -> float:
        """Seconds until this router may claim the Lease, if its claim does not change."""
        claim = self.claim
        if claim.holder in ("", self.identity):
            return 0.0
        duration = claim.duration
        if not 0 < duration <= LONGEST_DURATION_SECONDS:
            duration = self.duration
        return max(0.0, self._changed_at + duration - self._clock())

    def observe(self, lease: Lease | None) -> None:
        """Take over what the API server returned. Any change of the claim counts as a renewal.

        A deletion is not a release: the holder may not know of it, and leads until its claim ends.
        """
        if lease is None:
            if self.lease is not None:
                self._changed_at = self._clock()
        elif lease.claim != self.claim:
            self.claim = lease.claim
            self._changed_at = self._clock()
            if lease.claim.holder != self.identity:
                self._renewed_at = None
        self.lease = lease

    def own_claim(self) -> Claim:
        """Return the claim with which this router begins or continues to lead."""
        now = _rfc3339(self._wall_clock())
        last = self.claim
        if last.holder == self.identity:
            return Claim(self.identity, self.duration, last.acquired, now, last.transitions)
        return Claim(self.identity, self.duration, now, now, last.transitions + 1)

    def claimed(self, lease: Lease, sent_at: float) -> None:
        """Note that the API server accepted ``own_claim``.

        Args:
            lease: What it returned.
            sent_at: The time just before the request, by this router's clock.
        """
        self.observe(lease)
        if lease.claim.holder == self.identity:
            self._renewed_at = sent_at

    def released_claim(self) -> Claim:
        """Return the claim that lets another router lead at once."""
        now = _rfc3339(self._wall_clock())
        return Claim("", 1, now, now, self.claim.transitions)

    def resign(self) -> None:
        """Stop to lead. What the Lease says does not change by that."""
        self._renewed_at = None


def _rfc3339(time: datetime) -> str:
    """Return a time as a Lease contains it, always with microseconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
