"""How much of a pod's time loads may stall it while it serves requests.

A load runs in the engine's own loop, so that the whole batch waits for it: from disk 1.5 s, if
nothing else is known. A pod that serves gets a budget of stalled seconds, which grows with time.
"""

STALL_SHARE = 0.05
"""Part of a serving pod's time in which loads may stall it."""
BURST_SECONDS = 1.0
"""Stalled seconds that a pod without loads saves up, so that a new adapter need not wait."""
MOST_OWED_SECONDS = 10.0
"""A load that takes longer, such as one that hangs, need not have stalled the pod for all of it.
With a higher value it delays further loads for longer."""


class StallBudget:
    """The seconds for which loads may stall one pod."""

    __slots__ = ("_at", "_burst", "_left", "_share")

    def __init__(self, now: float, share: float, burst: float) -> None:
        """Create a full budget.

        Args:
            now: The time.
            share: Part of the time that loads may take.
            burst: Seconds that are saved up at most.
        """
        self._share = share
        self._burst = self._left = burst
        self._at = now

    def spend(self, seconds: float, now: float) -> None:
        """Record that a load stalled the pod for so long. The budget may become negative."""
        self._grow(now)
        self._left = max(self._left - seconds, -MOST_OWED_SECONDS)

    def refill(self) -> None:
        """Make the budget full: the server was started again, or the operator wants loads now."""
        self._left = self._burst

    def ready_at(self, now: float) -> float:
        """Return when the next load may begin."""
        self._grow(now)
        if self._left > 0:
            return now
        return now + (-self._left / self._share if self._share > 0 else float("inf"))

    def _grow(self, now: float) -> None:
        self._left = min(self._burst, self._left + self._share * max(0.0, now - self._at))
        self._at = now
