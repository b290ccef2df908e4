"""Which pods have no room for another request, apart from adapter slots.

A pod has no room

- if it has ``max_requests_per_pod`` requests in flight, of all known senders, or
- if all scrapes of two seconds showed requests that wait for something other than a slot (a place
  in the batch, or room in the KV cache): then as many requests may be in flight as ran. With each
  further scrape that shows nobody waiting, they may be a few more, until the pod has clearly fewer
  than it may have. This holds only for algorithms with ``waits_for_room``, while overload is shed.

A request that waits in the router instead goes to the pod that has room first, in order of
priority, and is refused early if the wait would be too long. One that waits on a pod can do
neither.
"""

from collections.abc import Collection, Iterable
from typing import Protocol

from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.overload import Overload

_OLD_SECONDS = 5.0
"""A scrape that is older shows nothing."""
_STEP_SECONDS = 2.0
"""A pod is full if requests waited at each scrape for this long. A request that arrives within a
step waits for its end on every pod, and with long prompts a step takes some tenths of a second."""
_GROWTH = 1.05
"""By what the requests that a pod may have grow with each scrape that shows nobody waiting. A lower
value leaves a pod idle for longer after its requests became shorter. A higher value makes more
requests wait on pods."""
_IDLE_SHARE = 0.75
"""A pod with a smaller share of the requests that it may have is not full any more."""


class Rooms(Protocol):
    """Which pods have room, apart from slots: the ``Reception``."""

    def has_room(self, pod: PodView, algorithm: str) -> bool:
        """Return whether a pod has room for another request of an algorithm."""

    def may_be_full(self, pod: PodView) -> bool:
        """Return whether a pod may have no room."""


class PodRoom:
    """The room on the pods of one fleet."""

    def __init__(self, overload: Overload) -> None:
        self._limit = overload.max_requests_per_pod
        self._sheds = overload.sheds
        self._queued: dict[PodView, float] = {}
        """The pods on which requests waited, with the requests that may be in flight there."""
        self._waits_since: dict[PodView, float] = {}
        """The pods on which requests waited at each scrape since a time."""

    @property
    def may_be_short(self) -> bool:
        """Whether some pod may have no room."""
        return self._limit is not None or bool(self._queued)

    def may_be_full(self, pod: PodView) -> bool:
        """Return whether a pod may have no room."""
        return self._limit is not None or pod in self._queued

    def scraped(self, states: Iterable[PodState]) -> None:
        """Apply the last scrapes of pods."""
        for state in states:
            metrics = state.metrics
            if self._sheds and metrics is not None and metrics.waiting:
                deferred = metrics.deferred
                if deferred is None and state.beliefs.shown:
                    deferred = metrics.waiting  # They may wait for a slot.
                if metrics.waiting > (deferred or 0.0):
                    since = self._waits_since.setdefault(state, metrics.scraped_at)
                    if metrics.scraped_at - since >= _STEP_SECONDS or state in self._queued:
                        self._queued[state] = metrics.running or 0.0
                    continue
            self._waits_since.pop(state, None)
            most = self._queued.get(state)
            if most is None:
                continue
            if _load(state) < _IDLE_SHARE * most:
                del self._queued[state]
            else:
                self._queued[state] = _GROWTH * most + 1.0

    def forget(self, states: Iterable[PodState]) -> None:
        """Forget pods that may have left."""
        for state in states:
            self._queued.pop(state, None)
            self._waits_since.pop(state, None)

    def is_at_limit(self, pod: PodView) -> bool:
        """Return whether a pod has as many requests in flight as it may."""
        return self._limit is not None and _load(pod) >= self._limit

    def is_full(self, pod: PodView, now: float, *, queued_too: bool) -> bool:
        """Return whether a pod has no room for another request.

        Args:
            pod: The pod.
            now: The time.
            queued_too: Whether requests that wait on the pod count.
        """
        if self.is_at_limit(pod):
            return True
        if not queued_too or pod not in self._queued:
            return False
        metrics = pod.metrics
        if metrics is None or now - metrics.scraped_at > _OLD_SECONDS:
            return False
        return _load(pod) >= self._queued[pod]

    def with_room(
        self, pods: Collection[PodView], now: float, *, queued_too: bool
    ) -> list[PodView]:
        """Return those of some pods that have room."""
        return [pod for pod in pods if not self.is_full(pod, now, queued_too=queued_too)]


def _load(pod: PodView) -> int:
    return pod.in_flight + pod.beliefs.foreign_requests
