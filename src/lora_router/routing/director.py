"""The director: picks a pod for each request and counts the request on it.

Rules:

- Picking and counting are one synchronous call. Nothing here awaits, so no two requests see the
  same count.
- A request goes only to a candidate, even if an algorithm names another pod (``answer_check``).
- A request that its algorithm holds waits in the waiting room (``reception``).
"""

import random
from collections.abc import Callable, Collection, Mapping
from time import perf_counter

from msgspec.structs import replace

from lora_router.clock import Clock
from lora_router.fleet.adapters_in_flight import AdaptersInFlight
from lora_router.fleet.catalog import Catalog
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.model_index import ModelPods
from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prompt import Prompt
from lora_router.routing.algorithm import Algorithm, Hold, InferenceRequest, Pick
from lora_router.routing.answer_check import AlgorithmCaller
from lora_router.routing.explaining import Explainer
from lora_router.routing.fallback import Fallbacks
from lora_router.routing.first_use import FirstUse
from lora_router.routing.least_request import least_loaded
from lora_router.routing.looks import Onlooker
from lora_router.routing.model_names import FALLS_BACK, ModelNames, NamePolicy, Special
from lora_router.routing.outcome import DecisionObserver, Outcome, Recorder, Routed, RouteQuery
from lora_router.routing.overfull_pods import OverfullPods
from lora_router.routing.overload import Overload
from lora_router.routing.priorities import Priorities
from lora_router.routing.prompt_readers import PromptReaders
from lora_router.routing.question import Question
from lora_router.routing.reception import Reception
from lora_router.routing.recollection import Recollection
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.roll import Limits
from lora_router.routing.second_look import UNKNOWN, SecondLook
from lora_router.routing.sticky import StickyRouting
from lora_router.routing.waiting_queue import Held

PASS_THROUGH = "pass-through"  # noqa: S105 -- not a password
"""Used in place of an algorithm's name for requests that name no model."""
_NO_MODEL = InferenceRequest("")


class Director:
    """Asks algorithms, counts requests on the pods that they pick, and holds requests."""

    def __init__(  # noqa: PLR0913 -- one argument for each setting
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
        overload: Overload | None = None,
        fallbacks: int = 0,
        names: NamePolicy | None = None,
    ) -> None:
        self._fleet = fleet
        self.algorithms = algorithms
        """All algorithms, by name."""
        self._default = algorithms[default_algorithm]
        self.default_model = default_model
        """The model of requests that name none."""
        self.clock = clock
        fleet.ledger.now = clock.now
        self._random = random.Random()
        self._caller = AlgorithmCaller()
        self._fallbacks = Fallbacks(fallbacks, lambda: len(fleet.ready()))
        self.names = ModelNames(fleet, names or NamePolicy(), clock.now)
        """What the names stand for that clients write."""
        self._recorder = Recorder(fleet.ledger, observer, self.names, fleet.prefixes)
        self.prompts = PromptReaders(algorithms, default_algorithm)
        """Reads the prompts of requests whose algorithms ask for them."""
        self._rewrites = self.names.rewrites
        self.reception = Reception(
            fleet,
            clock,
            self._caller,
            self._recorder,
            self._fallbacks,
            self.names,
            max_hold_seconds=max_hold_seconds,
            limits=limits or Limits(),
            overload=overload or Overload(),
        )
        """Admits held requests, and decides them later."""
        self.reception.instead = self._fall_back
        self.reception.rooms.let_wait(algorithms.values())
        self.second_look = SecondLook(clock, self._route_again, self.prompts, max_hold_seconds)
        """Requests for unknown models that wait until the pods were asked again."""
        self.names.on_denied = self.second_look.begin
        self.sticky = StickyRouting(self._recorder, self.names, algorithms, default_algorithm)
        """Routes requests that only one pod can serve."""
        self._first_use = FirstUse(self.reception, self.names, self._recorder)
        self._room = self.reception.room
        self._finder = self.reception.finder
        self.max_hold_seconds = max_hold_seconds
        """Maximum time that a request is held."""
        self._may_hold = max_hold_seconds > 0
        self.priorities = Priorities()
        """What priority a request has, by the objective that it names."""
        self.recollection = Recollection(algorithms)
        """Reads what algorithms noted of the candidates."""
        self.explainer = Explainer(self)
        """Says what would be decided, and why."""
        self._catalogs: frozenset[Catalog] = frozenset()
        """What the ready pods served at the last change of pods, while requests are held."""
        fleet.changes.pods.subscribe(self._pods_changed)
        fleet.changes.scraped.subscribe(self.reception.pod_room.scraped)
        self.reception.pod_room.on_old = self._room.reported
        fleet.changes.scraped.subscribe(self._room.reported)
        fleet.changes.shared.subscribe(self._room.reported)
        if getattr(self._default, "keeps_slots", False):
            fleet.changes.scraped.subscribe(OverfullPods(fleet, self._finder, self._room).scraped)
        fleet.changes.released.subscribe(self._room.released)

    @property
    def fleet(self) -> Fleet:
        """The pods."""
        return self._fleet

    @property
    def default_algorithm(self) -> str:
        """The name of the algorithm that picks where a request names none."""
        return self._default.name

    def observe(self) -> None:
        """Note with each outcome what the decision saw, because decisions are recorded."""
        if self._recorder.onlooker is None:
            self._recorder.onlooker = Onlooker(AdaptersInFlight(self._fleet))

    def follow_refusals(self, call: Callable[[Refused], None]) -> None:
        """Call with each refusal. The call must not raise."""
        self._recorder.on_refused.append(call)

    @property
    def held(self) -> int:
        """The number of requests that wait in the router now."""
        return self._room.held

    @property
    def closed_slots(self) -> int:
        """The number of slots that are closed, so that an adapter that waits gets them."""
        return self._room.closed_slots

    def held_adapters(self) -> dict[str, HeldShare]:
        """Return the adapters for which requests are held, as reported to peers."""
        return self.reception.held_adapters.shares(self.clock.now())

    def route(
        self, query: RouteQuery, on_outcome: Callable[[Outcome], None]
    ) -> Routed | Refused | Held:
        """Pick a pod for an inference request and count the request on it.

        Args:
            query: What the request asks.
            on_outcome: Called once, later, if the answer is ``Held`` and it is not cancelled.
        """
        if self._rewrites.active:
            query = self._rewritten(query)
        outcome = self._route(query, on_outcome)
        if isinstance(outcome, Refused) and outcome.refusal in UNKNOWN and self.names.looks_again:
            held = self.second_look.admit(query, outcome, on_outcome)
            if held is not None:
                return held
        return self._counted(query, outcome)

    def _rewritten(self, query: RouteQuery) -> RouteQuery:
        """Return the query with the model that its name stands for."""
        model = query.model or self.default_model
        if not model:
            return query
        target = self._rewrites.target(model, query.rewrite_key)
        return query if target == model else replace(query, model=target)

    def _route_again(
        self, query: RouteQuery, on_outcome: Callable[[Outcome], None]
    ) -> Routed | Refused | Held:
        return self._counted(query, self._route(query, on_outcome))

    def _counted(
        self, query: RouteQuery, outcome: Routed | Refused | Held
    ) -> Routed | Refused | Held:
        """Count the refusal of an unknown model, under the algorithm that was asked for."""
        if isinstance(outcome, Refused) and outcome.refusal in UNKNOWN:
            if self.names.looks_again:
                outcome = self.second_look.final(outcome)
            return self._recorder.refused(query.strategy or self._default.name, outcome)
        return outcome

    def _route(
        self, query: RouteQuery, on_outcome: Callable[[Outcome], None]
    ) -> Routed | Refused | Held:
        """Route a request. A refusal of an unknown model is not counted yet."""
        started = perf_counter()
        algorithm = self._default
        if query.strategy is not None:
            found = self.algorithms.get(query.strategy)
            if found is None:
                known = tuple(self.algorithms)
                return self._recorder.refused(
                    "none", Refused(Refusal.UNKNOWN_ALGORITHM, known=known)
                )
            algorithm = found

        model = query.model or self.default_model
        if not model:
            return self._recorder.refused(algorithm.name, Refused(Refusal.NO_MODEL))

        priority = self.priorities.of(query.objective, query.priority)
        serving = self._fleet.serving(model)
        special = None
        if serving.excluded or not serving.pods:
            question = _question(algorithm, model, query, priority)
            instead = self._instead_of(question, query, serving, on_outcome)
            if not isinstance(instead, ModelPods):
                return instead
            special = Special.UNLISTED if instead.unlisted else None
            serving = instead
        model = serving.model
        candidates = self._finder.among(serving.pods, query.pod_filter, query.subset)
        if isinstance(candidates, Refused):
            refused = Refused(candidates.refusal, model=model, detail=candidates.detail)
            return self._recorder.refused(algorithm.name, refused)

        held_since = closing = None
        if self._room.held:
            queue = self._room.queue_of(_question(algorithm, model, query, priority))
            if queue is not None:
                held_since, closing = queue.since, queue.closing
        request = InferenceRequest(
            model,
            model if serving.is_adapter else None,
            query.stream,
            query.size,
            query.path,
            query.request_id,
            self._may_hold,
            held_since,
            closing,
            priority,
            self.prompts.read(algorithm, query),
        )
        now = self.clock.now()
        answer = self.reception.answer(algorithm, request, candidates, now)
        if isinstance(answer, Hold):
            question = _question(algorithm, model, query, priority)
            if not self._room.held:
                self._catalogs = self._fleet.catalogs()
            return self.reception.admit(
                question, request, algorithm, answer, candidates, on_outcome, special
            )
        fallbacks = self._fallbacks.of(algorithm, request, answer.pod, candidates)
        seconds = perf_counter() - started
        recorder = self._recorder
        routed = recorder.routed(
            algorithm.name, request, answer, seconds, fallbacks, special, candidates
        )
        adapter = request.adapter
        if adapter is not None and (self._room.held or answer.without_slot):
            self.reception.placed(routed, adapter, answer, candidates)
        return routed

    def _instead_of(
        self,
        question: Question,
        query: RouteQuery,
        serving: ModelPods,
        on_outcome: Callable[[Outcome], None],
    ) -> ModelPods | Routed | Refused | Held:
        """Decide about a request whose model no pod in use serves.

        Returns:
            The pods to try, the request routed to its base model or held while its adapter is
            loaded, or a refusal. A refusal of an unknown model is not counted yet.
        """
        model = question.model
        if serving.pods:  # They are excluded, which is better than nothing.
            return self._fall_back(question, _inference(query, model)) or serving
        declared = self.names.declared_as(model)
        if declared is not None:
            if not self._room.held:
                self._catalogs = self._fleet.catalogs()
            algorithm = self.algorithms[question.algorithm]
            request = _inference(query, model, model, self.prompts.read(algorithm, query))
            return self._first_use.route(declared, algorithm, question, request, on_outcome)
        found = self.names.with_base(model) or self.names.unlisted(model)
        if found is not None:
            return found
        refused = self._finder.why_nobody_serves(model)
        if refused.refusal in UNKNOWN:
            if not self.names.is_unlisted(model):
                return refused
            refused = Refused(Refusal.NO_READY_POD, model=model)
        fallen = self._fall_back(question, _inference(query, model), refused)
        return fallen or self._recorder.refused(question.algorithm, refused)

    def _fall_back(
        self, question: Question, request: InferenceRequest, refused: Refused | None = None
    ) -> Routed | None:
        """Route a request for an adapter that gets no pod to its base model, if it may.

        Args:
            question: What was asked.
            request: The request.
            refused: Why it gets no pod; ``None``: all pods of the adapter are excluded.
        """
        if refused is not None and refused.refusal not in FALLS_BACK:
            return None
        base = self.names.base_of(question.model)
        if base is None:
            return None
        candidates = self._finder.among(base.pods, question.pod_filter, question.subset)
        if isinstance(candidates, Refused):
            return None
        algorithm = self.algorithms[question.algorithm]
        asked = InferenceRequest(
            base.model,
            None,
            request.stream,
            request.size,
            request.path,
            request.request_id,
            may_hold=False,
            priority=request.priority,
            prompt=request.prompt,
        )
        answer = self._caller.ask(algorithm, asked, candidates, self.clock.now())
        if isinstance(answer, Hold):
            return None
        pick = Pick(answer.pod, Special.FELL_BACK.value, notes=answer.notes)
        fallbacks = self._fallbacks.of(algorithm, asked, answer.pod, candidates)
        special = Special.FELL_BACK
        return self._recorder.routed(
            algorithm.name, asked, pick, 0.0, fallbacks, special, candidates
        )

    def stick(self, query: RouteQuery, state: PodState) -> Routed | Refused:
        """Count a request on the pod that made the ID which it names."""
        if self._rewrites.active:
            query = self._rewritten(query)
            query = replace(query, model=self.names.on_pod(query.model, state))
        return self.sticky.route(query, state)

    def pass_through(self, subset: frozenset[str] | None = None) -> Routed | Refused:
        """Pick the pod with the fewest requests in flight, for a request that names no model."""
        started = perf_counter()
        candidates = self._finder.among(self._fleet.in_use(), None, subset)
        if not candidates or isinstance(candidates, Refused):
            return self._recorder.refused(PASS_THROUGH, Refused(Refusal.NO_READY_POD))
        pick = Pick(least_loaded(candidates, self._random), PASS_THROUGH)
        fallbacks = self._fallbacks.of(None, _NO_MODEL, pick.pod, candidates)
        seconds = perf_counter() - started
        return self._recorder.routed(PASS_THROUGH, _NO_MODEL, pick, seconds, fallbacks)

    def drain(self, seconds: float) -> None:
        """Decide all waiting requests within some seconds, because the router stops."""
        self.reception.drain(seconds)
        self.second_look.drain(seconds)

    def _pods_changed(self, states: Collection[PodState]) -> None:
        self._finder.pods_changed()
        gone = [state for state in states if self._fleet.get(state.pod.name) is not state]
        self.reception.pod_room.pods_changed(states, gone)
        if not self._room.held:
            return
        catalogs = self._fleet.catalogs()
        changed, self._catalogs = catalogs ^ self._catalogs, catalogs
        self._room.pods_changed(states, changed)


def _inference(
    query: RouteQuery, model: str, adapter: str | None = None, prompt: Prompt | None = None
) -> InferenceRequest:
    return InferenceRequest(
        model,
        adapter,
        query.stream,
        query.size,
        query.path,
        query.request_id,
        prompt=prompt,
    )


def _question(algorithm: Algorithm, model: str, query: RouteQuery, priority: int) -> Question:
    return Question(algorithm.name, model, query.pod_filter, query.subset, priority, query.tenant)
