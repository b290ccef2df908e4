"""Requests for an adapter that is declared, and that no pod has loaded.

Such a request waits in the waiting room while the adapter is loaded, for up to
``first_use_seconds``, and then is routed as every request is. It is refused at once if that is in
vain: no pod may have the adapter, or loading it failed a moment ago.
"""

from collections.abc import Callable

from lora_router.routing.algorithm import Algorithm, InferenceRequest
from lora_router.routing.candidate_finder import CandidateFinder
from lora_router.routing.declared_names import DeclaredName
from lora_router.routing.model_names import ModelNames
from lora_router.routing.outcome import Outcome, Recorder, Routed
from lora_router.routing.question import Question
from lora_router.routing.reception import NO_CANDIDATES, Reception
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.waiting_queue import Held


class FirstUse:
    """Lets requests wait for adapters of one fleet."""

    def __init__(self, reception: Reception, names: ModelNames, recorder: Recorder) -> None:
        self._reception = reception
        self._names = names
        self._recorder = recorder

    def route(
        self,
        declared: DeclaredName,
        algorithm: Algorithm,
        question: Question,
        request: InferenceRequest,
        on_outcome: Callable[[Outcome], None],
    ) -> Routed | Refused | Held:
        """Hold a request, and have its adapter loaded.

        Args:
            declared: The adapter.
            algorithm: Picks the pod, once one has it.
            question: What is asked.
            request: The request.
            on_outcome: Called once, later, if the answer is ``Held`` and it is not cancelled.

        Returns:
            What becomes of it. That the models of pods are not known yet is not counted.
        """
        reception = self._reception
        refused = why_in_vain(declared, reception.finder, question)
        outcome: Routed | Refused | Held
        if refused is None:
            hold = reception.first_use
            if hold is not None:
                outcome = reception.admit(
                    question, request, algorithm, hold, NO_CANDIDATES, on_outcome
                )
            else:
                outcome = self._refused(
                    question, request, _not_loaded(declared, "requests do not wait for it")
                )
            self._names.want(question.model)
            return outcome
        if refused.refusal is Refusal.MODELS_UNKNOWN:
            return refused
        return self._refused(question, request, refused)

    def _refused(
        self, question: Question, request: InferenceRequest, refused: Refused
    ) -> Routed | Refused:
        instead = self._reception.instead(question, request, refused)
        return instead or self._recorder.refused(question.algorithm, refused)


def why_in_vain(
    declared: DeclaredName, finder: CandidateFinder, question: Question
) -> Refused | None:
    """Return why a request would wait for an adapter in vain; ``None``: a pod may load it."""
    problem = declared.problem_of(question.selection)
    if problem is not None:
        return problem
    base = finder.serving(declared.base_model)
    if not base.pods or base.is_adapter:
        why = finder.why_nobody_serves(declared.base_model).refusal
        if why is Refusal.MODELS_UNKNOWN:
            return Refused(why, model=declared.name)
        return _not_loaded(declared, "no ready pod serves its base model")
    among = finder.among(base.pods, question.pod_filter, question.subset)
    if isinstance(among, Refused):
        return Refused(among.refusal, model=declared.name, detail=among.detail)
    admits = declared.admits
    if admits is not None and not any(admits(each.pod) for each in among):
        return _not_loaded(declared, "it may be on none of the pods that may take the request")
    return None


def _not_loaded(declared: DeclaredName, detail: str) -> Refused:
    return Refused(Refusal.ADAPTER_NOT_LOADED, model=declared.name, detail=detail)
