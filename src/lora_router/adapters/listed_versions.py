"""Which versions of which adapters the ready pods list.

Pods serve an adapter under its name, or under names of versions (``declared``). Many pods share one
list. What two lists do not have in common is computed once for all pods that change from one of
them to the other.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from lora_router.adapters.declared import plain_name
from lora_router.adapters.list_difference import ListDifference
from lora_router.fleet.catalog import EMPTY, Catalog
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState

Listener = Callable[[Iterable[ListDifference]], None]
"""Receives what changed in the lists of pods: for each pod, the difference of its list."""

_NONE: Mapping[str, int] = MappingProxyType({})


class ListedVersions:
    """The versions that the pods of one fleet list."""

    def __init__(self, fleet: Fleet) -> None:
        """Follow a fleet."""
        self._fleet = fleet
        self._versions: dict[str, dict[str, int]] = {}
        """By name of the adapter: its versions, each with the number of pods that list it."""
        self._seen: dict[PodState, Catalog] = {}
        self._difference = ListDifference.between(EMPTY, EMPTY)
        """The last one that was computed. It is often that of the next pod, too."""
        self._listeners: list[Listener] = []
        fleet.changes.pods.subscribe(self._pods_changed)
        self._pods_changed(tuple(fleet))

    @property
    def pods(self) -> int:
        """The number of pods whose lists are known."""
        return len(self._seen)

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener`` after each change of lists, and now with what they have already."""
        self._listeners.append(listener)
        listener([self._between(EMPTY, catalog) for catalog in self._seen.values()])

    def of(self, name: str) -> Mapping[str, int]:
        """Return the versions of an adapter, each with the number of pods that list it.

        Args:
            name: Its name. Pods that list it under this name, without a version, do not count.
        """
        return self._versions.get(name, _NONE)

    def has(self, name: str) -> bool:
        """Return whether a pod lists an adapter, in whatever version."""
        return name in self._versions or bool(self._fleet.serving(name).pods)

    def _pods_changed(self, states: Collection[PodState]) -> None:
        differences = []
        for state in states:
            is_there = self._fleet.get(state.pod.name) is state and state.pod.ready
            before, after = self._seen.get(state, EMPTY), state.catalog if is_there else EMPTY
            if is_there:
                self._seen[state] = after
            else:
                self._seen.pop(state, None)
            if after is not before:
                difference = self._between(before, after)
                differences.append(difference)
                for served in difference.versions:
                    self._count(served, 1 if served in after.adapters else -1)
        if differences:
            for listener in self._listeners:
                listener(differences)

    def _between(self, before: Catalog, after: Catalog) -> ListDifference:
        known = self._difference
        if known.before is not before or known.after is not after:
            self._difference = ListDifference.between(before, after)
        return self._difference

    def _count(self, served: str, more: int) -> None:
        """Count a version that one more pod lists, or one fewer."""
        name = plain_name(served)
        versions = self._versions.setdefault(name, {})
        versions[served] = versions.get(served, 0) + more
        if not versions[served]:
            del versions[served]
            if not versions:
                del self._versions[name]
