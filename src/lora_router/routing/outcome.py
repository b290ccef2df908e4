"""What a request asks of the director, and the outcome."""

import logging
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from lora_router.fleet.ledger import Ledger, Reservation
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.fleet.prefixes import PrefixIndex
from lora_router.fleet.prompt import Prompt, PromptUse
from lora_router.routing.algorithm import InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.looks import (
    MAX_LOOKS,
    NO_ADAPTER,
    NO_LOOKS,
    RUNNING,
    Looks,
    looks_at,
    place_of,
)
from lora_router.routing.model_names import ModelNames, Special
from lora_router.routing.refusal import Refused

log = logging.getLogger("lora_router.routing")


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
    read_prompt: Callable[[], Prompt | None] | None = None
    """Reads the prompt. It is called at most once, if the algorithm asks for prompts."""


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
    """What was seen of the candidates, if decisions are recorded."""
    place: int = NO_ADAPTER
    """Where the adapter was on the pod, as in ``looks.PLACES``, if decisions are recorded."""
    spilled: bool = False
    """Whether the adapter had no slot on the pod, and no slot was free."""
    replicated: bool = False
    """Whether the adapter was in flight on other pods, and not on this one."""
    prompt: PromptUse | None = None
    """What was known of the prompt; ``None``: the algorithm did not ask for it."""

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
        self.observes = False
        """Whether to note what the decision saw, because decisions are recorded."""

    def looks_at(
        self,
        candidates: Candidates,
        adapter: str | None,
        picked: PodView | None = None,
        most: int = MAX_LOOKS,
    ) -> Looks:
        """Return what is to be seen of the candidates, if decisions are recorded."""
        return looks_at(candidates, adapter, picked, most) if self.observes else NO_LOOKS

    def routed(
        self,
        algorithm: str,
        request: InferenceRequest,
        pick: Pick,
        seconds: float,
        fallbacks: tuple[str, ...] = (),
        special: Special | None = None,
        looks: Looks = NO_LOOKS,
    ) -> Routed:
        """Reserve the request's place on the pod that was picked."""
        state = pick.pod
        assert isinstance(state, PodState)  # noqa: S101 -- candidates are nothing else
        path = request.path if request.model else None
        adapter = request.adapter
        place, spilled, replicated = looks.place, False, looks.is_elsewhere
        if self.observes and adapter is not None:
            if looks is NO_LOOKS:  # Only one pod was asked about.
                place = place_of(state, adapter)
            if place != RUNNING:
                free = state.beliefs.free_slots
                spilled = free is not None and free <= 0
        reservation = self._ledger.reserve(
            state, adapter, path, streamed=request.stream, tokens=pick.tokens
        )
        prompt = None
        if (read := request.prompt) is not None:
            cached = self._prefixes.sent(state, request.model, read)
            prompt = PromptUse(read.tokens, cached, read.size)
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
        )

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

    def count(self, algorithm: str, outcome: str, reason: str, seconds: float) -> None:
        """Count a decision. A failure to count has no other effect."""
        try:
            self._observer.decided(algorithm, outcome, reason, seconds)
        except Exception:
            log.exception("failed to count a decision")
