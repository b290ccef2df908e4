"""Names that mean two things: which they are, and which meaning counts.

- A base model on one pod and an adapter on another: it counts as an adapter, on all of them.
- An adapter of several base models: any of its pods gets its requests.
- An alias that pods also serve: it is rewritten.

Nobody can tell which one a client wants, so operators are warned, once for each name.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice

from lora_router.fleet.catalog import Catalog
from lora_router.fleet.fleet import Fleet

log = logging.getLogger("lora_router.fleet")

MAX_NAMES = 100_000
"""How many names of all lists are compared. It bounds the time to some tens of
milliseconds, after a change of pods."""
_SHOWN = 10
_MAX_LOGGED = 256

TWO_KINDS = "a base model on one pod and an adapter on another; it counts as an adapter"
TWO_PARENTS = "an adapter of several base models; any of its pods gets its requests"
SERVED_ALIAS = "rewritten by model_rewrites, although pods serve it; it is rewritten"


class AmbiguousNames:
    """The ambiguous names of a fleet, found again only after pods or aliases changed."""

    def __init__(self, fleet: Fleet, aliases: Callable[[], Mapping[str, Collection[str]]]) -> None:
        """Create it.

        Args:
            fleet: The pods.
            aliases: Returns the names that are rewritten, each with its targets.
        """
        self._fleet = fleet
        self._aliases = aliases
        self._seen: tuple[frozenset[Catalog], Mapping[str, Collection[str]]] | None = None
        self._found: dict[str, str] = {}
        self._logged: set[str] = set()

    def find(self) -> Mapping[str, str]:
        """Return the ambiguous names, each with what it means."""
        seen = self._fleet.catalogs(), self._aliases()
        if seen != self._seen:
            self._seen = seen
            self._found = _find(*seen)
            self._log()
        return self._found

    def count(self) -> int:
        """Return the number of ambiguous names."""
        return len(self.find())

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows: nothing, if no name is ambiguous."""
        found = self.find()
        if not found:
            return {}
        return {
            "ambiguous_models": len(found),
            "ambiguous": dict(islice(found.items(), _SHOWN)),
        }

    def _log(self) -> None:
        for name, meaning in self._found.items():
            if len(self._logged) >= _MAX_LOGGED:
                return
            if name not in self._logged:
                self._logged.add(name)
                log.warning("the model name %r is ambiguous: %s", name, meaning)


def _find(catalogs: Iterable[Catalog], aliases: Mapping[str, Collection[str]]) -> dict[str, str]:
    compared: list[Catalog] = []
    left = MAX_NAMES
    # The shortest lists first, so that as many as possible are compared.
    for catalog in sorted(catalogs, key=len):
        left -= len(catalog)
        if left < 0:
            break
        compared.append(catalog)
    found: dict[str, str] = {}
    for alias, targets in aliases.items():
        if alias not in targets and any(alias in catalog for catalog in compared):
            found[alias] = SERVED_ALIAS
    bases = frozenset[str]().union(*(catalog.base_models for catalog in compared))
    for catalog in compared:
        for name in bases & catalog.adapters.keys():
            found.setdefault(name, TWO_KINDS)
    for name in _with_two_parents([catalog.adapters for catalog in compared]):
        found.setdefault(name, TWO_PARENTS)
    return found


def _with_two_parents(lists: Iterable[Mapping[str, str | None]]) -> set[str]:
    """Return the adapters that have several base models.

    Almost always all adapters of a pod have the same one. So names are compared as sets.
    """
    parents = [(adapters, set(adapters.values())) for adapters in lists]
    if len(set[str | None]().union(*(each for _, each in parents))) < 2:
        return set()
    names: dict[str | None, set[str]] = {}
    for adapters, of_list in parents:
        if len(of_list) == 1:
            names.setdefault(of_list.pop(), set()).update(adapters)
            continue
        for name, parent in adapters.items():
            names.setdefault(parent, set()).add(name)
    several, seen = set[str](), set[str]()
    for of_parent in names.values():
        several |= of_parent & seen
        seen |= of_parent
    return several
