"""The reception: admits requests to the waiting room, and asks their algorithms when they wake.

A held request ends in exactly one way: routed, refused, or cancelled. A callback that raises
affects only its own request.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from time import perf_counter

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import Algorithm, Hold, InferenceRequest, Pick, WakesOn
from lora_router.routing.answer_check import AlgorithmCaller
from lora_router.routing.candidate_finder import CandidateFinder
from lora_router.routing.candidates import Candidates
from lora_router.routing.fallback import Fallbacks
from lora_router.routing.looks import MAX_LOOKS_OF_HELD
from lora_router.routing.model_names import ModelNames, Special
from lora_router.routing.outcome import Outcome, Recorder, Routed
from lora_router.routing.overload import NO_ROOM, Overload
from lora_router.routing.pod_room import PodRoom
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.waiting_queue import Clock, Held, Question
from lora_router.routing.waiting_room import Limits, WaitingRoom

log = logging.getLogger("lora_router.routing")

NO_CANDIDATES = Candidates.of(())
_NO_ROOM = Hold(NO_ROOM, 86400.0, wakes_on=WakesOn.ROOM)

Instead = Callable[[Question, InferenceRequest, Refused], Routed | None]
_Waiting = tuple[Algorithm, Callable[[Outcome], None], Special | None]


class Reception:
    """The reception of one router."""

    def __init__(  # noqa: PLR0913 -- one argument for each setting
        self,
        fleet: Fleet,
        clock: Clock,
        caller: AlgorithmCaller,
        recorder: Recorder,
        fallbacks: Fallbacks,
        names: ModelNames,
        *,
        max_hold_seconds: float,
        limits: Limits,
        overload: Overload,
    ) -> None:
        self.room = WaitingRoom(
            self,
            clock,
            limits,
            overload,
            lambda: fleet.peers.closed_slots,
            max_hold_seconds,
            self,
        )
        self.pod_room = PodRoom(overload)
        """Which pods have room, apart from slots."""
        self._overload = overload
        self._waits_for_room: frozenset[str] = frozenset()
        self.finder = CandidateFinder(fleet, self.room)
        self.max_hold_seconds = max_hold_seconds
        self._fleet = fleet
        self._clock = clock
        self._caller = caller
        self._recorder = recorder
        self._fallbacks = fallbacks
        self._names = names
        self.instead: Instead = _refused
        """Called with a request that gets no pod. Returns what becomes of it instead, if
        anything does."""
        self.on_held: Callable[[], None] = _nothing
        """Called after a request was held."""
        self._waiting: dict[Held, _Waiting] = {}
        self._number = count()
        self._stops_at: float | None = None
        """The deadline for all waiting requests while the router drains; ``None``: it does not
        drain."""

    def waits_for_room(self, algorithms: Iterable[Algorithm]) -> None:
        """Hold requests of those algorithms that ask for it while pods are full."""
        self._waits_for_room = frozenset(
            each.name for each in algorithms if getattr(each, "waits_for_room", False)
        )

    def held_adapters(self) -> dict[str, HeldShare]:
        """Return the adapters for which requests are held, as reported to peers."""
        now = self._clock.now()
        found: dict[str, HeldShare] = {}
        for queue in self.room.queues():
            first = queue.first
            if first is None or first.request.adapter is None:
                continue
            slot = None if queue.closing is None else (queue.closing[0].pod.name, queue.closing[1])
            wanted = None if queue.hold.wanted is None else queue.hold.wanted.pod.name
            share = HeldShare(now - first.since, wanted, slot)
            other = found.get(first.request.adapter)
            if other is None or other.seconds < share.seconds:
                found[first.request.adapter] = share
        for each in self.room.misplaced_adapters():
            if each.closing is not None and each.adapter not in found:
                slot = each.closing[0].pod.name, each.closing[1]
                found[each.adapter] = HeldShare(now - each.since, closed=slot)
        return found

    def admit(
        self,
        question: Question,
        request: InferenceRequest,
        algorithm: Algorithm,
        hold: Hold,
        candidates: Candidates,
        on_outcome: Callable[[Outcome], None],
        special: Special | None = None,
    ) -> Held | Routed | Refused:
        """Hold a request, or refuse it if it may not wait."""
        now = self._clock.now()
        seconds = self.hold_seconds(hold)
        if seconds <= 0:
            return self._refuse(question, request, self.overloaded(request.model))
        wait = self.room.waits.of(question, hold, candidates)
        if self.is_too_long(wait, hold):
            return self._refuse(question, request, self.shed(request.model, wait, hold))
        if self.room.is_full(request.model):
            last = self.room.last_of_lowest_priority(question)
            if last is None:
                full = Refused(Refusal.TOO_MANY_HELD, model=request.model, wait=wait)
                return self._recorder.refused(algorithm.name, full)
            displaced = Refused(Refusal.TOO_MANY_HELD, model=last.question.model, wait=wait)
            self._resolve(last, self._refuse(last.question, last.request, displaced))
        held = Held(question, request, next(self._number), now, seconds, self._cancel, hold.reason)
        held.looks = self._recorder.looks_at(candidates, request.adapter, None, MAX_LOOKS_OF_HELD)
        self._waiting[held] = algorithm, on_outcome, special
        self._recorder.count(algorithm.name, "held", hold.reason, 0.0)
        self.room.add(held, hold, candidates)
        self.on_held()
        return held

    def hold_seconds(self, hold: Hold) -> float:
        """Return how long a request may wait: not at all, if that is not above 0."""
        seconds = min(hold.seconds, self.max_hold_seconds)
        if self._stops_at is not None:
            seconds = min(seconds, self._stops_at - self._clock.now())
        return seconds

    def is_too_long(self, wait: float | None, hold: Hold) -> bool:
        """Return whether a request is refused because of its expected wait in seconds."""
        overload = self._overload
        return overload.sheds and wait is not None and wait > overload.longest_wait(hold.reason)

    def shed(self, model: str, wait: float | None, hold: Hold) -> Refused:
        """Return the refusal of a request that would wait for too long."""
        most = self._overload.longest_wait(hold.reason)
        detail = f"the expected wait is {wait or 0.0:.1f} s, the longest allowed one {most:g} s"
        return Refused(Refusal.OVERLOADED, model=model, detail=detail, wait=wait)

    def overloaded(self, model: str) -> Refused:
        """Return the refusal of a request that may not wait any longer."""
        refusal = Refusal.OVERLOADED if self._stops_at is None else Refusal.SHUTTING_DOWN
        return Refused(refusal, model=model)

    def drain(self, seconds: float) -> None:
        """Decide all waiting requests within some seconds, because the router stops.

        Until that deadline requests are routed as slots become free. At the deadline, the remaining
        requests are asked for the last time, as if their own time were up.
        """
        self._stops_at = self._clock.now() + seconds
        if seconds > 0:
            self._clock.call_later(seconds, self.room.expire_all)
        else:
            self.room.expire_all()

    # Room on pods

    def answer(
        self, algorithm: Algorithm, request: InferenceRequest, candidates: Candidates, now: float
    ) -> Pick | Hold:
        """Return an algorithm's answer, which is no pick of a pod that has no room."""
        answer = self._caller.ask(algorithm, request, candidates, now)
        if isinstance(answer, Pick) and self.pod_room.may_be_short:
            return self.with_room(self._caller, algorithm, request, candidates, answer)
        return answer

    def with_room(
        self,
        caller: AlgorithmCaller,
        algorithm: Algorithm,
        request: InferenceRequest,
        candidates: Candidates,
        pick: Pick,
    ) -> Pick | Hold:
        """Return a pick, or if its pod has no room, the answer about the pods that have."""
        now, room = self._clock.now(), self.pod_room
        queued_too = algorithm.name in self._waits_for_room
        if not room.is_full(pick.pod, now, queued_too=queued_too):
            return pick
        pods = room.with_room(candidates, now, queued_too=queued_too)
        if pods:
            some = Candidates.of(pods, candidates.waiting, candidates.prefixes)
            answer = caller.ask(algorithm, request, some, now)
            return replace(answer, reason=NO_ROOM) if isinstance(answer, Hold) else answer
        if request.may_hold or room.is_at_limit(pick.pod):
            return _NO_ROOM
        return pick

    def may_be_full(self, pod: PodView) -> bool:
        """Return whether a pod may have no room, apart from slots."""
        return self.pod_room.may_be_full(pod)

    def has_room(self, pod: PodView, algorithm: str) -> bool:
        """Return whether a pod has room for another request of an algorithm, apart from slots."""
        queued_too = algorithm in self._waits_for_room
        return not self.pod_room.is_full(pod, self._clock.now(), queued_too=queued_too)

    # What the waiting room asks (``asking.Receptionist``)

    def candidates_for(self, question: Question) -> Candidates:
        """Return the pods that may take a request that waits, maybe none."""
        found = self._find(question)
        return NO_CANDIDATES if isinstance(found, Refused) else found

    def ask(self, held: Held) -> bool:
        """Ask for a waiting request, and route it if its algorithm picks.

        Returns:
            Whether it still waits. It does if no pod serves its model: pods may return in time.
        """
        started = perf_counter()
        candidates = self.candidates_for(held.question)
        if held.queue is None or not candidates:
            return held.queue is not None
        answer = self._answer(held, candidates, may_hold=True)
        if isinstance(answer, Hold):
            self.room.still_held(held, answer, candidates)
            return True
        self._route(held, answer, candidates, perf_counter() - started)
        return False

    def decide(self, held: Held) -> None:
        """Route or refuse a request whose time is up."""
        if held.queue is None:
            return
        try:
            candidates = self._find(held.question)
            if isinstance(candidates, Refused):
                self._resolve(held, self._refuse(held.question, held.request, candidates))
                return
            answer = self._answer(held, candidates, may_hold=False)
            if isinstance(answer, Pick):
                self._route(held, answer, candidates, 0.0)
                return
        except Exception:
            log.exception("failed to decide a held request; refusing it")
        refused = self.overloaded(held.question.model)
        self._resolve(held, self._refuse(held.question, held.request, refused))

    def _refuse(
        self, question: Question, request: InferenceRequest, refused: Refused
    ) -> Routed | Refused:
        """Return what becomes of a request that gets none of its pods."""
        instead = self.instead(question, request, refused)
        return instead or self._recorder.refused(question.algorithm, refused)

    def _find(self, question: Question) -> Candidates | Refused:
        pods = self._fleet.serving(question.model).pods
        if not pods:
            unlisted = self._names.unlisted(question.model)
            if unlisted is not None:
                return self.finder.among(unlisted.pods, question.pod_filter, question.subset)
            return self.finder.why_nobody_serves(question.model)
        return self.finder.among(pods, question.pod_filter, question.subset)

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
            request.priority,
            request.prompt,
        )
        return self.answer(self._waiting[held][0], asked, candidates, self._clock.now())

    def _route(self, held: Held, pick: Pick, candidates: Candidates, seconds: float) -> None:
        algorithm, _, special = self._waiting[held]
        request = held.request
        fallbacks = self._fallbacks.of(algorithm, request, pick.pod, candidates)
        self.room.waits.granted(held)
        # Remove it first: the requests that its reservation wakes must not find it in the room.
        self.room.remove(held)
        recorder = self._recorder
        looks = recorder.looks_at(candidates, request.adapter, pick.pod, MAX_LOOKS_OF_HELD)
        routed = recorder.routed(algorithm.name, request, pick, seconds, fallbacks, special, looks)
        if request.adapter is not None:
            self.placed(routed, request.adapter, pick, candidates)
        self._resolve(held, routed)

    def placed(self, routed: Routed, adapter: str, pick: Pick, candidates: Candidates) -> None:
        """Let requests that wait follow one that was sent to a pod, and help it to a slot there."""
        self.room.joined(adapter)
        if pick.without_slot:
            self.room.misplaced(routed.reservation.state, adapter, candidates.load().slots)

    def _resolve(self, held: Held, outcome: Outcome) -> None:
        self.room.remove(held)
        waiting = self._waiting.pop(held, None)
        if waiting is None:
            return
        try:
            waiting[1](outcome)
        except Exception:
            log.exception("failed to deliver the outcome of a held request")
            if isinstance(outcome, Routed):
                outcome.reservation.release()

    def _cancel(self, held: Held) -> None:
        if self.room.remove(held):
            del self._waiting[held]
            self._recorder.count(held.question.algorithm, "cancelled", "client-left", 0.0)


def _refused(_question: Question, _request: InferenceRequest, _refused: Refused) -> None:
    """Leave the request refused."""


def _nothing() -> None:
    """Do nothing."""
