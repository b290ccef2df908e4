"""A HorizontalPodAutoscaler, without a cluster: how many pods it asks for, and when.

It does what the controller of Kubernetes does with a metric of type ``External`` and a target of
type ``AverageValue``, which is also what KEDA creates:

- The metric, divided by the target, rounded up, is the number of pods. Within the tolerance of the
  current number, the number stays.
- Stabilisation: up to the lowest number that was asked for within ``up_window_seconds``, down to
  the highest one within ``down_window_seconds``.
- Policies limit how much changes within a period: up by 4 pods or to the double, whichever is more,
  down by everything.
"""

from collections import deque
from dataclasses import dataclass
from math import ceil

_MOST_PODS_UP = 4
_PERIOD_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class AutoscalerOptions:
    """The limits and times of an autoscaler, and of the pods that it starts."""

    min_pods: int
    max_pods: int
    slots_per_pod: float
    """The target: slots wanted for each pod. Less than a pod has, so that some stay free."""
    requests_per_pod: float | None = None
    """A second target: requests in flight or held, for each pod. ``None``: none. The target that
    asks for more pods counts."""
    startup_seconds: float = 120.0
    """From the start of a pod to its first request."""
    up_window_seconds: float = 0.0
    down_window_seconds: float = 300.0
    tolerance: float = 0.1
    sync_seconds: float = 15.0
    """How often the controller decides."""
    metric_seconds: float = 15.0
    """How often the metric is read."""
    average_seconds: float = 0.0
    """The controller uses the average over this time (``avg_over_time``). 0: the last value."""


class PodAutoscaler:
    """Decides how many pods there should be."""

    def __init__(self, options: AutoscalerOptions) -> None:
        self._options = options
        self._asked: deque[tuple[float, int]] = deque()
        """What the metric asked for, within the longer window."""
        self._changes: deque[tuple[float, int]] = deque()
        """Pods that were added, within the period of the policies."""

    def pods(self, now: float, current: int, wanted_slots: float, requests: float = 0.0) -> int:
        """Return how many pods there should be.

        Args:
            now: Seconds.
            current: How many there are, including those that start.
            wanted_slots: The slots wanted, as the metric says.
            requests: Requests in flight or held.
        """
        options = self._options
        asked = self._for_target(current, wanted_slots, options.slots_per_pod)
        if options.requests_per_pod is not None:
            asked = max(asked, self._for_target(current, requests, options.requests_per_pod))
        asked = max(options.min_pods, min(options.max_pods, asked))
        found = self._limited(now, current, self._stable(now, current, asked))
        if found > current:
            self._changes.append((now, found - current))
        return found

    def _for_target(self, current: int, value: float, target: float) -> int:
        ratio = value / (target * current)
        if abs(ratio - 1.0) <= self._options.tolerance:
            return current
        return ceil(value / target)

    def _stable(self, now: float, current: int, asked: int) -> int:
        options = self._options
        self._asked.append((now, asked))
        longest = max(options.up_window_seconds, options.down_window_seconds)
        while self._asked[0][0] < now - longest:
            self._asked.popleft()
        lowest = min(
            (pods for at, pods in self._asked if at >= now - options.up_window_seconds),
            default=asked,
        )
        highest = max(
            (pods for at, pods in self._asked if at >= now - options.down_window_seconds),
            default=asked,
        )
        return min(max(current, lowest), highest)

    def _limited(self, now: float, current: int, asked: int) -> int:
        while self._changes and self._changes[0][0] <= now - _PERIOD_SECONDS:
            self._changes.popleft()
        before = current - sum(pods for _, pods in self._changes)
        return min(asked, max(before + _MOST_PODS_UP, 2 * before))
