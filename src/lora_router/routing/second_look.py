"""Requests for an unknown model wait while the pods are asked again what they serve.

An adapter that was loaded a moment ago is in no list yet, and clients take 404 for final. So before
the router refuses an unknown name, the scraper reads the pods' lists once more. All requests that
wait share one such round, and the scraper bounds how often there is one. If no round is due, the
lists are fresh, and the request is refused at once.

A gateway for which ``max_hold_seconds`` is 0 cannot hold requests, so none waits here either. The
round starts all the same, so that a retry of the client succeeds. A router that stops ends the
round with its drain time.
"""

import logging
from collections import deque
from collections.abc import Callable

from lora_router.clock import Clock, Timer
from lora_router.routing.algorithm import InferenceRequest
from lora_router.routing.outcome import Outcome, Routed, RouteQuery
from lora_router.routing.prompt_readers import PromptReaders
from lora_router.routing.question import Question
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.waiting_queue import Held

log = logging.getLogger("lora_router.routing")

SECONDS = 2.5
"""The longest that a round may take for a request, in seconds."""
MAX_WAITING = 256
"""How many requests may wait for a round. Clients choose names, so the number must be bounded."""
_AT_ONCE = 16
"""How many requests are decided in one turn of the event loop after a round."""

UNKNOWN = (Refusal.UNKNOWN_MODEL, Refusal.MODELS_UNKNOWN)
"""The refusals that a fresh list can change."""

Route = Callable[[RouteQuery, Callable[[Outcome], None]], Routed | Refused | Held]


class _Waiting:
    """One request that waits, and then perhaps is held by its algorithm."""

    __slots__ = ("inner", "on_outcome", "over", "query", "refused")

    def __init__(
        self, query: RouteQuery, refused: Refused, on_outcome: Callable[[Outcome], None]
    ) -> None:
        self.query = query
        self.refused = refused
        self.on_outcome = on_outcome
        self.inner: Held | None = None
        self.over = False

    def end(self, outcome: Outcome) -> None:
        """Deliver the outcome, once."""
        if self.over:
            if isinstance(outcome, Routed):
                outcome.reservation.release()
            return
        self.over = True
        try:
            self.on_outcome(outcome)
        except Exception:
            log.exception("failed to deliver the outcome of a request for an unknown model")
            if isinstance(outcome, Routed):
                outcome.reservation.release()


class SecondLook:
    """The requests that wait for a round."""

    def __init__(
        self, clock: Clock, route: Route, prompts: PromptReaders, max_hold_seconds: float
    ) -> None:
        """Create a place without requests.

        Args:
            clock: The director's clock.
            route: Routes a request after a round, and refuses it if its model is still unknown.
            prompts: Reads the prompts of requests before they wait.
            max_hold_seconds: How long its algorithm may hold it then. Envoy grants more time only
                once, so the time for both is asked for at once.
        """
        self.look: Callable[[], bool] | None = None
        """Starts a round, unless one is running; returns whether one is running then."""
        self._clock = clock
        self._route = route
        self._prompts = prompts
        self._max_hold_seconds = max_hold_seconds
        self._waiting: dict[_Waiting, None] = {}
        self._due: deque[_Waiting] = deque()
        self._timer: Timer | None = None
        self._deadline: Timer | None = None
        self._is_cut_short = False
        """Whether the router stops, so that the lists are not read to the end any more."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._due)

    def admit(
        self, query: RouteQuery, refused: Refused, on_outcome: Callable[[Outcome], None]
    ) -> Held | None:
        """Start a round and let a request wait for it; ``None``: it may not, so refuse it."""
        if self.look is None or self._is_cut_short or len(self) >= MAX_WAITING or not self.look():
            return None
        if self._max_hold_seconds <= 0:
            return None
        waiting = _Waiting(self._prompts.without_body(query), refused, on_outcome)
        held = Held(
            Question("none", query.model, query.pod_filter, query.subset),
            InferenceRequest(query.model),
            0,
            self._clock.now(),
            SECONDS + self._max_hold_seconds,
            lambda held: self._cancel(waiting, held),
            "unknown-model",
        )
        self._waiting[waiting] = None
        if self._deadline is None:
            self._deadline = self._clock.call_later(SECONDS, self.ended)
        return held

    def begin(self) -> None:
        """Start a round, although no request waits for it."""
        if self.look is not None:
            self.look()

    def drain(self, seconds: float) -> None:
        """End the round within some seconds, because the router stops."""
        if seconds > 0:
            self._clock.call_later(seconds, self._cut_short)
        else:
            self._cut_short()

    def _cut_short(self) -> None:
        self._is_cut_short = True
        self.ended()

    def final(self, refused: Refused) -> Refused:
        """Return the refusal of a request for an unknown model, also if the router stops.

        Clients take 404 for final, and lists that are not read to the end show nothing.
        """
        if self._is_cut_short:
            return Refused(Refusal.SHUTTING_DOWN, model=refused.model)
        return refused

    def ended(self) -> None:
        """Decide all requests that wait, because a round has ended or took too long."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._due.extend(self._waiting)
        self._waiting.clear()
        self._decide()

    def _decide(self) -> None:
        self._timer = None
        for _ in range(min(_AT_ONCE, len(self._due))):
            waiting = self._due.popleft()
            if waiting.over:
                continue
            try:
                outcome = self._route(waiting.query, waiting.end)
            except Exception:
                log.exception("failed to decide a request for an unknown model")
                outcome = waiting.refused
            if isinstance(outcome, Held):
                waiting.inner = outcome
            else:
                waiting.end(outcome)
        if self._due and self._timer is None:
            self._timer = self._clock.call_later(0.0, self._decide)

    def _cancel(self, waiting: _Waiting, held: Held) -> None:
        waiting.over = True
        self._waiting.pop(waiting, None)
        if waiting.inner is not None:
            waiting.inner.is_answered = held.is_answered
            waiting.inner.cancel()
