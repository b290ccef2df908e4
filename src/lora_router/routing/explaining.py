"""What the director would decide about a request now, and why: a dry run.

It asks the same questions in the same order as the director, and has no effect: nothing is
reserved, held or counted. The answer is that of one moment. A test holds that it is the
director's.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from lora_router.clock import Clock
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import NAMES
from lora_router.fleet.model_index import ModelPods
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.algorithm import Algorithm, Cost, Hold, InferenceRequest, Pick, Sight
from lora_router.routing.answer_check import AlgorithmCaller
from lora_router.routing.candidates import Candidates
from lora_router.routing.declared_names import DeclaredName
from lora_router.routing.first_use import why_in_vain
from lora_router.routing.interrupt import let_interrupt_pass
from lora_router.routing.looks import PLACES, place_of
from lora_router.routing.model_names import FALLS_BACK, ModelNames, Special
from lora_router.routing.outcome import RouteQuery
from lora_router.routing.priorities import DEFAULT, Priorities
from lora_router.routing.question import Question
from lora_router.routing.reception import Reception
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.second_look import UNKNOWN

MAX_SIGHTS = 32
"""Candidates whose costs are told. Of more, those that the algorithm inspected first."""


class Explained(Struct):
    """What would be decided, and why."""

    query: RouteQuery
    model: str = ""
    """What the name stands for, after rewrites."""
    adapter: str = ""
    algorithm: str = ""
    answer: str = "refuse"
    """``pick``, ``hold`` or ``refuse``."""
    pod: PodView | None = None
    reason: str = ""
    detail: str = ""
    wanted: PodView | None = None
    closed: tuple[PodView, str] | None = None
    held: int = 0
    """Requests that wait with the same question."""
    sights: Sequence[Sight] = ()
    costs: Sequence[Cost] = ()
    """Of each sight."""
    serving: ModelPods | None = None
    """The pods that were considered, before filter and subset."""
    candidates: Candidates | None = None


class Parts(Protocol):
    """The parts of the director that a dry run reads."""

    @property
    def fleet(self) -> Fleet:
        """The pods."""

    @property
    def algorithms(self) -> Mapping[str, Algorithm]:
        """All algorithms."""

    @property
    def default_algorithm(self) -> str:
        """The name of the one that is used where a request names none."""

    @property
    def default_model(self) -> str | None:
        """The model of requests that name none."""

    names: ModelNames
    reception: Reception
    priorities: Priorities
    clock: Clock


class Explainer:
    """Explains what one director would do."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._caller = AlgorithmCaller()

    def explain(self, query: RouteQuery) -> Explained:
        """Return what would be decided about a request."""
        parts = self._parts
        found = Explained(query=query, algorithm=query.strategy or parts.default_algorithm)
        name = query.model or parts.default_model or ""
        found.model = parts.names.rewrites.target(name, query.rewrite_key) if name else ""
        algorithm = parts.algorithms.get(found.algorithm)
        if algorithm is None:
            known = ", ".join(sorted(parts.algorithms))
            _refuse(found, Refused(Refusal.UNKNOWN_ALGORITHM, detail=f"known are {known}"))
        elif not found.model:
            _refuse(found, Refused(Refusal.NO_MODEL))
        else:
            self._decide(found, algorithm)
        return found

    def why_not(self, found: Explained, state: PodState) -> str:
        """Return why a pod is no candidate of an explained request. Empty: it is one."""
        serving, candidates = found.serving, found.candidates
        if candidates is not None and state in candidates.members:
            return ""
        if not state.pod.ready:
            return "not ready"
        if serving is not None and state in serving.pods.members:
            return self._why_narrowed(found.query, serving, state)
        if found.model not in state.catalog and not (serving is not None and serving.unlisted):
            if not state.models_known:
                return "its list of models has not been read"
            return "does not serve the model"
        if state not in self._parts.fleet.in_use().members:
            health = state.health
            return f"{NAMES[health.state]}: {health.cause or 'no cause is known'}"
        if found.model in state.catalog:
            return "answered 404 for the model"
        return "does not serve the base model"

    def costs(
        self, algorithm: str, request: InferenceRequest, sights: Sequence[Sight]
    ) -> Sequence[Cost]:
        """Return what the candidates of a past decision cost, as far as they are known."""
        found = self._parts.algorithms.get(algorithm)
        return [Cost()] * len(sights) if found is None else _costs(found, request, sights, None)

    def _why_narrowed(self, query: RouteQuery, serving: ModelPods, state: PodState) -> str:
        if query.subset is not None:
            among = self._parts.reception.finder.among(serving.pods, None, query.subset)
            if isinstance(among, Refused) or state not in among.members:
                return "not in the subset that the gateway allows"
        return f"its labels do not fit the filter {query.pod_filter}"

    # The order of the director

    def _decide(self, found: Explained, algorithm: Algorithm) -> None:
        parts, model = self._parts, found.model
        serving = found.serving = parts.fleet.serving(model)
        refused = None
        declared = None if serving.pods else parts.names.declared_as(model)
        if declared is not None:
            self._load_first(found, algorithm, declared)
            return
        if not serving.pods:
            other = parts.names.with_base(model) or parts.names.unlisted(model)
            if other is not None:
                found.serving = other
                found.detail = "no pod lists it" if other.unlisted else ""
                self._ask(found, algorithm, other)
                return
            refused = parts.reception.finder.why_nobody_serves(model)
            if refused.refusal in UNKNOWN:
                if not parts.names.is_unlisted(model):
                    _refuse(found, refused, self._second_look())
                    return
                refused = Refused(Refusal.NO_READY_POD, model=model)
        elif serving.excluded:
            found.detail = "every pod that serves it is excluded because it fails"
        if (refused is not None or serving.excluded) and self._falls_back(
            found, algorithm, refused
        ):
            return
        if refused is not None:
            _refuse(found, refused)
        else:
            self._ask(found, algorithm, serving)

    def _second_look(self) -> str:
        """Return whether the lists of the pods are read again for an unknown model."""
        if not self._parts.names.looks_again:
            return ""
        first = self._parts.reception.max_hold_seconds > 0
        return "the lists of all pods are read once more " + ("first" if first else "meanwhile")

    def _ask(self, found: Explained, algorithm: Algorithm, serving: ModelPods) -> None:
        parts, query = self._parts, found.query
        candidates = parts.reception.finder.among(serving.pods, query.pod_filter, query.subset)
        if isinstance(candidates, Refused):
            _refuse(found, candidates)
            return
        model = found.model = serving.model
        found.adapter = model if serving.is_adapter else ""
        priority = parts.priorities.of(query.objective) if query.objective else DEFAULT
        question = Question(
            algorithm.name, model, query.pod_filter, query.subset, priority, query.tenant
        )
        queue = parts.reception.room.queue_of(question)
        request = InferenceRequest(
            model,
            found.adapter or None,
            query.stream,
            query.size,
            query.path,
            query.request_id,
            parts.reception.max_hold_seconds > 0,
            None if queue is None else queue.since,
            None if queue is None else queue.closing,
            priority,
        )
        found.held = 0 if queue is None else len(queue.requests)
        answer = self._answer(found, algorithm, request, candidates)
        if isinstance(answer, Pick):
            _pick(found, answer)
        elif parts.reception.hold_seconds(answer) <= 0:
            refused = parts.reception.overloaded(model)
            if not self._falls_back(found, algorithm, refused):
                _refuse(found, refused)
        else:
            self._hold(found, question, answer, candidates)

    def _hold(
        self, found: Explained, question: Question, hold: Hold, candidates: Candidates
    ) -> None:
        """Answer with a hold, or with a refusal if the request may not wait."""
        reception = self._parts.reception
        wait = reception.room.waits.of(question, hold, candidates)
        if reception.is_too_long(wait, hold):
            refused = reception.shed(question.model, wait, hold)
            if not self._falls_back(found, self._parts.algorithms[found.algorithm], refused):
                _refuse(found, refused)
        elif reception.room.displaced_by(question, candidates) is None:
            _refuse(found, Refused(Refusal.TOO_MANY_HELD))
        else:
            found.answer, found.reason = "hold", hold.reason
            found.wanted, found.closed = hold.wanted, hold.closed
            found.detail = found.detail or _expected(wait.seconds)

    def _load_first(self, found: Explained, algorithm: Algorithm, declared: DeclaredName) -> None:
        """Answer with a hold while the adapter is loaded, or with why that is in vain."""
        parts, query, model = self._parts, found.query, found.model
        found.adapter = model
        question = Question(algorithm.name, model, query.pod_filter, query.subset)
        refused = why_in_vain(declared, parts.reception.finder, question)
        hold = parts.reception.first_use
        if refused is None and hold is not None:
            found.detail = "it is declared, and no pod has loaded it"
            found.answer, found.reason = "hold", hold.reason
            return
        refused = refused or Refused(Refusal.ADAPTER_NOT_LOADED, model=model)
        if not self._falls_back(found, algorithm, refused):
            _refuse(found, refused)

    def _falls_back(self, found: Explained, algorithm: Algorithm, refused: Refused | None) -> bool:
        """Answer with a pod for the base model, if the adapter falls back to it."""
        if refused is not None and refused.refusal not in FALLS_BACK:
            return False
        parts, query = self._parts, found.query
        base = parts.names.base_of(found.model)
        if base is None:
            return False
        among = parts.reception.finder.among(base.pods, query.pod_filter, query.subset)
        if isinstance(among, Refused):
            return False
        request = InferenceRequest(
            base.model, None, query.stream, query.size, query.path, may_hold=False
        )
        answer = self._answer(found, algorithm, request, among)
        if isinstance(answer, Hold):
            return False
        found.serving, found.model, found.adapter = base, base.model, ""
        found.detail = "no pod of the adapter is in use"
        _pick(found, Pick(answer.pod, Special.FELL_BACK.value))
        return True

    def _answer(
        self,
        found: Explained,
        algorithm: Algorithm,
        request: InferenceRequest,
        candidates: Candidates,
    ) -> Pick | Hold:
        """Return an algorithm's answer, and note what it saw."""
        now, inspected = self._parts.clock.now(), candidates.inspected
        candidates.inspected = candidates
        try:
            answer = self._parts.reception.answer_by(
                self._caller, algorithm, request, candidates, now
            )
            seen = list(candidates.inspected[:MAX_SIGHTS])
        finally:
            candidates.inspected = inspected
        if isinstance(answer, Pick) and answer.pod not in seen:
            seen.append(answer.pod)
        found.candidates = candidates
        found.sights = [_sight(pod, request.adapter) for pod in seen]
        found.costs = _costs(algorithm, request, found.sights, candidates, now)
        return answer


def _expected(wait: float | None) -> str:
    """Return a sentence about the expected wait, if that is known."""
    return "" if wait is None else f"the expected wait is {wait:.1f} s"


def _sight(pod: PodView, adapter: str | None) -> Sight:
    assert isinstance(pod, PodState)  # noqa: S101 -- candidates are nothing else
    beliefs = pod.beliefs
    return Sight(
        pod.pod.name,
        pod.in_flight + beliefs.foreign_requests,
        beliefs.free_slots,
        PLACES[place_of(pod, adapter)],
        pod,
    )


def _costs(
    algorithm: Algorithm,
    request: InferenceRequest,
    sights: Sequence[Sight],
    candidates: Candidates | None,
    now: float = 0.0,
) -> Sequence[Cost]:
    """Return what an algorithm says of the candidates, or nothing if it does not explain itself."""
    nothing = [Cost()] * len(sights)
    terms = getattr(algorithm, "terms", None)
    if terms is None:
        return nothing
    try:
        costs = list(terms(request, sights, candidates, now))
    except BaseException as error:  # A plug-in may do anything.
        let_interrupt_pass(error)
        return nothing
    usable = len(costs) == len(sights) and all(type(cost) is Cost for cost in costs)
    return costs if usable else nothing


def _pick(found: Explained, pick: Pick) -> None:
    found.answer, found.pod, found.reason = "pick", pick.pod, pick.reason


def _refuse(found: Explained, refused: Refused, detail: str = "") -> None:
    found.answer, found.reason = "refuse", refused.refusal.value
    found.detail = detail or refused.detail or found.detail
