"""What a request asks of the director, and the outcome."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from msgspec import Struct

from lora_router.fleet.ledger import Ledger, Reservation
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prefixes import PrefixIndex
from lora_router.fleet.prompt import Prompt, PromptUse
from lora_router.routing.algorithm import InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.looks import (
    MAX_LOOKS,
    NO_LOOKS,
    PLACES,
    RUNNING,
    Looks,
    Onlooker,
)
from lora_router.routing.model_names import ModelNames, Special
from lora_router.routing.refusal import Refused

log = logging.getLogger("lora_router.routing")

_RUNNING = PLACES[RUNNING]


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
    rewrite_key: str = ""
    """Requests with the same key are rewritten to the same model. Empty: each by chance."""
    objective: str = ""
    """The objective that a header names, which may have a priority (``priorities``)."""
    tenant: int = 0
    """Who asks, as a hash of the header that says so (``tenant_header``); 0: nobody knows."""
    priority: str = ""
    """What a header says of its priority (``priority_header``). Empty: nothing."""
    read_prompt: Callable[[], Prompt | None] | None = None
    """Reads the prompt. It is called at most once, if the algorithm asks for prompts. It may have
    the body of the request, so a query is kept as ``PromptReaders.without_body`` returns it.
    """


class Routed(Struct, frozen=True):
    """A pod was picked. The request counts there until the reservation is released."""

    reservation: Reservation
    algorithm: str
    reason: str
    model: str
    """The name by which the pod is asked for the model."""
    fallbacks: tuple[str, ...] = ()
    """Endpoints to try, in order, if the request cannot reach the pod."""
    special: Special | None = None
    seconds: float = 0.0
    """Time to pick the pod."""
    looks: Looks = NO_LOOKS
    """What was seen of the candidates, if decisions are recorded and the algorithm noted nothing.
    """
    place: str = ""
    """Where the adapter was on the pod: one of ``looks.PLACES``, if decisions are recorded."""
    spilled: bool = False
    """Whether the adapter had no slot on the pod, and no slot was free."""
    replicated: bool = False
    """Whether the adapter was in flight on other pods, and not on this one."""
    prompt: PromptUse | None = None
    """What was known of the prompt; ``None``: the algorithm did not ask for it."""
    notes: object = None
    """What the algorithm noted of the candidates (``Pick.notes``), if decisions are recorded."""

    @property
    def address(self) -> str:
        """The pod's endpoint, ``ip:port``."""
        return self.reservation.state.pod.address


Outcome = Routed | Refused


class DecisionObserver(Protocol):
    """Counts decisions."""

    def decided(self, algorithm: str, outcome: str, reason: str, seconds: float) -> None:
        """Count one decision, and the time it took, without the time that the request was held."""


class Recorder:
    """Puts decisions into effect: on the pod's count, in metrics, and in the debug log."""

    def __init__(
        self,
        ledger: Ledger,
        observer: DecisionObserver,
        names: ModelNames,
        prefixes: PrefixIndex,
    ) -> None:
        self._names = names
        self._prefixes = prefixes
        self._ledger = ledger
        self._observer = observer
        self._logs = log.isEnabledFor(logging.DEBUG)
        self.on_refused: list[Callable[[Refused], None]] = []
        """Called with each refusal. They must not raise."""
        self.onlooker: Onlooker | None = None
        """Notes what decisions see, if they are recorded."""

    def routed(
        self,
        algorithm: str,
        request: InferenceRequest,
        pick: Pick,
        seconds: float,
        fallbacks: tuple[str, ...] = (),
        special: Special | None = None,
        candidates: Candidates | None = None,
    ) -> Routed:
        """Reserve the request's place on the pod that was picked.

        Args:
            algorithm: What picked.
            request: The request.
            pick: The pick.
            seconds: How long that took.
            fallbacks: Endpoints to try if the request cannot reach the pod.
            special: What is special about it.
            candidates: The pods among which it was picked; ``None``: there was no choice.
        """
        state = pick.pod
        assert isinstance(state, PodState)  # noqa: S101 -- candidates are nothing else
        path = request.path if request.model else None
        adapter = request.adapter
        place, spilled, replicated, where = "", False, False, None
        looks, notes, onlooker = NO_LOOKS, None, self.onlooker
        if onlooker is not None:
            notes = pick.notes
            if notes is None and candidates is not None:
                looks = onlooker.at(candidates, adapter, state, MAX_LOOKS)
            if adapter is not None:
                beliefs = state.beliefs
                if adapter in state.in_flight_adapters or adapter in beliefs.foreign_adapters:
                    place = _RUNNING
                else:
                    where, free = beliefs.where(adapter), beliefs.free_slots
                    place = PLACES[where]
                    spilled = free is not None and free <= 0
                    # ``AdaptersInFlight.__contains__``, without the call.
                    others = onlooker.in_flight
                    replicated = adapter in others.own or adapter in others.foreign
        reservation = self._ledger.reserve(
            state, adapter, path, streamed=request.stream, tokens=pick.tokens, where=where
        )
        try:
            prompt = None
            if (read := request.prompt) is not None:
                use = reservation.prefixes = self._prefixes.sent(state, request.model, read)
                prompt = PromptUse(read.tokens, 0.0 if use is None else use.had, read.size)
            try:
                self._observer.decided(algorithm, "routed", pick.reason, seconds)
            except Exception:  # The caller needs the reservation, to release it.
                log.exception("failed to count a decision")
            if self._logs:
                log.debug(
                    "routed request_id=%s model=%s algorithm=%s reason=%s pod=%s endpoint=%s",
                    request.request_id,
                    request.model,
                    algorithm,
                    pick.reason,
                    state.pod.name,
                    state.pod.address,
                )
            model = request.model
            if self._names.has_sglang and adapter is not None:
                model = self._names.asked_of(state, adapter)
            return Routed(
                reservation,
                algorithm,
                pick.reason,
                model,
                fallbacks,
                special,
                seconds,
                looks,
                place,
                spilled,
                replicated,
                prompt,
                notes,
            )
        except BaseException:  # Nobody else knows the reservation yet.
            reservation.release()
            raise

    def refused(self, algorithm: str, refused: Refused) -> Refused:
        """Count a refusal, and return it."""
        self.count(algorithm, "refused", refused.refusal.value, 0.0)
        for follow in self.on_refused:
            follow(refused)
        if self._logs:
            log.debug(
                "refused model=%s algorithm=%s reason=%s",
                refused.model,
                algorithm,
                refused.refusal.value,
            )
        return refused

    def seen(self, refused: Refused, candidates: Candidates, request: InferenceRequest) -> Refused:
        """Return a refusal with what is seen of the candidates, if decisions are recorded."""
        if self.onlooker is None:
            return refused
        return replace(refused, looks=self.onlooker.at(candidates, request.adapter))

    def count(self, algorithm: str, outcome: str, reason: str, seconds: float) -> None:
        """Count a decision. A failure to count has no other effect."""
        try:
            self._observer.decided(algorithm, outcome, reason, seconds)
        except Exception:
            log.exception("failed to count a decision")
