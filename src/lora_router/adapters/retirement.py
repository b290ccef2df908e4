"""Adapters that pods still list and that are declared no longer: older versions, and removed ones.

Adapters that were never declared, from ``--lora-modules`` or loaded by hand, are not among them.
What was removed while no router ran is not known either.
"""

from collections.abc import Callable, Collection, Mapping

from lora_router.adapters.declarations import Declarations
from lora_router.adapters.declared import DeclaredAdapter, plain_name
from lora_router.adapters.demand import InheritedLoads
from lora_router.adapters.removed_names import RemovedNames
from lora_router.adapters.wanted_adapter import may_be_on
from lora_router.fleet.pod_state import PodState

_OLDER = 3
"""Older versions of one adapter of which the demand is known. Changes that follow each other
quickly make some that no pod ever loads."""


class Retirement:
    """Knows which served names were declared, and are not any more."""

    def __init__(self, declarations: Declarations, removed: RemovedNames) -> None:
        """Learn what is declared. ``changed`` follows it from then on.

        Args:
            declarations: The declared adapters.
            removed: Remembers which names were declared.
        """
        self._declarations = declarations
        self._removed = removed
        self._known: dict[str, DeclaredAdapter] = {}
        """The declared adapters by name."""
        self._kept: dict[str, DeclaredAdapter] = {}
        """The old versions that still get requests, by name."""
        self._older: dict[str, tuple[str, ...]] = {}
        """By name: older versions, the last one first, of which the demand is known."""
        self.declared: dict[str, DeclaredAdapter] = {}
        """The declared adapters by served name."""
        self.changed([adapter.name for adapter in declarations])

    def changed(self, names: Collection[str]) -> Mapping[str, str]:
        """Take in a change of some declarations, by name.

        Returns:
            The sources before, of adapters whose served name stayed the same and whose source did
            not.
        """
        replaced = {}
        for name in names:
            kept = self._kept.pop(name, None)
            if kept is not None:
                del self.declared[kept.served_name]
                self._removed.add(kept.served_name)
            before, now = self._known.pop(name, None), self._declarations.named(name)
            if before is not None and (now is None or now.served_name != before.served_name):
                self.declared.pop(before.served_name, None)
                self._removed.add(before.served_name)
                self.saw_older(before.served_name)
            elif before is not None and now is not None and now.source != before.source:
                replaced[now.served_name] = before.source
            if now is None:
                self._older.pop(name, None)
            else:
                self._known[name] = self.declared[now.served_name] = now
                self._removed.discard(now.served_name)
            kept = self._declarations.kept(name)
            if kept is not None:
                self._kept[name] = self.declared[kept.served_name] = kept
                self._removed.discard(kept.served_name)
        return replaced

    def saw_older(self, name: str) -> None:
        """Note that pods may have an older version of a declared adapter."""
        adapter = self.successor(name)
        if adapter is not None:
            older = self._older.get(adapter.name, ())
            if name not in older:
                self._older[adapter.name] = (name, *older[: _OLDER - 1])

    def with_older(self, loads: Mapping[str, float]) -> Mapping[str, float]:
        """Return loads by served name in which older versions count for the declared ones."""
        return InheritedLoads(loads, self.older_than) if self._older else loads

    def older_than(self, served: str) -> Collection[str]:
        """Return the older versions of a declared adapter of which the demand is known."""
        adapter = self.declared.get(served)
        if adapter is None or self._known.get(adapter.name) is not adapter:
            return ()
        older = self._older.get(adapter.name, ())
        return [each for each in older if each != served and each not in self.declared]

    def named(self, name: str) -> DeclaredAdapter | None:
        """Return the declared adapter of a name."""
        return self._known.get(name)

    def kept(self, name: str) -> DeclaredAdapter | None:
        """Return the version before the first of some canaries, by name, if it is known."""
        return self._kept.get(name)

    def remove(self, name: str) -> None:
        """Let pods no longer serve a name, although it was never declared."""
        self._removed.add(name)

    def is_outdated(self, name: str) -> bool:
        """Return whether pods should no longer serve a name."""
        if name in self.declared:
            return False
        return name in self._removed or self.successor(name) is not None

    def is_bound_elsewhere(self, name: str, state: PodState) -> bool:
        """Return whether an adapter must not stay on a pod on which it does not belong.

        Its declaration excludes the pod, or says how many copies there are. Otherwise a further
        copy does no harm, as long as there is room for it.
        """
        adapter = self.declared.get(name)
        return adapter is not None and (
            adapter.pods.copies is not None or not may_be_on(adapter, state)
        )

    def may_be_other(self, name: str) -> bool:
        """Return whether a pod may have another source of an adapter than the declared one.

        It was loaded by another router, or somebody else, and the source is known to have changed.
        """
        adapter = self.declared.get(name)
        return adapter is not None and self._declarations.may_be_other(adapter.name)

    def successor(self, name: str) -> DeclaredAdapter | None:
        """Return the declared adapter of which a name is an older version, or ``None``."""
        # Not by an alias: that may be the name of an adapter that was loaded by hand.
        adapter = self._declarations.named(plain_name(name))
        return None if adapter is None or adapter.served_name == name else adapter

    def may_make_room(self, name: str) -> bool:
        """Return whether the loader may unload a name for another one.

        It is declared and not pinned, or it was declared. An older version is as its successor.
        """
        adapter = self.declared.get(name) or self.successor(name)
        return name in self._removed if adapter is None else not adapter.pinned


MayLeave = Callable[[str], bool]
"""Returns whether no new requests are sent to an older version, by its served name."""
