"""The reception: admits requests to the waiting room, and asks their algorithms when they wake.

A held request ends in exactly one way: routed, refused, or cancelled. A callback that raises
affects only its own request.
"""

import logging
import math
from collections.abc import Callable
from itertools import count
from time import perf_counter

from msgspec import structs

from lora_router.clock import Clock
from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.fleet import Fleet
from lora_router.routing.algorithm import Algorithm, Hold, InferenceRequest, Pick
from lora_router.routing.algorithm_rooms import AlgorithmRooms
from lora_router.routing.answer_check import AlgorithmCaller
from lora_router.routing.candidate_finder import CandidateFinder
from lora_router.routing.candidates import Candidates
from lora_router.routing.declared_names import FIRST_USE
from lora_router.routing.fallback import Fallbacks
from lora_router.routing.held_adapters import HeldAdapters
from lora_router.routing.misplaced import Misplaced
from lora_router.routing.model_names import ModelNames, Special
from lora_router.routing.outcome import Outcome, Recorder, Routed
from lora_router.routing.overload import Overload
from lora_router.routing.overrun import UNKNOWN, ExpectedWait
from lora_router.routing.pod_room import PodRoom
from lora_router.routing.question import Question
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.roll import Limits
from lora_router.routing.room_asking import RoomAsking
from lora_router.routing.waiting_queue import Held
from lora_router.routing.waiting_room import WaitingRoom

log = logging.getLogger("lora_router.routing")

NO_CANDIDATES = Candidates.of(())

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
        self.pod_room = PodRoom(overload, clock)
        """Which pods have room, apart from slots."""
        self.rooms = AlgorithmRooms(self.pod_room, fleet, clock)
        """The same for the requests of each algorithm."""
        self.room = WaitingRoom(
            self,
            clock,
            limits,
            overload,
            fleet.peers.allotments,
            max_hold_seconds,
            self.rooms,
        )
        self.held_adapters = HeldAdapters(self.room)
        """The adapters for which requests are held, as reported to peers."""
        self._overload = overload
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
        self.first_use: Hold | None = None
        """How requests wait for an adapter that is declared and not loaded, if they do."""
        self._waiting: dict[Held, _Waiting] = {}
        self._number = count()
        self._stops_at = math.inf
        """The deadline for all waiting requests while the router drains; infinite: it does not."""

    def wait_for_loads(self, seconds: float) -> None:
        """Let requests wait for adapters that are declared and not loaded.

        Args:
            seconds: The longest time, which may be longer than that of other requests.
        """
        if seconds > 0:
            self.first_use = Hold(FIRST_USE, seconds)

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
            full = self._recorder.seen(self.overloaded(request.model), candidates, request)
            return self._refuse(question, request, full)
        wait = self.room.waits.of(question, hold, candidates) if candidates else UNKNOWN
        if self._overload.sheds and not hold.optional:
            wait.note(self._overload, hold.reason, now)
        if self.is_too_long(wait, hold):
            self.room.waits.refuse(question, hold, wait)
            shed = self._recorder.seen(self.shed(request.model, wait, hold), candidates, request)
            return self._refuse(question, request, shed)
        displaced = self.room.displaced_by(question, candidates)
        if displaced is None:
            full = Refused(Refusal.TOO_MANY_HELD, model=request.model, wait=wait.seconds)
            full = self._recorder.seen(full, candidates, request)
            return self._recorder.refused(algorithm.name, full)
        for each in displaced:
            full = Refused(Refusal.TOO_MANY_HELD, model=each.question.model, wait=wait.seconds)
            self._resolve(each, self._refuse(each.question, each.request, full))
        number = next(self._number)
        held = Held(question, request, number, now, seconds, self._cancel, hold.reason, hold.home)
        if (onlooker := self._recorder.onlooker) is not None:
            held.looks = onlooker.at(candidates, request.adapter)
        self._waiting[held] = algorithm, on_outcome, special
        self._recorder.count(algorithm.name, "held", hold.reason, 0.0)
        self.room.add(held, hold, candidates, self._bases(request.model, candidates))
        self.on_held()
        return held

    def _bases(self, model: str, candidates: Candidates) -> BaseModels:
        """Return the base models of the pods that may take a request now, or once they can."""
        if candidates:
            return candidates.base_models
        loadable = self._names.loadable(model)
        return frozenset() if loadable is None else loadable.pods[0].base_models

    def hold_seconds(self, hold: Hold) -> float:
        """Return how long a request may wait: not at all, if that is not above 0."""
        seconds = hold.seconds
        if hold is not self.first_use:
            seconds = min(seconds, self.max_hold_seconds)
        return min(seconds, self._stops_at - self._clock.now())

    def is_too_long(self, wait: ExpectedWait, hold: Hold) -> bool:
        """Return whether a request is refused because of its expected wait."""
        overload = self._overload
        sheds = overload.sheds and not hold.optional
        return sheds and wait.is_too_long(overload, hold.reason, self._clock.now())

    def shed(self, model: str, wait: ExpectedWait, hold: Hold) -> Refused:
        """Return the refusal of a request that would wait for too long."""
        longest = wait.longest(self._overload, hold.reason, self._clock.now())
        seconds = wait.seconds or 0.0
        detail = f"the expected wait is {seconds:.1f} s, the longest allowed one {longest:g} s"
        # Those that were refused before come back as well, and most of them first.
        return Refused(Refusal.OVERLOADED, model=model, detail=detail, wait=wait.retry_seconds)

    def overloaded(self, model: str) -> Refused:
        """Return the refusal of a request that may not wait any longer."""
        refusal = Refusal.OVERLOADED if self._stops_at == math.inf else Refusal.SHUTTING_DOWN
        return Refused(refusal, model=model, wait=self.room.seconds_left(model))

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
        return self.answer_by(self._caller, algorithm, request, candidates, now)

    def answer_by(
        self,
        caller: AlgorithmCaller,
        algorithm: Algorithm,
        request: InferenceRequest,
        candidates: Candidates,
        now: float,
    ) -> Pick | Hold:
        """Return such an answer, by a caller."""
        room = self.pod_room
        if room.may_be_short:
            queued_too = self.rooms.lets_wait(algorithm.name)
            answer = RoomAsking(
                room, caller, algorithm, request, candidates, now, queued_too=queued_too
            ).answer()
        else:
            answer = caller.ask(algorithm, request, candidates, now)
        if isinstance(answer, Hold) and answer.optional and request.may_hold:
            full = self.room.roll.is_full(request.model) or self.hold_seconds(answer) <= 0
            if full or not self.room.lines.may_take(algorithm.name, candidates):
                request = structs.replace(request, may_hold=False)
                return self.answer_by(caller, algorithm, request, candidates, now)
        return answer

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
            self._follow(held)
            return held.queue is not None
        answer = self._answer(held, candidates, may_hold=self.max_hold_seconds > 0)
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
                if self._follow(held):
                    return
                if candidates.refusal is Refusal.ADAPTER_NOT_LOADED and self._stops_at < math.inf:
                    candidates = self.overloaded(held.question.model)
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

    def _follow(self, held: Held) -> bool:
        """Move a request to the declared version of its adapter; return whether it was moved.

        It waited for another version, which was declared before, and which no pod has any more. It
        is then asked for, or waits until a pod has the new one.
        """
        before = held.question.model
        model = None if held.queue is None else self._names.declared_instead(before)
        if model is None or self._fleet.serving(before).pods:
            return False
        self.room.remove(held)
        held.ask_for(model)
        candidates = self.candidates_for(held.question)
        hold = self.first_use or Hold(FIRST_USE, held.seconds)
        self.room.add(held, hold, candidates, self._bases(model, candidates))
        if min(held.since + held.seconds, self._stops_at) <= self._clock.now():
            self.decide(held)
        elif candidates:
            self.ask(held)
        else:
            self._names.want(model)
        return True

    def _refuse(
        self, question: Question, request: InferenceRequest, refused: Refused
    ) -> Routed | Refused:
        """Return what becomes of a request that gets none of its pods."""
        instead = self.instead(question, request, refused)
        return instead or self._recorder.refused(question.algorithm, refused)

    def _find(self, question: Question) -> Candidates | Refused:
        pods = self._fleet.serving(question.model).pods
        if not pods:
            declared = self._names.declared_as(question.model)
            if declared is not None:
                return declared.problem_of(question.selection) or Refused(
                    Refusal.ADAPTER_NOT_LOADED,
                    model=declared.name,
                    detail="no pod had loaded it in time",
                )
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
        adapter = request.adapter
        loading = 0.0 if adapter is None else pick.pod.beliefs.seconds_to_load(adapter)
        self.room.waits.granted(held, loading)
        heir = self.room.slots.heir(held, pick.pod) if pick.without_slot else None
        # Remove it first: the requests that its reservation wakes must not find it in the room.
        self.room.remove(held)
        recorder = self._recorder
        routed = recorder.routed(
            algorithm.name, request, pick, seconds, fallbacks, special, candidates
        )
        if request.adapter is not None:
            self.placed(routed, request.adapter, pick, candidates, heir)
        self._resolve(held, routed)

    def placed(
        self,
        routed: Routed,
        adapter: str,
        pick: Pick,
        candidates: Candidates,
        heir: Misplaced | None = None,
    ) -> None:
        """Let requests that wait follow one that was sent to a pod, and help it to a slot there."""
        reservation = routed.reservation
        try:
            self.room.joined(adapter, reservation.state)
            if pick.without_slot:
                self.room.misplaced(reservation.state, adapter, candidates.load().slots, heir)
        except BaseException:
            reservation.release()
            raise

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
            if not held.is_answered:
                self._recorder.count(held.question.algorithm, "cancelled", "client-left", 0.0)


def _refused(_question: Question, _request: InferenceRequest, _refused: Refused) -> None:
    """Leave the request refused."""


def _nothing() -> None:
    """Do nothing."""
