"""The director: from what a request asks to a pod with the request counted on it.

Rules:

- Choosing and counting are one plain call. Nothing here awaits, so no two requests can see the
  same count.
- A pod that an algorithm picks must be one that the cache knows; anything else an algorithm does
  wrong (it raises, it returns nonsense) costs that request its algorithm, not its answer:
  least-request steps in and the log says why.
- A held request is asked again whenever something changed that could free a slot, in order of
  arrival. It ends in exactly one of: routed, refused, cancelled.
"""

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from time import perf_counter
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from lora_router.fleet.fleet import Fleet, ModelPods
from lora_router.fleet.ledger import Reservation
from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.algorithm import Algorithm, Hold, InferenceRequest, Pick
from lora_router.routing.least_request import least_loaded
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.selector import SelectorError, parse_selector

log = logging.getLogger("lora_router.routing")

_selector = lru_cache(maxsize=256)(parse_selector)

PASS_THROUGH = "pass-through"  # noqa: S105 -- a password it is not
"""Stands where an algorithm's name would, for requests that name no model."""


class RouteQuery(Struct, frozen=True):
    """What a request asks of the director."""

    model: str
    stream: bool = False
    size: int = 0
    path: str = ""
    request_id: str = ""
    strategy: str | None = None
    """The algorithm asked for by header, if any."""
    pod_filter: str | None = None
    """A label selector asked for by header, if any."""
    subset: frozenset[str] | None = None
    """Endpoints that the gateway allows; ``None``: all. (Endpoint-picker protocol, subset hint.)"""


class Routed(Struct, frozen=True):
    """A pod was chosen and the request is counted there until the reservation is released."""

    reservation: Reservation
    algorithm: str
    reason: str
    model: str

    @property
    def address(self) -> str:
        """The pod's endpoint, ``ip:port``."""
        return self.reservation.state.pod.address


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Make it not happen."""


class Clock(Protocol):
    """Time, as the event loop or a simulation tells it."""

    def now(self) -> float:
        """Return seconds, monotonic."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once, ``seconds`` from now."""


class DecisionObserver(Protocol):
    """Whoever counts decisions."""

    def decided(self, algorithm: str, outcome: str, reason: str, seconds: float) -> None:
        """Take note of one decision and of the time it took, without the time it was held."""


@dataclass(slots=True, eq=False)
class Held:
    """A request that waits in the router for a pod."""

    director: "Director"
    request: InferenceRequest
    query: RouteQuery
    algorithm: Algorithm
    seconds: float
    """The longest it may wait, counted from the start."""
    on_outcome: Callable[[Routed | Refused], None]
    hold: Hold
    """What the algorithm said last."""
    since: float
    """When it was held first, on the director's clock."""
    timer: Timer | None = field(default=None)

    def cancel(self) -> None:
        """Forget the request: its client has left."""
        self.director.forget(self)


class Director:
    """Asks the algorithms, counts what they pick, keeps the requests they hold."""

    def __init__(
        self,
        fleet: Fleet,
        algorithms: Mapping[str, Algorithm],
        default_algorithm: str,
        clock: Clock,
        observer: DecisionObserver,
        *,
        default_model: str | None = None,
        max_hold_seconds: float = 30.0,
    ) -> None:
        self._fleet = fleet
        self._algorithms = algorithms
        self._default = algorithms[default_algorithm]
        self._clock = clock
        self._observer = observer
        self._default_model = default_model
        self._max_hold = max_hold_seconds
        self._random = random.Random()
        self._held: dict[Held, None] = {}
        self._retrying = False
        self._changed = False
        fleet.ledger.on_release = self._on_change
        fleet.subscribe(self._on_change)
        fleet.subscribe_metrics(self._on_change)
        fleet.subscribe_peers(self._on_change)

    @property
    def held(self) -> int:
        """Requests that wait in the router now."""
        return len(self._held)

    def held_adapters(self) -> dict[str, HeldShare]:
        """Return which adapters requests are held for, as other routers are told."""
        now = self._clock.now()
        found: dict[str, HeldShare] = {}
        for held in self._held:
            adapter = held.request.adapter
            if adapter is not None and adapter not in found:
                closed = held.hold.closed
                slot = None if closed is None else (closed[0].pod.name, closed[1])
                wanted = held.hold.wanted
                name = None if wanted is None else wanted.pod.name
                found[adapter] = HeldShare(now - held.since, name, slot)
        return found

    def route(
        self, query: RouteQuery, on_outcome: Callable[[Routed | Refused], None]
    ) -> Routed | Refused | Held:
        """Choose a pod for an inference request and count the request on it.

        Args:
            query: What the request asks.
            on_outcome: Called once, later, if the answer is ``Held`` and it is not cancelled.
        """
        started = perf_counter()
        algorithm = self._default
        if query.strategy is not None:
            found = self._algorithms.get(query.strategy)
            if found is None:
                return self._refused(
                    "none", Refused(Refusal.UNKNOWN_ALGORITHM, known=tuple(self._algorithms))
                )
            algorithm = found

        model = query.model or self._default_model
        if not model:
            return self._refused(algorithm.name, Refused(Refusal.NO_MODEL))

        candidates = self._candidates(model, query)
        if isinstance(candidates, Refused):
            return self._refused(algorithm.name, candidates)
        pods, serving = candidates
        model = serving.model

        request = InferenceRequest(
            model,
            model if serving.is_adapter else None,
            query.stream,
            query.size,
            query.path,
            query.request_id,
            self._max_hold > 0,
        )
        answer = self._ask(algorithm, request, pods)
        if isinstance(answer, Hold):
            return self._hold(query, request, algorithm, answer, on_outcome)
        return self._reserve(algorithm, request, answer, perf_counter() - started)

    def pass_through(self, subset: frozenset[str] | None = None) -> Routed | Refused:
        """Choose a pod for a request that names no model: the one with the fewest in flight."""
        started = perf_counter()
        pods = _narrowed(self._fleet.ready(), subset)
        if not pods:
            return self._refused(PASS_THROUGH, Refused(Refusal.NO_READY_POD))
        pick = Pick(least_loaded(pods, self._random), PASS_THROUGH)
        reservation = self._fleet.ledger.reserve(_state(pick.pod), None)
        self._observer.decided(PASS_THROUGH, "routed", pick.reason, perf_counter() - started)
        return Routed(reservation, PASS_THROUGH, pick.reason, "")

    def forget(self, held: Held) -> None:
        """Drop a held request whose stream has ended."""
        if held in self._held:
            self._drop(held)
            self._observer.decided(held.algorithm.name, "cancelled", "client-left", 0.0)

    # Candidates

    def _candidates(
        self, model: str, query: RouteQuery
    ) -> tuple[Sequence[PodState], ModelPods] | Refused:
        serving = self._fleet.serving(model)
        if not serving.pods:
            return self._why_nobody_serves(model)
        pods: Sequence[PodState] = _narrowed(serving.pods, query.subset)
        if query.pod_filter is not None:
            try:
                selector = _selector(query.pod_filter)
            except SelectorError as error:
                return Refused(Refusal.BAD_SELECTOR, detail=str(error))
            pods = [state for state in pods if selector.matches(state.pod.labels)]
        if not pods:
            return Refused(Refusal.NONE_SELECTED, model=model)
        return pods, serving

    def _why_nobody_serves(self, model: str) -> Refused:
        ready = self._fleet.ready()
        # A model that only unready pods serve is a model all the same: come back later.
        if not ready or any(
            model in state.base_models or model in state.adapters for state in self._fleet
        ):
            return Refused(Refusal.NO_READY_POD, model=model)
        if not all(state.models_known for state in ready):
            return Refused(Refusal.MODELS_UNKNOWN, model=model)
        return Refused(Refusal.UNKNOWN_MODEL, model=model)

    # Asking and counting

    def _ask(
        self, algorithm: Algorithm, request: InferenceRequest, pods: Sequence[PodState]
    ) -> Pick | Hold:
        try:
            answer = algorithm.pick(request, pods, self._clock.now())
            if isinstance(answer, Hold):
                return answer
            # The address that goes to Envoy must be a known pod's, whoever wrote the algorithm.
            if self._fleet.get(answer.pod.pod.name) is answer.pod:
                return answer
            log.error("algorithm %s picked a pod that is not in the cache", algorithm.name)
        except Exception:
            log.exception("algorithm %s failed; least-request steps in", algorithm.name)
        return Pick(least_loaded(pods, self._random), "algorithm-failed")

    def _reserve(
        self, algorithm: Algorithm, request: InferenceRequest, pick: Pick, seconds: float
    ) -> Routed:
        reservation = self._fleet.ledger.reserve(_state(pick.pod), request.adapter)
        self._observer.decided(algorithm.name, "routed", pick.reason, seconds)
        return Routed(reservation, algorithm.name, pick.reason, request.model)

    def _refused(self, algorithm: str, refused: Refused) -> Refused:
        self._observer.decided(algorithm, "refused", refused.refusal.value, 0.0)
        return refused

    # Holding

    def _hold(
        self,
        query: RouteQuery,
        request: InferenceRequest,
        algorithm: Algorithm,
        hold: Hold,
        on_outcome: Callable[[Routed | Refused], None],
    ) -> Held | Refused:
        seconds = min(hold.seconds, self._max_hold)
        if seconds <= 0:
            return self._refused(algorithm.name, Refused(Refusal.OVERLOADED))
        now = self._clock.now()
        held = Held(self, request, query, algorithm, seconds, on_outcome, hold, now)
        held.timer = self._clock.call_later(seconds, lambda: self._time_is_up(held))
        self._held[held] = None
        self._observer.decided(algorithm.name, "held", hold.reason, 0.0)
        return held

    def _on_change(self, _what: object = None) -> None:
        if not self._held:
            return
        self._changed = True
        if self._retrying:
            return  # An outcome changed something: the walk that caused it goes round again.
        self._retrying = True
        try:
            while self._changed:
                self._changed = False
                self._ask_held_again()
        finally:
            self._retrying = False

    def _ask_held_again(self) -> None:
        """Ask in order of arrival; once a question got "not yet", its like are not asked."""
        not_yet: set[tuple[object, ...]] = set()
        for held in tuple(self._held):
            query = held.query
            question = (held.algorithm.name, query.model, query.pod_filter, query.subset)
            if question not in not_yet and held in self._held and not self._retry(held):
                not_yet.add(question)

    def _retry(self, held: Held) -> bool:
        """Ask for a held request; say whether it is held no more."""
        started = perf_counter()
        candidates = self._candidates(held.request.model, held.query)
        if isinstance(candidates, Refused):
            return False  # The pods may come back before the time is up.
        answer = self._ask(held.algorithm, held.request, candidates[0])
        if isinstance(answer, Hold):
            held.hold = answer
            return False
        seconds = perf_counter() - started
        self._resolve(held, self._reserve(held.algorithm, held.request, answer, seconds))
        return True

    def _time_is_up(self, held: Held) -> None:
        if held not in self._held:
            return
        candidates = self._candidates(held.request.model, held.query)
        if isinstance(candidates, Refused):
            self._resolve(held, self._refused(held.algorithm.name, candidates))
            return
        last = replace(held.request, may_hold=False)
        answer = self._ask(held.algorithm, last, candidates[0])
        if isinstance(answer, Pick):
            self._resolve(held, self._reserve(held.algorithm, last, answer, 0.0))
        else:
            self._resolve(held, self._refused(held.algorithm.name, Refused(Refusal.OVERLOADED)))

    def _resolve(self, held: Held, outcome: Routed | Refused) -> None:
        self._drop(held)
        held.on_outcome(outcome)

    def _drop(self, held: Held) -> None:
        del self._held[held]
        if held.timer is not None:
            held.timer.cancel()


def _narrowed(pods: Sequence[PodState], subset: frozenset[str] | None) -> Sequence[PodState]:
    if subset is None:
        return pods
    return [state for state in pods if state.pod.address in subset]


def _state(pod: PodView) -> PodState:
    """Return the cache's own record of a pod that an algorithm was shown."""
    assert isinstance(pod, PodState)  # noqa: S101 -- algorithms are shown nothing else
    return pod
