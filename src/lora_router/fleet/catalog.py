"""The models that pods serve. Pods that serve the same models share one catalog."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One entry of a pod's ``/v1/models``."""

    name: str
    base: str | None = None
    """The base model's name if this is an adapter (``parent`` in vLLM), else ``None``."""


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """Base models and adapters. Pods that serve the same models have the same catalog object."""

    base_models: frozenset[str]
    adapters: Mapping[str, str | None]
    """The adapters, each with its base model's name if that is known."""

    def __contains__(self, model: str) -> bool:
        return model in self.adapters or model in self.base_models


EMPTY = Catalog(frozenset(), MappingProxyType({}))


class Catalogs:
    """All catalogs in use, without duplicates.

    Sharing them keeps a thousand pods with ten thousand adapters each within memory.
    """

    def __init__(self) -> None:
        self._known: list[Catalog] = [EMPTY]

    def of(self, models: Iterable[ServedModel]) -> Catalog:
        """Return the catalog of these models: an equal one that is in use, or a new one."""
        served = tuple(models)
        base_models = frozenset(model.name for model in served if model.base is None)
        adapters = {model.name: model.base for model in served if model.base is not None}
        for catalog in self._known:
            if catalog.base_models == base_models and catalog.adapters == adapters:
                return catalog
        catalog = Catalog(base_models, adapters)
        self._known.append(catalog)
        return catalog

    def keep(self, used: Iterable[Catalog]) -> None:
        """Drop all catalogs that are not in ``used``."""
        in_use = {id(catalog) for catalog in used}
        self._known = [
            catalog for catalog in self._known if catalog is EMPTY or id(catalog) in in_use
        ]
