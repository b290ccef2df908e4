"""Finds the pods that may take a request: those that serve its model, after filter and subset.

The result stays the same until pods change, so it is stored until then.
"""

from collections.abc import Collection
from functools import lru_cache

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.model_index import ModelPods
from lora_router.fleet.pod_group import PodGroup
from lora_router.fleet.pod_state import PodState
from lora_router.routing.candidates import Candidates
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.selector import SelectorError, parse_selector
from lora_router.routing.who_waits import Waiting

_REMEMBERED = 256
"""How many combinations of filter and subset are stored. Clients choose them, so the number must be
bounded."""

_selector = lru_cache(maxsize=256)(parse_selector)


class CandidateFinder:
    """Finds and stores candidates of one fleet."""

    def __init__(self, fleet: Fleet, waiting: Waiting) -> None:
        self._fleet = fleet
        self._waiting = waiting
        self._whole: dict[int, Candidates] = {}
        """By the identity of the group, which its candidates keep alive."""
        self._narrowed: dict[tuple[int, str | None, frozenset[str] | None], Candidates] = {}

    def pods_changed(self) -> None:
        """Drop all stored candidates."""
        self._whole.clear()
        self._narrowed.clear()

    def serving(self, model: str) -> ModelPods:
        """Return the pods that serve a model."""
        return self._fleet.serving(model)

    def among(
        self, group: PodGroup, pod_filter: str | None, subset: frozenset[str] | None
    ) -> Candidates | Refused:
        """Return the pods of a group that a filter and a subset allow.

        Args:
            group: Ready pods that serve the model.
            pod_filter: A label selector; ``None`` allows all.
            subset: Endpoints that the gateway allows; ``None`` allows all.

        Returns:
            The candidates, or why there are none: a bad selector, or no pod left.
        """
        if pod_filter is None and subset is None:
            whole = self._whole.get(id(group))
            if whole is None:
                whole = self._whole[id(group)] = self._of(group, group)
            return whole
        key = (id(group), pod_filter, subset)
        found = self._narrowed.get(key)
        if found is None:
            try:
                pods = _narrow(group, pod_filter, subset)
            except SelectorError as error:
                return Refused(Refusal.BAD_SELECTOR, detail=str(error))
            found = self._of(pods, group)
            if len(self._narrowed) >= _REMEMBERED:
                del self._narrowed[next(iter(self._narrowed))]
            self._narrowed[key] = found
        return found or Refused(Refusal.NONE_SELECTED)

    def _of(self, pods: Collection[PodState], group: PodGroup) -> Candidates:
        return Candidates.of(pods, self._waiting, self._fleet.prefixes, group)

    def selects(
        self, state: PodState, pod_filter: str | None, subset: frozenset[str] | None
    ) -> bool:
        """Return whether a filter and a subset allow a pod."""
        if subset is not None and not _is_in(state.pod.address, subset):
            return False
        return pod_filter is None or _selector(pod_filter).matches(state.pod.labels)

    def why_nobody_serves(self, model: str) -> Refused:
        """Return why no ready pod serves a model."""
        ready = self._fleet.ready()
        # A model that only unready pods serve is a known model: the client may come back later.
        if not ready or any(
            model in state.base_models or model in state.adapters for state in self._fleet
        ):
            return Refused(Refusal.NO_READY_POD, model=model)
        if not all(state.models_known for state in ready):
            return Refused(Refusal.MODELS_UNKNOWN, model=model)
        return Refused(Refusal.UNKNOWN_MODEL, model=model)


def _is_in(endpoint: str, subset: frozenset[str]) -> bool:
    """Return whether a subset has an endpoint, or its address with all ports."""
    return endpoint in subset or endpoint.rpartition(":")[0] in subset


def _narrow(
    group: PodGroup, pod_filter: str | None, subset: frozenset[str] | None
) -> Collection[PodState]:
    pods: Collection[PodState] = group
    if subset is not None:
        pods = [state for state in group if _is_in(state.pod.address, subset)]
    if pod_filter is None:
        return pods
    selector = _selector(pod_filter)
    return [state for state in pods if selector.matches(state.pod.labels)]
