"""The director: from what a request asks to a pod, with the request counted on it.

Rules:

- Choosing and counting are one synchronous call. Nothing here awaits, so no two requests see the
  same count.
- A request goes only to a candidate, whatever an algorithm answers (``answer_check``).
- A held request waits in the waiting room. It ends in exactly one of: routed, refused, cancelled. A
  callback that raises costs its own request only.
"""

import logging
import random
from collections.abc import Callable, Collection, Mapping
from itertools import count
from time import perf_counter
from typing import Protocol

from msgspec import Struct

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.ledger import Reservation
from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.algorithm import Algorithm, Hold, InferenceRequest, Pick
from lora_router.routing.answer_check import AlgorithmCaller
from lora_router.routing.candidate_finder import CandidateFinder
from lora_router.routing.candidates import Candidates
from lora_router.routing.least_request import least_loaded
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.waiting_queue import Clock, Held, Question, Timer
from lora_router.routing.waiting_room import Limits, WaitingRoom

__all__ = ["Clock", "DecisionObserver", "Director", "Held", "RouteQuery", "Routed", "Timer"]

log = logging.getLogger("lora_router.routing")

PASS_THROUGH = "pass-through"  # noqa: S105 -- not a password
"""Stands for the name of an algorithm, for requests that name no model."""

NO_CANDIDATES = Candidates.of(())
_NO_MODEL = InferenceRequest("")


class RouteQuery(Struct, frozen=True):
    """What a request asks of the director."""

    model: str
    stream: bool = False
    size: int = 0
    path: str = ""
    request_id: str = ""
    strategy: str | None = None
    """The algorithm that a header asks for, if any."""
    pod_filter: str | None = None
    """The label selector that a header asks for, if any."""
    subset: frozenset[str] | None = None
    """Endpoints that the gateway allows; ``None``: all. (Endpoint-picker protocol, subset hint.)"""


class Routed(Struct, frozen=True):
    """A pod was chosen. The request counts there until the reservation is released."""

    reservation: Reservation
    algorithm: str
    reason: str
    model: str

    @property
    def address(self) -> str:
        """The pod's endpoint, ``ip:port``."""
        return self.reservation.state.pod.address


Outcome = Routed | Refused


class DecisionObserver(Protocol):
    """Counts decisions."""

    def decided(self, algorithm: str, outcome: str, reason: str, seconds: float) -> None:
        """Count one decision, and the time it took, without the time that the request was held."""


class Director:
    """Asks algorithms, counts what they pick, and keeps requests that they hold."""

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
        limits: Limits | None = None,
    ) -> None:
        self._fleet = fleet
        self._algorithms = algorithms
        self._default = algorithms[default_algorithm]
        self._clock = clock
        self._observer = observer
        self._default_model = default_model
        self._max_hold = max_hold_seconds
        self._caller = AlgorithmCaller()
        self._random = random.Random()
        self._room = WaitingRoom(self, clock, limits or Limits())
        self._finder = CandidateFinder(fleet, self._room)
        self._on_outcome: dict[Held, Callable[[Outcome], None]] = {}
        self._number = count()
        self._catalogs = fleet.catalogs()
        self._stops_at: float | None = None
        """When everything that waits must have been decided, once the router drains."""
        self._logs_decisions = log.isEnabledFor(logging.DEBUG)
        fleet.changes.pods.subscribe(self._pods_changed)
        fleet.changes.scraped.subscribe(self._room.reported)
        fleet.changes.shared.subscribe(self._room.reported)
        fleet.changes.released.subscribe(self._room.released)

    @property
    def held(self) -> int:
        """Requests that wait in the router now."""
        return len(self._room)

    def held_adapters(self) -> dict[str, HeldShare]:
        """Return for which adapters requests are held, as peers are told."""
        now = self._clock.now()
        found: dict[str, HeldShare] = {}
        for queue in self._room.queues():
            first = queue.first
            if first is None or first.request.adapter is None:
                continue
            slot = None if queue.closing is None else (queue.closing[0].pod.name, queue.closing[1])
            wanted = None if queue.hold.wanted is None else queue.hold.wanted.pod.name
            share = HeldShare(now - first.since, wanted, slot)
            other = found.get(first.request.adapter)
            if other is None or other.seconds < share.seconds:
                found[first.request.adapter] = share
        return found

    def route(
        self, query: RouteQuery, on_outcome: Callable[[Outcome], None]
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

        serving = self._fleet.serving(model)
        if not serving.pods:
            return self._refused(algorithm.name, self._finder.why_nobody_serves(model))
        candidates = self._finder.among(serving.pods, query.pod_filter, query.subset)
        if isinstance(candidates, Refused):
            return self._refused(algorithm.name, candidates, model)
        model = serving.model

        held_since = closing = None
        if self._room:
            queue = self._room.queue_of(_question(algorithm, model, query))
            if queue is not None:
                held_since, closing = queue.since, queue.closing
        request = InferenceRequest(
            model,
            model if serving.is_adapter else None,
            query.stream,
            query.size,
            query.path,
            query.request_id,
            self._max_hold > 0,
            held_since,
            closing,
        )
        answer = self._caller.ask(algorithm, request, candidates, self._clock.now())
        if isinstance(answer, Hold):
            return self._hold(query, request, algorithm, answer, candidates, on_outcome)
        return self._reserve(algorithm.name, request, answer, perf_counter() - started)

    def pass_through(self, subset: frozenset[str] | None = None) -> Routed | Refused:
        """Choose the pod with the fewest requests in flight, for a request that names no model."""
        started = perf_counter()
        candidates = self._finder.among(self._fleet.ready(), None, subset)
        if not candidates or isinstance(candidates, Refused):
            return self._refused(PASS_THROUGH, Refused(Refusal.NO_READY_POD))
        pick = Pick(least_loaded(candidates, self._random), PASS_THROUGH)
        return self._reserve(PASS_THROUGH, _NO_MODEL, pick, perf_counter() - started)

    def drain(self, seconds: float) -> None:
        """Have everything that waits decided within some seconds: the router stops.

        Until then requests are routed as slots become free. What still waits then is asked for the
        last time, as if its own time were up.
        """
        self._stops_at = self._clock.now() + seconds
        if seconds > 0:
            self._clock.call_later(seconds, self._room.expire_all)
        else:
            self._room.expire_all()

    # Counting

    def _reserve(
        self, algorithm: str, request: InferenceRequest, pick: Pick, seconds: float
    ) -> Routed:
        reservation = self._fleet.ledger.reserve(_state(pick.pod), request.adapter)
        try:
            self._observer.decided(algorithm, "routed", pick.reason, seconds)
        except Exception:  # The reservation must reach the one who releases it.
            log.exception("a decision could not be counted")
        if self._logs_decisions:
            pod = pick.pod.pod
            log.debug(
                "routed request_id=%s model=%s algorithm=%s reason=%s pod=%s endpoint=%s",
                request.request_id, request.model, algorithm, pick.reason, pod.name, pod.address,
            )  # fmt: skip
        if self._room and request.adapter is not None:
            self._room.joined(request.adapter)
        return Routed(reservation, algorithm, pick.reason, request.model)

    def _refused(self, algorithm: str, refused: Refused, model: str = "") -> Refused:
        if model and not refused.model and refused.refusal is Refusal.NONE_SELECTED:
            refused = Refused(refused.refusal, model=model)
        self._observer.decided(algorithm, "refused", refused.refusal.value, 0.0)
        if self._logs_decisions:
            log.debug("refused model=%s algorithm=%s reason=%s", model or refused.model, algorithm,
                      refused.refusal.value)  # fmt: skip
        return refused

    # Holding

    def _hold(
        self,
        query: RouteQuery,
        request: InferenceRequest,
        algorithm: Algorithm,
        hold: Hold,
        candidates: Candidates,
        on_outcome: Callable[[Outcome], None],
    ) -> Held | Refused:
        now = self._clock.now()
        seconds = min(hold.seconds, self._max_hold)
        if self._stops_at is not None:
            seconds = min(seconds, self._stops_at - now)
        if seconds <= 0:
            return self._refused(algorithm.name, self._overloaded(), request.model)
        if self._room.is_full(request.model):
            return self._refused(algorithm.name, Refused(Refusal.TOO_MANY_HELD), request.model)
        question = _question(algorithm, request.model, query)
        held = Held(question, request, next(self._number), now, seconds, self._cancel)
        self._on_outcome[held] = on_outcome
        self._observer.decided(algorithm.name, "held", hold.reason, 0.0)
        self._room.add(held, hold, candidates)
        return held

    def _cancel(self, held: Held) -> None:
        if self._room.remove(held):
            del self._on_outcome[held]
            self._observer.decided(held.question.algorithm, "cancelled", "client-left", 0.0)

    def _resolve(self, held: Held, outcome: Outcome) -> None:
        self._room.remove(held)
        try:
            self._on_outcome.pop(held)(outcome)
        except Exception:
            log.exception("the outcome of a held request could not be delivered")
            if isinstance(outcome, Routed):
                outcome.reservation.release()

    def _overloaded(self) -> Refused:
        return Refused(Refusal.OVERLOADED if self._stops_at is None else Refusal.SHUTTING_DOWN)

    # What the waiting room asks (``Receptionist``)

    def candidates_for(self, question: Question) -> Candidates:
        """Return the pods that may take a request that waits, maybe none."""
        pods = self._fleet.serving(question.model).pods
        if not pods:
            return NO_CANDIDATES
        found = self._finder.among(pods, question.pod_filter, question.subset)
        return NO_CANDIDATES if isinstance(found, Refused) else found

    def ask(self, held: Held) -> bool:
        """Ask for a request that waits, and route it if its algorithm picks; return if it waits."""
        started = perf_counter()
        queue = held.queue
        candidates = self.candidates_for(held.question)
        if queue is None or not candidates:
            return queue is not None  # The pods may come back before the time is up.
        answer = self._answer(held, candidates, may_hold=True)
        if isinstance(answer, Hold):
            self._room.still_held(held, answer, candidates)
            return True
        self._route_held(held, answer, perf_counter() - started)
        return False

    def decide(self, held: Held) -> None:
        """Route or refuse a request whose time is up."""
        if held.queue is None:
            return
        try:
            self._decide(held)
        except Exception:
            log.exception("a held request could not be decided; it is refused")
            self._resolve(held, self._overloaded())

    def _decide(self, held: Held) -> None:
        name, model = held.question.algorithm, held.question.model
        pods = self._fleet.serving(model).pods
        candidates: Candidates | Refused = (
            self._finder.among(pods, held.question.pod_filter, held.question.subset)
            if pods
            else self._finder.why_nobody_serves(model)
        )
        if isinstance(candidates, Refused):
            self._resolve(held, self._refused(name, candidates, model))
            return
        answer = self._answer(held, candidates, may_hold=False)
        if isinstance(answer, Hold):
            self._resolve(held, self._refused(name, self._overloaded(), model))
        else:
            self._route_held(held, answer, 0.0)

    def _answer(self, held: Held, candidates: Candidates, *, may_hold: bool) -> Pick | Hold:
        request, queue = held.request, held.queue
        assert queue is not None  # noqa: S101 -- it waits
        asked = InferenceRequest(
            request.model,
            request.adapter,
            request.stream,
            request.size,
            request.path,
            request.request_id,
            may_hold,
            queue.since,
            queue.closing,
        )
        algorithm = self._algorithms[held.question.algorithm]
        return self._caller.ask(algorithm, asked, candidates, self._clock.now())

    def _route_held(self, held: Held, pick: Pick, seconds: float) -> None:
        # It leaves the room first: the requests that its reservation wakes must not find it there.
        self._room.remove(held)
        self._resolve(held, self._reserve(held.question.algorithm, held.request, pick, seconds))

    # What the fleet reports

    def _pods_changed(self, states: Collection[PodState]) -> None:
        self._finder.pods_changed()
        catalogs = self._fleet.catalogs()
        models_changed, self._catalogs = catalogs != self._catalogs, catalogs
        self._room.pods_changed(states, models_changed=models_changed)


def _question(algorithm: Algorithm, model: str, query: RouteQuery) -> Question:
    return Question(algorithm.name, model, query.pod_filter, query.subset)


def _state(pod: PodView) -> PodState:
    """Return the fleet's own record of a pod that an algorithm picked."""
    assert isinstance(pod, PodState)  # noqa: S101 -- candidates are nothing else
    return pod
