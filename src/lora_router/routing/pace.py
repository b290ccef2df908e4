"""How fast those that wait get what they wait for: from it follows how long a further one waits.

Routers that are peers share the slots of a fleet. So those that wait for a slot at peers count too,
and what they get.
"""

import math

from lora_router.routing.overrun import Overrun

_SECONDS = 10.0
"""What happened this long ago counts a third. A lower value follows changes sooner. A higher value
makes estimates steadier."""
_FEWEST = 5
"""The number of grants from which a pace is known."""
_LAST_GRANTS = 32
"""Over how many grants the usual time between two of them is averaged."""
_STALL_FACTOR = 10.0
"""A time between two grants counts as this times the usual one at most. With a lower value, it
takes longer until a slower pace is noticed. With a higher value, a stall is taken for one."""
_LEAST_SECONDS = 0.01
"""Added to the most that such a time counts, because several may be granted at once."""


class Pace:
    """The pace of one line. Time counts only while somebody waits."""

    __slots__ = (
        "_at",
        "_gap",
        "_granted_at",
        "_grants",
        "_known_after",
        "_loading",
        "_own_grants",
        "_peers_wait",
        "_waited",
        "is_in_use",
        "overrun",
        "total",
    )

    def __init__(self, known_after: float = math.inf) -> None:
        """Begin without any.

        Args:
            known_after: Seconds after which the pace is known even with fewer grants.
        """
        self._known_after = known_after
        self._at: float | None = None
        """When time was counted last; ``None``: nobody waits."""
        self._grants = 0.0
        """Of this router and its peers."""
        self._own_grants = 0.0
        self._loading = 0.0
        self._waited = 0.0
        self._gap: float | None = None
        """The usual time between two grants, here or at peers."""
        self._granted_at = 0.0
        """How long somebody had waited at the last grant."""
        self.overrun = Overrun()
        """How long requests would wait if none had been refused."""
        self.total = 0
        """Grants since the start."""
        self.is_in_use = False
        """Whether somebody waits in the line."""
        self._peers_wait = False

    def start(self, now: float) -> None:
        """Count time from now on, because somebody waits."""
        self.is_in_use = True
        self._go_on(now)

    def stop(self, now: float) -> None:
        """Count no more time than peers wait, because nobody waits here."""
        self.is_in_use = False
        self._go_on(now)

    def hear(self, now: float, *, peers_wait: bool, granted: int) -> None:
        """Count what peers tell.

        Args:
            now: The time.
            peers_wait: Whether somebody waits for the same at a peer.
            granted: How many of those that waited there got it.
        """
        self._peers_wait = peers_wait
        self._go_on(now)
        self._note_gap(granted)
        self._grants += granted
        self.total += granted

    def _go_on(self, now: float) -> None:
        self._pass(now)
        self._at = now if self.is_in_use or self._peers_wait else None

    @property
    def loading(self) -> float:
        """How long the adapters of the last ones take to load, on average, in seconds."""
        return self._loading / self._own_grants if self._own_grants else 0.0

    def granted(self, now: float, loading: float = 0.0) -> None:
        """Count one that waits here no more, because it got what it waited for.

        Args:
            now: The time.
            loading: Seconds that loading its adapter takes.
        """
        self._pass(now)
        self._note_gap(1)
        self._grants += 1.0
        self._own_grants += 1.0
        self._loading += loading
        self.total += 1

    def seconds_for(self, ahead: int, now: float, own: int = 0) -> float | None:
        """Return how long one waits that has some before it; ``None``: nobody knows yet.

        Args:
            ahead: How many get what they wait for before, here or at peers. -1: these are not
                known, and ``own`` has those of this router, and itself.
            now: The time.
            own: How many more would get it before, of those that come to this router.
        """
        self._pass(now)
        if self.total < _FEWEST and self._waited < self._known_after:
            return None
        counted = -_SECONDS * math.expm1(-self._waited / _SECONDS)
        seconds = (ahead + 1) * counted / max(self._grants, 0.5)
        return seconds + own * counted / max(self._own_grants, 0.5) if own else seconds

    def retry_seconds(self, ahead: int, now: float, own: int = 0) -> float | None:
        """Return after what time one would be served that comes again; ``None``: nobody knows yet.

        It differs from ``seconds_for`` if grants stand still, or did lately. The time that they
        have stood still is expected to pass once more, not once more for each one before it.

        Args:
            ahead: As in ``seconds_for``.
            now: The time.
            own: As there.
        """
        seconds = self.seconds_for(ahead, now, own)
        if seconds is None or self._gap is None or not self._own_grants:
            return seconds
        standing = self._waited - self._granted_at
        of_own = self._gap * self._grants / self._own_grants
        return min(seconds, standing + (ahead + 1) * self._gap + own * of_own)

    def _note_gap(self, granted: int) -> None:
        """Average the time between two grants."""
        if not granted:
            return
        gap, self._granted_at = (self._waited - self._granted_at) / granted, self._waited
        usual = self._gap
        if usual is None:
            self._gap = gap
            return
        share = min(1.0, granted / min(self.total + granted, _LAST_GRANTS))
        self._gap = usual + share * (min(gap, _STALL_FACTOR * usual + _LEAST_SECONDS) - usual)

    def _pass(self, now: float) -> None:
        if self._at is None:
            return
        seconds = now - self._at
        self._at = now
        self._waited += seconds
        share = math.exp(-seconds / _SECONDS)
        self._grants *= share
        self._own_grants *= share
        self._loading *= share
