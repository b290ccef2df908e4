"""The models that pods serve. Pods that serve the same models share one catalog."""

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

BaseModels = frozenset[str]
"""The names of the base models that a pod serves. Most pods serve one."""
MAX_CATALOG_BYTES = 256 * 1024 * 1024
"""Approximate memory of the catalogs of all pods. A list that needs more is not stored."""
_Change = tuple[frozenset[str], tuple[str, str] | None]
_MOST_CHANGED = 64
"""By how many names a catalog may differ from its origin. One that differs by more is an origin."""
_NO_NAMES: frozenset[str] = frozenset()
_BYTES_PER_MODEL = 160
"""Memory of a model beside its name: the string's header and its place in a dictionary."""


class CatalogsFullError(Exception):
    """The catalogs of all pods together would need too much memory."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One entry of a pod's ``/v1/models``."""

    name: str
    base: str | None = None
    """The base model's name if this is an adapter (``parent`` in vLLM), else ``None``."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Catalog:
    """Base models and adapters. Pods that serve the same models have the same catalog object."""

    base_models: BaseModels
    adapters: Mapping[str, str | None]
    """The adapters, each with its base model's name if that is known."""
    fingerprint: int = 0
    """Equal for equal catalogs, and almost certainly different for others."""
    bytes: int = 0
    """Approximate memory."""
    origin: "ref[Catalog] | None" = None
    """The catalog that this one was made from by ``changed``, if it was."""
    changed_names: frozenset[str] = frozenset()
    """The adapters that only one of these two has."""

    @classmethod
    def of(cls, models: Iterable[ServedModel]) -> "Catalog":
        """Return a catalog of these models."""
        builder = CatalogBuilder()
        for model in models:
            builder.add(model.name, model.base)
        return builder.catalog()

    def changed(
        self, without: Collection[str], with_one: tuple[str, str] | None = None
    ) -> "Catalog":
        """Return this catalog without some adapters, and with one more.

        It is this one itself if that changes nothing. The models are copied as a whole, and not one
        after the other: that takes a hundredth of the time, and a loader changes many lists.

        Args:
            without: Names of adapters. Those that are not in it are ignored.
            with_one: The name and the base model of an adapter.
        """
        added = None if with_one is None else with_one[0]
        gone = [name for name in without if name in self.adapters and name != added]
        changed = set(gone)
        if with_one is not None and self.adapters.get(with_one[0]) == with_one[1]:
            with_one = None
        if not gone and with_one is None:
            return self
        known = self.adapters
        adapters = known.copy() if isinstance(known, dict) else dict(known)
        fingerprint, size = self.fingerprint, self.bytes
        for name in gone:
            fingerprint ^= hash((name, adapters.pop(name)))
            size -= len(name) + _BYTES_PER_MODEL
        if with_one is not None:
            name, base = with_one
            if name in adapters:
                fingerprint ^= hash((name, adapters[name]))
            else:
                size += len(name) + _BYTES_PER_MODEL
            if name not in known:
                changed.add(name)
            adapters[name] = base
            fingerprint ^= hash(with_one)
        return Catalog(self.base_models, adapters, fingerprint, size, *self._since(changed))

    def differing(self, other: "Catalog") -> Set[str]:
        """Return the adapters that only one of two catalogs has.

        If both were made from the same one, their lists are not compared.
        """
        (mine, names), (others, other_names) = self._root(), other._root()
        if mine is others:
            return names ^ other_names
        return self.adapters.keys() ^ other.adapters.keys()

    def _since(self, changed: Set[str]) -> "tuple[ref[Catalog], frozenset[str]]":
        """Return from which catalog one is made that differs from this one, and how it differs."""
        root, names = self._root()
        names = names ^ changed
        return (
            (ref(root), names) if len(names) <= _MOST_CHANGED else (ref(self), frozenset(changed))
        )

    def _root(self) -> "tuple[Catalog, frozenset[str]]":
        """Return the catalog from which this one was made, if it is in use, and how they differ."""
        root = None if self.origin is None else self.origin()
        return (self, _NO_NAMES) if root is None else (root, self.changed_names)

    def __contains__(self, model: str) -> bool:
        return model in self.adapters or model in self.base_models

    def __len__(self) -> int:
        return len(self.adapters) + len(self.base_models)


EMPTY = Catalog(frozenset(), MappingProxyType({}))


class CatalogBuilder:
    """Makes a catalog, one model after the other."""

    __slots__ = ("_adapters", "_base_models", "_bytes", "_fingerprint", "_parents")

    def __init__(self) -> None:
        self._base_models: set[str] = set()
        self._adapters: dict[str, str | None] = {}
        self._parents: dict[str, str] = {}
        """Each base model's name once. A decoded list contains a copy for every adapter."""
        self._fingerprint = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._adapters) + len(self._base_models)

    def add(self, name: str, base: str | None) -> None:
        """Add a base model, or an adapter with its base model. The last of several counts."""
        if base is None:
            if name in self._base_models:
                return
            self._base_models.add(name)
            self._bytes += len(name) + _BYTES_PER_MODEL
        else:
            base = self._parents.setdefault(base, base)
            before = self._adapters.get(name)
            if before is None:
                self._bytes += len(name) + _BYTES_PER_MODEL
            else:
                self._fingerprint ^= hash((name, before))
            self._adapters[name] = base
        self._fingerprint ^= hash((name, base))

    def catalog(self) -> Catalog:
        """Return the catalog. Nothing may be added afterwards."""
        return Catalog(frozenset(self._base_models), self._adapters, self._fingerprint, self._bytes)


class Catalogs:
    """All catalogs in use, without duplicates.

    Sharing them keeps a thousand pods with ten thousand adapters each within memory. They are
    referenced weakly here: a catalog that no pod uses any more is freed.
    """

    def __init__(self) -> None:
        self._known: WeakValueDictionary[int, Catalog] = WeakValueDictionary()
        self._known[EMPTY.fingerprint] = EMPTY
        self._last: tuple[tuple[str, ...], Catalog] = ((), EMPTY)
        """The last list of discovery. It is often that of the next pod, too."""

    def of_names(self, models: tuple[str, ...]) -> Catalog:
        """Return the catalog of a base model, which comes first, and its adapters."""
        if models != self._last[0]:
            builder, base = CatalogBuilder(), models[0]
            builder.add(base, None)
            for name in islice(models, 1, None):
                builder.add(name, base)
            self._last = models, self.of(builder.catalog())
        return self._last[1]

    def of(
        self, models: Catalog | Iterable[ServedModel], *, max_bytes: int | None = None
    ) -> Catalog:
        """Return the catalog of these models: an equal one that is in use, or a new one.

        Raises:
            CatalogsFullError: It is new, and all catalogs together would exceed ``max_bytes``.
        """
        catalog = models if isinstance(models, Catalog) else Catalog.of(models)
        known = self._known.get(catalog.fingerprint)
        if known is None:
            if max_bytes is not None:
                total = catalog.bytes + sum(each.bytes for each in self._known.values())
                if total > max_bytes:
                    raise CatalogsFullError(
                        f"the models of all pods would need more than {max_bytes} bytes"
                    )
            self._known[catalog.fingerprint] = catalog
        elif known is not catalog and (
            known.base_models == catalog.base_models and known.adapters == catalog.adapters
        ):
            return known
        return catalog


class ChangedCatalogs:
    """Catalogs that were made from others, so that pods whose lists change alike share one.

    They are referenced weakly, as in ``Catalogs``.
    """

    def __init__(self) -> None:
        self._found: WeakKeyDictionary[Catalog, WeakValueDictionary[_Change, Catalog]]
        self._found = WeakKeyDictionary()

    def of(
        self,
        catalog: Catalog,
        without: Collection[str],
        with_one: tuple[str, str] | None = None,
    ) -> Catalog:
        """Return ``catalog.changed(without, with_one)``: one that is in use, or a new one."""
        found = self._found.get(catalog)
        if found is None:
            found = self._found[catalog] = WeakValueDictionary()
        change = frozenset(without), with_one
        changed = found.get(change)
        if changed is None:
            changed = catalog.changed(without, with_one)
            if changed is not catalog:
                found[change] = changed
        return changed
