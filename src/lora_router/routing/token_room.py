"""How many requests a pod may have, so that its answers do not become too slow.

Each request that runs on a pod lengthens the steps of its batch, and so the time between two tokens
of every answer there. Scrapes show how long that time is: the seconds that requests spent in the
batch, divided by the tokens that were generated.

Rules:

- A pod has no limit until its time for a token exceeds ``max_seconds_per_token``. Then it may have
  as many requests as would be fast enough if the time were proportional to their number. A part of
  the time is not, so this is too many at first, and becomes right as fewer run.
- A pod that is fast enough may have more again, by the same proportion.
- A pod that stays too slow with ``FEWEST`` requests has no limit, because fewer would not help,
  until scrapes show that it is fast enough.
- Seconds in which the pod stood still, because it loaded an adapter, do not count.
- The time that is aimed at is ``AIM`` of the setting, because answers differ.
"""

from collections import deque
from collections.abc import Collection

from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState, PodView

AIM = 0.9
"""Share of the allowed time that is aimed at. A lower value refuses more requests. With a higher
value, more answers are slower than allowed."""
FEWEST = 8.0
"""A pod may always have so many requests. With a lower value, a pod that loads an adapter is taken
for slow. With a higher value, large models that are slow with few requests stay too slow."""
_SECONDS = 1.0
"""How long the pod is watched for one value. A shorter time has too few steps of the batch."""
_VALUES = 7
"""How many of the last values count. A lower value follows every change. A higher value lets a pod
have too many requests for longer."""
_KNOWN_AFTER = 3
_STALLED = 2.0
"""Values that are this many times the lower quartile do not count: a load of an adapter stops the
pod for a while, and fewer requests would not change that."""
_FEW = 1.25
_HOPELESS_SECONDS = 30.0
"""How long a pod with ``_FEW`` times the fewest requests is too slow before it has no limit."""
_LONGEST_SECONDS = 30.0
"""Scrapes that are further apart say nothing about the requests between them."""


class _PodPace:
    """What is known of one pod."""

    __slots__ = (
        "hopeless",
        "in_batch",
        "most",
        "scrape",
        "seconds",
        "slow_since",
        "tokens",
        "values",
    )

    def __init__(self, scrape: PodMetrics) -> None:
        self.scrape = scrape
        """The last scrape."""
        self.seconds = 0.0
        """How long the pod was watched for the next value, while requests ran."""
        self.in_batch = 0.0
        """Seconds that requests spent in the batch meanwhile, all together."""
        self.tokens = 0.0
        """Tokens that were generated meanwhile."""
        self.values: deque[tuple[float, float]] = deque(maxlen=_VALUES)
        """The last values: seconds for a token, and how many requests ran."""
        self.most: float | None = None
        """The requests that it may have; ``None``: any number."""
        self.slow_since: float | None = None
        """Since when it has been too slow with few requests."""
        self.hopeless = False
        """Whether it was so for too long."""


class TokenRoom:
    """The limits of all pods of a fleet."""

    def __init__(self, max_seconds_per_token: float) -> None:
        self._goal = AIM * max_seconds_per_token
        self._pods: dict[PodView, _PodPace] = {}
        self._limits: dict[PodView, float] = {}

    @property
    def limits(self) -> bool:
        """Whether some pod is limited."""
        return bool(self._limits)

    def most(self, pod: PodView) -> float | None:
        """Return how many requests a pod may have; ``None``: any number."""
        return self._limits.get(pod)

    def forget(self, states: Collection[PodState]) -> None:
        """Forget pods that have left."""
        for state in states:
            self._pods.pop(state, None)
            self._limits.pop(state, None)

    def scraped(self, state: PodState) -> None:
        """Learn from the last scrape of a pod."""
        metrics = state.metrics
        if metrics is None or metrics.running is None or metrics.generated_tokens is None:
            return
        pace = self._pods.get(state)
        if pace is None:
            self._pods[state] = _PodPace(metrics)
            return
        before, pace.scrape = pace.scrape, metrics
        seconds = metrics.scraped_at - before.scraped_at
        tokens = metrics.generated_tokens - (before.generated_tokens or 0.0)
        if not (0.0 < seconds <= _LONGEST_SECONDS and tokens >= 0.0):  # Another process, maybe.
            return
        running = (metrics.running + (before.running or 0.0)) / 2
        if running < 1.0:
            return
        pace.seconds += seconds
        pace.in_batch += seconds * running
        pace.tokens += tokens
        if pace.seconds < _SECONDS or pace.tokens < 1.0:
            return
        pace.values.append((pace.in_batch / pace.tokens, pace.in_batch / pace.seconds))
        pace.seconds = pace.in_batch = pace.tokens = 0.0
        if len(pace.values) >= _KNOWN_AFTER:
            self._learn(pace, metrics.running, metrics.scraped_at)
            if pace.most is None:
                self._limits.pop(state, None)
            else:
                self._limits[state] = pace.most

    def _learn(self, pace: _PodPace, now_running: float, now: float) -> None:
        """Learn from the last values."""
        values = sorted(pace.values)
        most = _STALLED * values[len(values) // 4][0]
        values = [value for value in values if value[0] <= most]
        per_token, running = (sum(each) / len(values) for each in zip(*values, strict=True))
        allowed = running * self._goal / per_token
        if allowed >= running:
            pace.slow_since, pace.hopeless = None, False
            if pace.most is not None:
                pace.most = max(pace.most, allowed)
            return
        if pace.hopeless or now_running <= allowed:
            return
        pace.most = max(FEWEST, allowed)
        if running > _FEW * FEWEST:
            pace.slow_since = None
        elif pace.slow_since is None:
            pace.slow_since = now
        elif now - pace.slow_since > _HOPELESS_SECONDS:
            pace.most, pace.hopeless = None, True
