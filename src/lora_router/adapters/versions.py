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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from lora_router.adapters.base_names import BaseNames
from lora_router.adapters.declarations import Declarations, derived_version
from lora_router.adapters.declared import DeclaredAdapter, plain_name, served_name
from lora_router.adapters.list_difference import ListDifference
from lora_router.adapters.listed_versions import ListedVersions
from lora_router.clock import Clock
from lora_router.fleet.fleet import Fleet
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
        listed: ListedVersions | None = None,
        move_seconds: float = 0.0,
    ) -> None:
        """Follow the declarations, and what pods list.

        Args:
            declarations: The adapters.
            fleet: The pods.
            declare: Sets what a name stands for.
            clock: The time.
            listed: Knows which versions pods list; ``None``: one of its own.
            move_seconds: In how long requests move to a new version.
        """
        self._declarations = declarations
        self._fleet = fleet
        self._declare = declare
        self._clock = clock
        self._move_seconds = move_seconds
        self._rewritten: dict[str, _Rewritten] = {}
        """By name: what it and its aliases stand for, of those that stand for something."""
        self._listed = listed or ListedVersions(fleet)
        self._bases = BaseNames(clock.now)
        self._followed: set[str] = set()
        """The names that stand for something else than themselves, or soon may."""
        self._moves: dict[str, _Move] = {}
        self._quiet: dict[str, dict[str, float]] = {}
        """By name: since when old versions that pods list have got no requests, by served name."""
        self._due: OrderedDict[str, None] = OrderedDict()
        self._round: Iterator[str] = iter(())
        """The moves at which this round has not looked yet."""
        self._working = self._ticking = False
        self._started_at = clock.now()
        declarations.subscribe_to_names(self._look_at)
        self._listed.subscribe(self._lists_changed)

    def declared_as(self, served: str) -> DeclaredAdapter | None:
        """Return the adapter whose declared version pods serve under a name."""
        adapter = self._declarations.named(plain_name(served))
        return adapter if adapter is not None and adapter.served_name == served else None

    def others(self, served: str) -> Collection[str]:
        """Return the names under which pods may list other versions of an adapter."""
        name = plain_name(served)
        if self._declarations.named(name) is None:
            return ()
        return [other for other in (name, *self._listed.of(name)) if other != served]

    def may_leave(self, served: str) -> bool:
        """Return whether an older version gets no more requests, so that pods may unload it."""
        adapter = self._declarations.named(plain_name(served))
        if adapter is None or adapter.served_name == served:
            return True
        now, quiet = self._clock.now(), self._quiet.get(adapter.name, {})
        since = quiet.get(served)
        if since is None:
            return False
        if any(
            served in state.in_flight_adapters or served in state.beliefs.foreign_adapters
            for state in self._fleet.serving(served).pods
        ):
            quiet[served] = now
            return False
        return now >= since + QUIET_SECONDS

    def targets(self) -> Mapping[str, str]:
        """Return the served name of each adapter that stands for another name, by name."""
        return {name: rewritten.served for name, rewritten in self._rewritten.items()}

    # What changed

    def _lists_changed(self, differences: Iterable[ListDifference]) -> None:
        changed: set[str] = set()
        for different in differences:
            before, after = different.before, different.after
            changed |= different.names & self._followed
            if before.base_models != after.base_models:
                for model in self._bases.change(before.base_models, after.base_models):
                    adapter = self._declarations.get(model)
                    if adapter is not None:
                        changed.add(adapter.name)
            for name in map(plain_name, different.versions):
                if self._declarations.named(name) is not None:
                    changed.add(name)
        self._look_at(changed)

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
        return max(1, _AT_ONCE // (1 + self._listed.pods // _PODS_AT_ONCE))

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
        listed = self._listed.of(name)
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
        used = {target.model for target in targets}
        self._note_quiet(name, [other for other in others if other not in used])

    def _note_quiet(self, name: str, unused: Collection[str]) -> None:
        """Note which versions of an adapter get no requests.

        Others are forgotten: the declared one, those in use, and those that no pod lists any more.
        """
        now, before = self._clock.now(), self._quiet.pop(name, {})
        if unused:
            self._quiet[name] = {served: before.get(served, now) for served in unused}

    def _shares(self, name: str, adapter: DeclaredAdapter, others: list[str]) -> tuple[Target, ...]:
        """Return what requests for an adapter get."""
        served = adapter.served_name
        move = self._moves.get(name)
        if not others:
            self._moves.pop(name, None)
            return (Target(served),)
        if move is None or move.served != served or self._is_other(move.old, name, others):
            old, kept = self._old_of(name, others), self._declarations.kept(name)
            is_unused = old in self._quiet.get(name, {})
            is_over = move is None if kept is None else old != kept.served_name
            if is_over and is_unused and self._fleet.serving(served).pods:
                # Either the move is over, or what is left of the versions before a canary is one
                # that was given up.
                self._moves.pop(name, None)
                return (Target(served),)
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

    def _is_other(self, old: str, name: str, others: Collection[str]) -> bool:
        """Return whether another version than ``old`` is to get what the new one does not get."""
        kept = self._declarations.kept(name)
        if kept is not None and kept.served_name in others:
            return old != kept.served_name
        return old not in others

    def _old_of(self, name: str, others: Collection[str]) -> str:
        """Return the version that gets what the new one does not get.

        It is the one that was declared before the first of several canaries, and otherwise the one
        that gets most requests now. A router that was started knows neither, and takes one that is
        not known to get no requests, and that most pods serve.
        """
        kept, quiet = self._declarations.kept(name), self._quiet.get(name, {})
        targets = self._rewritten.get(name, _Rewritten(name)).targets or (Target(name),)
        weights = {target.model: target.weight for target in targets}

        def key(other: str) -> tuple[bool, int, bool, int, str]:
            is_kept = kept is not None and other == kept.served_name
            pods = len(self._fleet.serving(other).pods)
            return is_kept, weights.get(other, 0), other not in quiet, pods, other

        return max(others, key=key)

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
        if adapter.version or aliases or self._listed.of(name):
            self._followed.add(name)
        else:
            self._followed.discard(name)
        before = self._rewritten.get(name, _Rewritten(name))
        now = _Rewritten(adapter.served_name, aliases, () if is_itself else targets)
        # Also what this adapter has said before: another one may have had the name since then.
        self._declare(name, now.targets)
        for alias in aliases:
            self._declare(alias, targets)
        if now == before:
            return
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
        for each in (name, *before.aliases):
            self._release(each, name)
        self._quiet.pop(name, None)

    def _release(self, alias: str, name: str) -> None:
        """Let a name stand for itself, or for another adapter that has it now."""
        other = self._declarations.get(alias)
        if other is None or other.name == name or self._bases.keep(alias, other):
            self._declare(alias, ())
        else:
            self._due[other.name] = None
