"""How fast those that wait get what they wait for: from it follows how long a further one waits."""

import math

from lora_router.routing.overrun import Overrun

_SECONDS = 10.0
"""What happened this long ago counts a third. A lower value follows changes sooner. A higher value
makes estimates steadier."""
_FEWEST = 5
"""The number of grants from which a pace is known."""


class Pace:
    """The pace of one line. Time counts only while somebody waits."""

    __slots__ = ("_at", "_grants", "_known_after", "_loading", "_waited", "overrun", "total")

    def __init__(self, known_after: float = math.inf) -> None:
        """Begin without any.

        Args:
            known_after: Seconds after which the pace is known even with fewer grants.
        """
        self._known_after = known_after
        self._at: float | None = None
        """When time was counted last; ``None``: nobody waits."""
        self._grants = 0.0
        self._loading = 0.0
        self._waited = 0.0
        self.overrun = Overrun()
        """How long requests would wait if none had been refused."""
        self.total = 0
        """Grants since the start."""

    @property
    def counts(self) -> bool:
        """Whether it counts time."""
        return self._at is not None

    def start(self, now: float) -> None:
        """Count time from now on, because somebody waits."""
        self._at = now

    def stop(self, now: float) -> None:
        """Count no time from now on, because nobody waits."""
        self._pass(now)
        self._at = None

    @property
    def loading(self) -> float:
        """How long the adapters of the last ones take to load, on average, in seconds."""
        return self._loading / self._grants if self._grants else 0.0

    def granted(self, now: float, loading: float = 0.0) -> None:
        """Count one that waits no more, because it got what it waited for.

        Args:
            now: The time.
            loading: Seconds that loading its adapter takes.
        """
        self._pass(now)
        self._grants += 1.0
        self._loading += loading
        self.total += 1

    def seconds_for(self, ahead: int, now: float) -> float | None:
        """Return how long one waits that has some before it; ``None``: nobody knows yet.

        Args:
            ahead: How many get what they wait for before.
            now: The time.
        """
        self._pass(now)
        if self.total < _FEWEST and self._waited < self._known_after:
            return None
        counted = -_SECONDS * math.expm1(-self._waited / _SECONDS)
        return (ahead + 1) * counted / max(self._grants, 0.5)

    def _pass(self, now: float) -> None:
        if self._at is None:
            return
        seconds = now - self._at
        self._at = now
        self._waited += seconds
        share = math.exp(-seconds / _SECONDS)
        self._grants *= share
        self._loading *= share
