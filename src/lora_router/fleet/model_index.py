"""Which ready pods serve each model.

The index is dropped whenever pods or their models change, and is rebuilt on demand. A request
therefore costs one lookup instead of a walk over the fleet. Models of the same catalogs share one
group of pods.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from lora_router.fleet.catalog import Catalog
from lora_router.fleet.doubts import Doubts
from lora_router.fleet.index import FleetIndex
from lora_router.fleet.pod_group import PodGroup


@dataclass(frozen=True, slots=True)
class ModelPods:
    """The ready pods that serve a model."""

    model: str
    """The model's name. Every lookup returns this same string object, so that dictionary lookups by
    it compare by identity."""
    pods: PodGroup
    is_adapter: bool
    excluded: bool = False
    """Whether these pods are excluded because they fail. Others do not serve the model."""
    unlisted: bool = False
    """Whether no pod lists the model. These pods may load it."""


class ModelIndex:
    """The pods of each model that was looked up since pods or models changed."""

    def __init__(
        self,
        ready: Callable[[], PodGroup],
        in_use: Callable[[], PodGroup],
        doubts: Doubts,
        fleet_index: FleetIndex,
    ) -> None:
        """Create an index that has looked nothing up.

        Args:
            ready: Returns all ready pods.
            in_use: Returns the ready pods without those that are excluded because they fail.
            doubts: Knows which pods should not be asked for a model that they list.
            fleet_index: The fleet's index of pods, for the groups.
        """
        self._ready = ready
        self._in_use = in_use
        self._doubts = doubts
        self._fleet_index = fleet_index
        self.found: dict[str, ModelPods] = {}
        """The pods by model. It stays the same object."""
        self._groups: dict[tuple[int, ...], PodGroup] = {}
        """By the identities of the catalogs of the pods in them."""
        self._catalogs: tuple[Catalog, ...] | None = None
        self.generation = 0
        """Grows whenever the pods of models may be others."""

    def begin_again(self) -> None:
        """Forget everything that was found, because pods or their models changed."""
        self.use_others()
        self._catalogs = None

    def use_others(self) -> None:
        """Forget everything that was found, because other pods are in use. Catalogs stay."""
        self.generation += 1
        self.found.clear()
        self._groups.clear()

    def forget(self, model: str) -> None:
        """Forget the pods of one model, because the doubts about it changed."""
        self.generation += 1
        self.found.pop(model, None)

    def pods_of(self, model: str) -> PodGroup:
        """Return the pods that serve a model."""
        found = self.found.get(model)
        return self.find(model).pods if found is None else found.pods

    def find(self, model: str) -> ModelPods:
        """Find the pods that serve a model, and store them in ``found``.

        They are the pods in use; if none of those serves the model, the excluded ones.
        """
        catalogs = [each for each in self.catalogs() if model in each]
        is_adapter = any(model in catalog.adapters for catalog in catalogs)
        key = tuple(id(catalog) for catalog in catalogs)
        group = self._groups.get(key)
        if group is None:
            group = self._group_of(key)
            if group:
                self._groups[key] = group
        doubted = self._doubts.about(model)
        if doubted:
            pods = [state for state in group if state not in doubted]
            if pods and len(pods) < len(group):
                group = PodGroup.of(pods, self._fleet_index, is_everyone=False)
        excluded = bool(group) and group[0] not in self._in_use().members
        found = ModelPods(model, group, is_adapter, excluded)
        # Unknown names are not stored: clients choose them, so they would grow without bound.
        if group:
            self.found[model] = found
        return found

    def names(self) -> set[str]:
        """Return the names of all models that at least one ready pod serves."""
        return {name for each in self.catalogs() for name in (*each.base_models, *each.adapters)}

    def catalogs(self) -> Collection[Catalog]:
        """Return the catalogs of the ready pods, each once."""
        if self._catalogs is None:
            found = {id(state.catalog): state.catalog for state in self._ready()}
            self._catalogs = tuple(found.values())
        return self._catalogs

    def _group_of(self, catalogs: Collection[int]) -> PodGroup:
        """Return the pods that serve one of some catalogs: those in use, else all ready ones."""
        in_use = self._in_use()
        if len(catalogs) == len(self.catalogs()):
            return in_use  # All pods serve it.
        pods = [state for state in in_use if id(state.catalog) in catalogs]
        if pods or in_use is self._ready():
            everyone = len(pods) == len(in_use)
            return PodGroup.of(pods, self._fleet_index, is_everyone=everyone)
        pods = [state for state in self._ready() if id(state.catalog) in catalogs]
        return PodGroup.of(pods, self._fleet_index, is_everyone=False)
