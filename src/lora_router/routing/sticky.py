"""Routes a request to the one pod that can serve it, because that pod made the ID that it names."""

from collections.abc import Collection
from time import perf_counter

from lora_router.fleet.made_ids import MadeIds
from lora_router.fleet.pod_state import PodState
from lora_router.routing.algorithm import InferenceRequest, Pick
from lora_router.routing.model_names import ModelNames
from lora_router.routing.outcome import Recorder, Routed, RouteQuery
from lora_router.routing.refusal import Refusal, Refused

STICKY = "sticky"
"""The reason of such a pick, and what stands for the algorithm of a request without a model."""


class StickyRouting:
    """Counts requests on the pods that they must go to, whatever an algorithm would pick."""

    def __init__(
        self,
        recorder: Recorder,
        names: ModelNames,
        algorithms: Collection[str],
        default: str,
    ) -> None:
        self.made = MadeIds()
        """Which pod made which ID."""
        self._recorder = recorder
        self._names = names
        self._algorithms = algorithms
        self._default = default

    def route(self, query: RouteQuery, state: PodState) -> Routed | Refused:
        """Count a request on a pod.

        Args:
            query: The request. Its model may be empty.
            state: The pod that made the ID.
        """
        started = perf_counter()
        algorithm = STICKY
        if query.model:
            algorithm = query.strategy or self._default
            if algorithm not in self._algorithms:
                refused = Refused(Refusal.UNKNOWN_ALGORITHM, known=tuple(self._algorithms))
                return self._recorder.refused("none", refused)
        refusal = self._why_not(query, state)
        if refusal is not None:
            return self._recorder.refused(algorithm, Refused(refusal, model=query.model))
        adapter = query.model if query.model in state.adapters else None
        request = InferenceRequest(
            query.model, adapter, query.stream, query.size, query.path, query.request_id
        )
        seconds = perf_counter() - started
        return self._recorder.routed(algorithm, request, Pick(state, STICKY), seconds)

    def _why_not(self, query: RouteQuery, state: PodState) -> Refusal | None:
        if query.subset is not None and state.pod.address not in query.subset:
            return Refusal.NONE_SELECTED
        if not state.pod.ready:
            return Refusal.NO_READY_POD
        model = query.model
        if model and state.models_known and model not in state.catalog:
            return None if self._names.is_unlisted(model) else Refusal.MODEL_ELSEWHERE
        return None
