"""Which version of an adapter a request gets, while a new one takes the place of an old one.

Rules:

- Clients ask by name or alias. Pods serve each version under a name of its own (``declared``). So a
  name stands for one version, or for two by weight.
- Requests go to the old version until enough pods serve the new one: as many as its declaration
  says, or else as serve the old one. After ``PATIENCE_SECONDS`` fewer are enough, since host memory
  may hold no more.
- Then the ``share`` of the new version goes to it, at once or little by little over
  ``move_seconds``. With a share of 100 nothing goes to the old version in the end.
- The old version may leave once it has got no requests for ``QUIET_SECONDS``, from any router:
  peers may read a changed declaration later.
- A base model that pods serve keeps its name: an adapter that is called so, or has it as an alias,
  is not reached by it.
- A router that is started sees from what pods list which versions there are. If they list two, it
  begins the move anew, with the declared ``share``: it does not know how far the last one was, and
  the lists of the pods arrive in any order. An adapter without a
  version in its declaration has one that is derived from its source, if pods list it so.

The pods' lists decide, so all routers come to the same result.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from lora_router.adapters.base_names import BaseNames
from lora_router.adapters.declarations import Declarations, derived_version
from lora_router.adapters.declared import VERSION_MARK, DeclaredAdapter, served_name
from lora_router.adapters.list_difference import ListDifference
from lora_router.clock import Clock
from lora_router.fleet.catalog import EMPTY, Catalog
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.routing.model_rewrites import Target

PATIENCE_SECONDS = 30.0
"""How long requests wait for more pods to serve the new version, once one does."""
STARTING_SECONDS = 30.0
"""How long after its start a router may not have read the lists of all pods. A lower value lets a
move jump to its end if a slow pod has the old version."""
QUIET_SECONDS = 5.0
TICK_SECONDS = 0.5
"""Time between two looks at versions that take the place of others."""
_AT_ONCE = 32
"""Adapters that are looked at in one turn of the event loop, of a small fleet."""
_PODS_AT_ONCE = 32
"""Pods that are looked at for one adapter in about the same time."""
_PAUSE_SECONDS = 0.005
"""Between two turns that look at moves."""

Declare = Callable[[str, tuple[Target, ...]], None]
"""Sets what a name stands for. No targets: itself."""


@dataclass(slots=True)
class _Move:
    """A new version that takes the place of an old one."""

    served: str
    """The name of the new one."""
    old: str
    """The name of the old one."""
    first_at: float | None = None
    """When a pod served the new one first."""
    began_at: float | None = None
    """When enough pods served it."""


class _Rewritten(NamedTuple):
    """What an adapter stands for."""

    served: str
    """The name of its declared version."""
    aliases: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()


class Versions:
    """The versions of all declared adapters, and what their names stand for."""

    def __init__(
        self,
        declarations: Declarations,
        fleet: Fleet,
        declare: Declare,
        clock: Clock,
        *,
        move_seconds: float = 0.0,
    ) -> None:
        """Follow the declarations, and what pods list.

        Args:
            declarations: The adapters.
            fleet: The pods.
            declare: Sets what a name stands for.
            clock: The time.
            move_seconds: In how long requests move to a new version.
        """
        self._declarations = declarations
        self._fleet = fleet
        self._declare = declare
        self._clock = clock
        self._move_seconds = move_seconds
        self._names: dict[str, str] = {}
        """By served name: the name of the adapter of which it is the declared version."""
        self._rewritten: dict[str, _Rewritten] = {}
        """By name: what it and its aliases stand for, of those that stand for something."""
        self._marked: dict[str, dict[str, int]] = {}
        """By name: the versions that pods list, each with the number of pods."""
        self._bases = BaseNames(clock.now)
        self._seen: dict[PodState, Catalog] = {}
        self._difference = ListDifference.between(EMPTY, EMPTY)
        """The last difference that was computed. Pods share lists, so it is often that of the next
        pod, too."""
        self._followed: set[str] = set()
        """The names that stand for something else than themselves, or soon may."""
        self._moves: dict[str, _Move] = {}
        self._quiet_since: dict[str, float] = {}
        """By served name: since when an old version has got no requests."""
        self._due: OrderedDict[str, None] = OrderedDict()
        self._round: Iterator[str] = iter(())
        """The moves at which this round has not looked yet."""
        self._working = self._ticking = False
        self._started_at = clock.now()
        declarations.subscribe_to_names(self._declared)
        fleet.changes.pods.subscribe(self._pods_changed)
        self._pods_changed(tuple(fleet))

    def declared_as(self, served: str) -> DeclaredAdapter | None:
        """Return the adapter whose declared version pods serve under a name."""
        name = self._names.get(served)
        adapter = None if name is None else self._declarations.named(name)
        return adapter if adapter is not None and adapter.served_name == served else None

    def others(self, served: str) -> Collection[str]:
        """Return the names under which pods may list other versions of an adapter."""
        name = self._names.get(served)
        if name is None:
            return ()
        return [other for other in (name, *self._marked.get(name, ())) if other != served]

    def may_leave(self, served: str) -> bool:
        """Return whether an older version gets no more requests, so that pods may unload it."""
        name = served.partition(VERSION_MARK)[0]
        if self._declarations.named(name) is None or self.declared_as(served) is not None:
            return True
        now = self._clock.now()
        since = self._quiet_since.get(served)
        if since is None:
            return False
        if any(
            served in state.in_flight_adapters or served in state.beliefs.foreign_adapters
            for state in self._fleet.serving(served).pods
        ):
            self._quiet_since[served] = now
            return False
        return now >= since + QUIET_SECONDS

    def targets(self) -> Mapping[str, str]:
        """Return the served name of each adapter that stands for another name, by name."""
        return {name: rewritten.served for name, rewritten in self._rewritten.items()}

    # What changed

    def _declared(self, names: Collection[str]) -> None:
        for name in names:
            adapter = self._declarations.named(name)
            if adapter is not None:
                self._names[adapter.served_name] = name
        self._look_at(names)

    def _pods_changed(self, states: Collection[PodState]) -> None:
        changed: set[str] = set()
        for state in states:
            is_there = self._fleet.get(state.pod.name) is state and state.pod.ready
            before, after = self._seen.get(state, EMPTY), state.catalog if is_there else EMPTY
            if after is before:
                continue
            if is_there:
                self._seen[state] = after
            else:
                del self._seen[state]
            different = self._difference
            if different.before is not before or different.after is not after:
                different = self._difference = ListDifference.between(before, after)
            changed |= different.names & self._followed
            if before.base_models != after.base_models:
                for model in self._bases.change(before.base_models, after.base_models):
                    adapter = self._declarations.get(model)
                    if adapter is not None:
                        changed.add(adapter.name)
            for served in different.versions:
                name = self._count(served, 1 if served in after.adapters else -1)
                if self._declarations.named(name) is not None:
                    changed.add(name)
        self._look_at(changed)

    def _count(self, served: str, more: int) -> str:
        """Count a version that a pod lists, or lists no longer. Return the adapter's name."""
        name = served.partition(VERSION_MARK)[0]
        versions = self._marked.setdefault(name, {})
        versions[served] = versions.get(served, 0) + more
        if not versions[served]:
            del versions[served]
            if not versions:
                del self._marked[name]
        return name

    def _look_at(self, names: Collection[str]) -> None:
        self._due.update(dict.fromkeys(names))
        if not self._working:
            self._work()

    def _work(self) -> None:
        self._working = True
        try:
            for _ in range(self._at_once()):
                if not self._due:
                    break
                self._settle(self._due.popitem(last=False)[0])
        finally:
            self._working = bool(self._due)
            if self._due:
                self._clock.call_later(0.0, self._work)
            elif self._moves and not self._ticking:
                self._ticking = True
                self._clock.call_later(TICK_SECONDS, self._tick)

    def _at_once(self) -> int:
        """Return how many adapters to look at in one turn."""
        return max(1, _AT_ONCE // (1 + len(self._seen) // _PODS_AT_ONCE))

    def _tick(self) -> None:
        self._round = iter(tuple(self._moves))
        self._go_round()

    def _go_round(self) -> None:
        """Look at the next moves. Of very many, a round takes longer than a tick."""
        at_once = self._at_once()
        names = tuple(islice(self._round, at_once))
        if len(names) == at_once:
            self._clock.call_later(_PAUSE_SECONDS, self._go_round)
        else:
            self._ticking = False
        self._look_at(names)

    # What a name stands for

    def _settle(self, name: str) -> None:
        adapter = self._declarations.named(name)
        if adapter is None:
            self._forget(name)
            return
        listed = self._marked.get(name, {})
        if not adapter.version and served_name(name, derived_version(adapter.source)) in listed:
            # A router before this one has seen that the source changed.
            self._declarations.plain_is_other(name)
            adapter = self._declarations.named(name) or adapter
        served = adapter.served_name
        others = [
            other
            for other in (name, *listed)
            if other != served and self._fleet.serving(other).pods
        ]
        if self._bases.keep(name, adapter):
            self._moves.pop(name, None)
            self._write(name, adapter, (Target(name),))
            return
        targets = self._shares(name, adapter, others)
        self._write(name, adapter, targets)
        now, used = self._clock.now(), {target.model for target in targets}
        for other in others:
            if other in used:
                self._quiet_since.pop(other, None)
            else:
                self._quiet_since.setdefault(other, now)

    def _shares(self, name: str, adapter: DeclaredAdapter, others: list[str]) -> tuple[Target, ...]:
        """Return what requests for an adapter get."""
        served = adapter.served_name
        move = self._moves.get(name)
        if not others:
            self._moves.pop(name, None)
            return (Target(served),)
        if move is None or move.served != served or move.old not in others:
            counts = {other: len(self._fleet.serving(other).pods) for other in others}
            kept = self._quiet_since
            old = max(others, key=lambda each: (each not in kept, counts[each], each))
            if move is None and old in kept and self._fleet.serving(served).pods:
                return (Target(served),)  # The move is over.
            began = None if move is None or move.served != served else move.began_at
            first = None if move is None or move.served != served else move.first_at
            if began is None and self._had_moved(name, served, move):
                began = float("-inf")
            move = self._moves[name] = _Move(served, old, first, began)
        now = self._clock.now()
        serving = len(self._fleet.serving(served).pods)
        if not serving:
            return (Target(move.old),)
        if move.first_at is None:
            move.first_at = now
        if move.began_at is None:
            if serving < self._enough(adapter, move.old) and now < move.first_at + PATIENCE_SECONDS:
                return (Target(move.old),)
            move.began_at = now
        progress = 1.0
        if self._move_seconds > 0:
            progress = min(1.0, (now - move.began_at) / self._move_seconds)
        weight = round(adapter.share * progress)
        if weight >= 100:
            del self._moves[name]
            return (Target(served),)
        return (Target(served, weight), Target(move.old, 100 - weight))

    def _had_moved(self, name: str, served: str, move: _Move | None) -> bool:
        """Return whether requests for an adapter had moved to a version before.

        Either it was the old one of a move that is taken back: a canary is to end at once. Or it
        was the only one that pods listed. Soon after the start, that says nothing: the router may
        not have read the lists of the pods yet that have the older one.
        """
        if not self._gets_requests(name, served):
            return False
        return move is not None or self._clock.now() >= self._started_at + STARTING_SECONDS

    def _gets_requests(self, name: str, served: str) -> bool:
        """Return whether requests for an adapter get a version now."""
        before = self._rewritten.get(name)
        return before is not None and any(target.model == served for target in before.targets)

    def _enough(self, adapter: DeclaredAdapter, old: str) -> int:
        """Return how many pods must serve a new version."""
        if adapter.pods.copies is not None:
            return adapter.pods.copies
        return len(self._fleet.serving(old).pods)

    def _write(self, name: str, adapter: DeclaredAdapter, targets: tuple[Target, ...]) -> None:
        is_itself = targets == (Target(name),)
        aliases = tuple(
            alias
            for alias in adapter.aliases
            if self._declarations.get(alias) is adapter and not self._bases.keep(alias, adapter)
        )
        if adapter.version or aliases or name in self._marked:
            self._followed.add(name)
        else:
            self._followed.discard(name)
        before = self._rewritten.get(name, _Rewritten(name))
        now = _Rewritten(adapter.served_name, aliases, () if is_itself else targets)
        if now == before:
            return
        self._declare(name, now.targets)
        for alias in aliases:
            self._declare(alias, targets)
        for alias in before.aliases:
            if alias not in aliases:
                self._release(alias, name)
        self._rewritten[name] = now
        if now == _Rewritten(name):
            del self._rewritten[name]

    def _forget(self, name: str) -> None:
        before = self._rewritten.pop(name, _Rewritten(name))
        self._moves.pop(name, None)
        self._followed.discard(name)
        self._declare(name, ())
        for alias in before.aliases:
            self._release(alias, name)
        for each in (name, before.served, *self._marked.get(name, ())):
            self._quiet_since.pop(each, None)
            if self._names.get(each) == name:
                del self._names[each]
        other = self._declarations.get(name)
        if other is not None:  # Another one has it as an alias.
            self._due[other.name] = None

    def _release(self, alias: str, name: str) -> None:
        """Let an alias stand for itself, or for the adapter that has it now."""
        other = self._declarations.get(alias)
        if other is None:
            self._declare(alias, ())
        elif other.name != name:
            self._due[other.name] = None
