"""Which pods have no room for another request, apart from adapter slots.

A pod has no room

- if it has ``max_requests_per_pod`` requests in flight, of all known senders, or
- if it has as many as keep the time for a token within ``max_seconds_per_token`` (``token_room``),
  or
- if all scrapes of two seconds showed requests that wait for something other than a slot (a place
  in the batch, or room in the KV cache): then as many requests may be in flight as ran. With each
  further scrape that shows nobody waiting, they may be a few more, until the pod has clearly fewer
  than it may have. This holds only for algorithms with ``waits_for_room``, while overload is shed.
  Scrapes of a pod that loads an adapter from disk do not count: its batch stands still until the
  load ends, however few it has.

A request that waits in the router instead goes to the pod that has room first, in order of
priority, and is refused early if the wait would be too long. One that waits on a pod can do
neither.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from lora_router.clock import Clock, Timer
from lora_router.fleet.index import FleetIndex
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.candidates import Candidates
from lora_router.routing.overload import Overload
from lora_router.routing.roomy_pods import RoomyPods
from lora_router.routing.token_room import TokenRoom

_OLD_SECONDS = 5.0
"""A scrape that is older shows nothing."""
_OLD_AT_ONCE = 64
"""How many pods are looked at in one go whose scrapes are old. If scraping stops, it is all."""
_STEP_SECONDS = 2.0
"""A pod is full if requests waited at each scrape for this long. A request that arrives within a
step waits for its end on every pod, and with long prompts a step takes some tenths of a second."""
_GROWTH = 1.05
"""By what the requests that a pod may have grow with each scrape that shows nobody waiting. A lower
value leaves a pod idle for longer after its requests became shorter. A higher value makes more
requests wait on pods."""
_IDLE_SHARE = 0.75
"""A pod with a smaller share of the requests that it may have is not full any more."""

HOME_STRETCH = 3.0
"""How many times as many a pod may have, if the other pods would have to process what this pod has
of the prompt, or to load the adapter from disk. With a lower value, conversations and adapters move
from full pods until no cache is of any use, and all pods stay full. A higher value lets a pod have
more requests than the others."""


class Rooms(Protocol):
    """Which pods have room, apart from slots (``algorithm_rooms``)."""

    def has_room(self, pod: PodView, algorithm: str) -> bool:
        """Return whether a pod has room for another request of an algorithm."""

    def may_be_full(self, pod: PodView) -> bool:
        """Return whether a pod may have no room."""

    def may_join(self, pod: PodView, algorithm: str) -> bool:
        """Return whether a pod takes a further request of an algorithm, maybe without room."""

    def serving(self, model: str) -> Sequence[PodView]:
        """Return the ready pods that serve a model, whether they have room or not."""


class PodRoom:
    """The room on the pods of one fleet."""

    def __init__(self, overload: Overload, clock: Clock) -> None:
        """Create it without any limit that is learned.

        Args:
            overload: What the settings allow.
            clock: The time.
        """
        self._clock = clock
        self.on_old: Callable[[Collection[PodState]], None] = _nothing
        """Called with pods that may have room again, because their last scrape shows nothing."""
        self._limit = overload.max_requests_per_pod
        self._sheds = overload.sheds
        longest = overload.max_seconds_per_token
        self._tokens = None if longest is None else TokenRoom(longest)
        self._queued: dict[PodView, float] = {}
        """The pods on which requests waited, with the requests that may be in flight there."""
        self._waits_since: dict[PodView, tuple[float, float]] = {}
        """The pods on which requests waited at each scrape since a time, and until the last one."""
        self._old_at: dict[PodState, float] = {}
        """When their last scrape shows nothing any more, of pods on which requests waited, the
        first one first."""
        self._timer: Timer | None = None
        """Due when the first of them is."""
        self._roomy: dict[bool, RoomyPods] = {}
        """The pods of a large fleet that have room, by whether requests that wait on pods count."""

    @property
    def may_be_short(self) -> bool:
        """Whether some pod may have no room."""
        return (
            self._limit is not None
            or bool(self._queued)
            or (self._tokens is not None and self._tokens.limits)
        )

    def may_be_full(self, pod: PodView) -> bool:
        """Return whether a pod may have no room."""
        if self._limit is not None or pod in self._queued:
            return True
        return self._tokens is not None and self._tokens.most(pod) is not None

    def scraped(self, states: Iterable[PodState]) -> None:
        """Apply the last scrapes of pods."""
        self._learn(states)
        for state in states if self._queued else ():
            if state in self._queued and state.metrics is not None:
                self._old_at.pop(state, None)
                self._old_at[state] = state.metrics.scraped_at + _OLD_SECONDS
        self._look(states)
        self._await_the_first()

    def _await_the_first(self) -> None:
        """Wait until the first pod's last scrape shows nothing any more."""
        if self._old_at and self._timer is None:
            seconds = next(iter(self._old_at.values())) - self._clock.now()
            self._timer = self._clock.call_later(max(0.0, seconds), self._are_old)

    def _are_old(self) -> None:
        self._timer, now = None, self._clock.now()
        old: list[PodState] = []
        while self._old_at and len(old) < _OLD_AT_ONCE:
            state, at = next(iter(self._old_at.items()))
            if at > now:
                break
            del self._old_at[state]
            old.append(state)
        self._await_the_first()
        if old:
            self._look(old)
            self.on_old(old)

    def _learn(self, states: Iterable[PodState]) -> None:
        for state in states:
            if self._tokens is not None:
                self._tokens.scraped(state)
            metrics = state.metrics
            if self._sheds and metrics is not None and metrics.waiting:
                deferred = metrics.deferred
                if deferred is None and state.beliefs.shown:
                    deferred = metrics.waiting  # They may wait for a slot.
                is_queued = state in self._queued
                if metrics.waiting > (deferred or 0.0) and (
                    is_queued or state.work.loads_end <= metrics.scraped_at
                ):
                    at = metrics.scraped_at
                    since, last = self._waits_since.get(state, (at, at))
                    if at - last > _OLD_SECONDS:
                        since = at  # Nobody knows what was in between.
                    self._waits_since[state] = since, at
                    if at - since >= _STEP_SECONDS or is_queued:
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

    def pods_changed(self, states: Collection[PodState], gone: Collection[PodState]) -> None:
        """Look at pods that changed, and forget those that have left.

        What is known of the others stays, whether they are ready or not: their labels, their health
        or their adapters changed, and not how many requests they can have.

        Args:
            states: The pods.
            gone: Those of them that have left.
        """
        if self._tokens is not None:
            self._tokens.forget(gone)
        for state in gone:
            self._queued.pop(state, None)
            self._waits_since.pop(state, None)
            self._old_at.pop(state, None)
        self._look(states)

    def is_at_limit(self, pod: PodView, stretch: float = 1.0) -> bool:
        """Return whether a pod has as many requests in flight as it may.

        Args:
            pod: The pod.
            stretch: A factor on the limit that is learned from the time for a token.
        """
        most: float | None = self._limit
        if self._tokens is not None:
            learned = self._tokens.most(pod)
            if learned is not None and (most is None or stretch * learned < most):
                most = stretch * learned
        return most is not None and _load(pod) >= most

    def is_full(self, pod: PodView, now: float, stretch: float = 1.0, *, queued_too: bool) -> bool:
        """Return whether a pod has no room for another request.

        Args:
            pod: The pod.
            now: The time.
            stretch: A factor on how many requests it may have, apart from those that the settings
                allow.
            queued_too: Whether requests that wait on the pod count.
        """
        return self.is_at_limit(pod, stretch) or self.is_queued(
            pod, now, stretch, queued_too=queued_too
        )

    def is_queued(
        self, pod: PodView, now: float, stretch: float = 1.0, *, queued_too: bool
    ) -> bool:
        """Return whether requests wait on a pod, and it has as many in flight as ran.

        Args:
            pod: The pod.
            now: The time.
            stretch: A factor on how many it may have.
            queued_too: Whether requests that wait on the pod count.
        """
        if not queued_too or pod not in self._queued:
            return False
        metrics = pod.metrics
        if metrics is None or now >= metrics.scraped_at + _OLD_SECONDS:
            return False
        return _load(pod) >= stretch * self._queued[pod]

    def with_room(
        self, candidates: Candidates, now: float, *, queued_too: bool
    ) -> Candidates | None:
        """Return those candidates that have room, each of them looked at; ``None``: none has."""
        pods = [pod for pod in candidates if not self.is_full(pod, now, queued_too=queued_too)]
        return candidates.some(pods) if pods else None

    def roomy(self, index: FleetIndex, *, queued_too: bool) -> RoomyPods:
        """Return the pods of a large fleet that have room, without a look at each.

        Args:
            index: The fleet's index.
            queued_too: Whether requests that wait on pods count.
        """
        roomy = self._roomy.get(queued_too)
        if roomy is None:
            is_full: Callable[[PodState], bool] = (
                self._is_full_now if queued_too else self.is_at_limit
            )
            roomy = self._roomy[queued_too] = RoomyPods(index, is_full)
        return roomy

    def _is_full_now(self, pod: PodView) -> bool:
        return self.is_full(pod, self._clock.now(), queued_too=True)

    def _look(self, states: Iterable[PodState]) -> None:
        for roomy in self._roomy.values():
            roomy.look(states)


def _load(pod: PodView) -> int:
    return pod.in_flight + pod.beliefs.foreign_requests


def _nothing(_pods: Collection[PodState]) -> None:
    """Do nothing."""
