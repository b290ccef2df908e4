"""Finds the pods that may take a request: those that serve its model, after filter and subset.

The result stays the same until pods change, so it is stored until then. Filters and subsets that
leave the same pods have the same candidates. Those that leave all of them have the candidates of
requests without a filter.
"""

from collections import OrderedDict
from functools import lru_cache
from typing import TypeVar

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.model_index import ModelPods
from lora_router.fleet.pod_group import PodGroup
from lora_router.fleet.pod_state import PodState
from lora_router.routing.candidates import Candidates
from lora_router.routing.label_index import LabelIndex, mask_of
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.selector import Selector, SelectorError, parse_selector
from lora_router.routing.who_waits import Waiting

_REMEMBERED = 256
"""How many combinations of filter and subset are stored, and how many sets of pods that these
leave, those that were used last. Clients choose them, so the number must be bounded."""

_Narrowing = tuple[int, str | None, frozenset[str] | None]
"""The identity of the group, the filter and the subset."""
_Key = TypeVar("_Key")

_selector = lru_cache(maxsize=256)(parse_selector)


class CandidateFinder:
    """Finds and stores candidates of one fleet."""

    def __init__(self, fleet: Fleet, waiting: Waiting) -> None:
        self._fleet = fleet
        self._waiting = waiting
        self._whole: dict[int, Candidates] = {}
        """By the identity of the group, which its candidates keep alive."""
        self._narrowed: OrderedDict[_Narrowing, Candidates] = OrderedDict()
        self._by_mask: OrderedDict[tuple[int, int], Candidates] = OrderedDict()
        """By the identity of the group, and the pods that are left of it (``label_index``)."""
        self._labels: dict[int, LabelIndex] = {}
        """By the identity of the group."""

    def pods_changed(self) -> None:
        """Drop all stored candidates."""
        self._whole.clear()
        self._narrowed.clear()
        self._by_mask.clear()
        self._labels.clear()

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
            return self._all_of(group)
        key = (id(group), pod_filter, subset)
        found = self._narrowed.get(key)
        if found is None:
            try:
                selector = None if pod_filter is None else _selector(pod_filter)
            except SelectorError as error:
                return Refused(Refusal.BAD_SELECTOR, detail=str(error))
            found = self._left_by(selector, subset, group)
            if found:
                _store(self._narrowed, key, found)
        else:
            self._narrowed.move_to_end(key)
        return found or Refused(Refusal.NONE_SELECTED)

    def _all_of(self, group: PodGroup) -> Candidates:
        whole = self._whole.get(id(group))
        if whole is None:
            whole = Candidates.of(group, self._waiting, self._fleet.prefixes, group)
            self._whole[id(group)] = whole
        return whole

    def _left_by(
        self, selector: Selector | None, subset: frozenset[str] | None, group: PodGroup
    ) -> Candidates:
        """Return the pods of a group that a filter and a subset leave, maybe none."""
        whole = self._all_of(group)
        labels = self._labels.get(id(group))
        if labels is None:
            labels = self._labels[id(group)] = LabelIndex(group)
        mask = labels.everyone
        if subset is not None:
            mask = mask_of(
                [bit for bit, each in enumerate(group) if _is_in(each.pod.address, subset)]
            )
        if selector is not None:
            mask &= labels.selected(selector)
        if mask == labels.everyone:
            return whole
        found = self._by_mask.get((id(group), mask))
        if found is None:
            pods = labels.pods(mask)
            found = Candidates.of(pods, self._waiting, self._fleet.prefixes, group)
            _store(self._by_mask, (id(group), mask), found)
        else:
            self._by_mask.move_to_end((id(group), mask))
        return found

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


def _store(stored: OrderedDict[_Key, Candidates], key: _Key, found: Candidates) -> None:
    if len(stored) >= _REMEMBERED:
        stored.popitem(last=False)
    stored[key] = found
