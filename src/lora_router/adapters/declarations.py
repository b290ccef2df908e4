"""All adapters that are declared, whoever declared them.

Rules:

- Each origin (the file, the resources of Kubernetes, commands) replaces its own list as a whole.
  Templates and commands add adapters one by one.
- Names and aliases are unique over all origins. Of two adapters with the same name, the one of the
  earlier origin counts, by the order of ``ORIGINS``. The other one is a problem, which is reported.
- An adapter without a version whose source changes gets a version that is derived from the source,
  so that it can be loaded beside the old one (``versions``).
- While a new version gets only a share of the requests, the old one is kept, so that the loader
  goes on to load it where its requests need it. A router that is started does not know it.
- If adapters are replaced in place, none has a version. It is known whether pods may have another
  source than the declared one.
- Whatever grows with the number of adapters is done in steps. All of a new list is in use at the
  same moment. Listeners are called after it, with some names in each step.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from lora_router.adapters.declared import MAX_DECLARED, DeclaredAdapter
from lora_router.adapters.merged_lists import Merged, Problem
from lora_router.steps import Steps, all_at_once

ORIGINS = ("file", "kubernetes", "command", "template")
"""Who may declare adapters, in order of precedence."""
NAMES_AT_ONCE = 64
"""Names of which listeners hear in one step."""
_MERGED_AT_ONCE = 512
MAX_PLAIN = 2 * MAX_DECLARED
"""Names of which it is remembered from where pods have them. Clients choose those of templates."""
_DERIVED_BYTES = 4


class Declarations:
    """The adapters of one fleet that are declared."""

    def __init__(self, *, in_place: bool = False) -> None:
        """Create it without adapters.

        Args:
            in_place: Whether a pod replaces an adapter by its new version, under the same name.
        """
        self.in_place = in_place
        """Whether a pod replaces an adapter by its new version."""
        self._lists: dict[str, tuple[DeclaredAdapter, ...]] = {}
        self._added: dict[str, dict[str, DeclaredAdapter]] = {}
        """By origin and name: those that were added one by one."""
        self._used = Merged()
        self._plain: OrderedDict[str, str | None] = OrderedDict()
        """By name: the source that pods have under the name without a version; ``None``: another
        one than any that is declared now. Also names of adapters that are gone, and of those that
        pods list and nobody has declared yet."""
        self._kept: dict[str, DeclaredAdapter] = {}
        """By name: the old version of an adapter whose new one gets only a share."""
        self._merges = 0
        """How many merges have begun. Only the last one is of use: it has all lists."""
        self._teller = 0
        """The merge that tells listeners. While its names are noted, no earlier one may tell them:
        they are not in use yet."""
        self._late: dict[str, None] | None = None
        """Names that were changed one by one while lists are merged; ``None``: none are."""
        self._untold: OrderedDict[str, DeclaredAdapter | None] = OrderedDict()
        """By name: what listeners know of those of which they have not heard yet."""
        self._listeners: list[Callable[[], None]] = []
        self._listeners_by_name: list[Callable[[Collection[str]], None]] = []
        self.problems: Sequence[Problem] = ()
        """Declarations that are not in use, because another one has their name."""

    def __len__(self) -> int:
        return len(self._used.by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._used.by_name or name in self._used.by_alias

    def __iter__(self) -> Iterator[DeclaredAdapter]:
        return iter(self._used.by_name.values())

    @property
    def is_telling(self) -> bool:
        """Whether listeners have not heard yet of all that changed."""
        return bool(self._untold)

    def kept(self, name: str) -> DeclaredAdapter | None:
        """Return the old version of an adapter, if the new one gets only a share."""
        return self._kept.get(name)

    def get(self, name: str) -> DeclaredAdapter | None:
        """Return the adapter that clients mean by a name or an alias."""
        return self._used.get(name)

    def named(self, name: str) -> DeclaredAdapter | None:
        """Return the adapter that has a name, not as an alias."""
        return self._used.by_name.get(name)

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each change, when all have heard of all names."""
        self._listeners.append(listener)

    def subscribe_to_names(self, listener: Callable[[Collection[str]], None]) -> None:
        """Call ``listener`` after each change with the names that changed.

        Of a long list, it is called several times, with up to ``NAMES_AT_ONCE`` names.
        """
        self._listeners_by_name.append(listener)

    def replace(self, origin: str, adapters: Iterable[DeclaredAdapter]) -> None:
        """Replace all that one origin declares, at once: for short lists, and for tests.

        Args:
            origin: One of ``ORIGINS``.
            adapters: All of them, in order, without those that were added.
        """
        all_at_once(self.replace_in_steps(origin, adapters))

    def replace_in_steps(self, origin: str, adapters: Iterable[DeclaredAdapter]) -> Steps[None]:
        """Replace all that one origin declares. The arguments are those of ``replace``."""
        self._lists[origin] = tuple(adapters)
        yield from self._merge()

    def add(self, origin: str, adapter: DeclaredAdapter) -> bool:
        """Declare one more adapter, or another one of its name; return whether it is in use.

        It costs the same however many there are.
        """
        of_origin, name = self._added.setdefault(origin, {}), adapter.name
        before, used = of_origin.get(name), self._used.by_name.get(name)
        if adapter.aliases or (before is None and self._used.why_not(adapter) is not None):
            return False
        of_origin[name] = adapter
        self._changed_late(name)
        if before is None or (used is not None and used.origin == before.origin):
            self._used.by_name[name] = self._versioned(adapter)
            self._changed_one(name, used)
            return True
        return False

    def replace_added(self, origin: str, adapters: Iterable[DeclaredAdapter]) -> Steps[None]:
        """Replace all adapters that were added one by one, in steps."""
        found = {adapter.name: adapter for adapter in adapters}
        if found or self._added.get(origin):
            self._added[origin] = found
            yield from self._merge()

    def discard(self, origin: str, name: str) -> bool:
        """Withdraw one adapter that was added; return whether there was one."""
        adapter = self._added.get(origin, {}).pop(name, None)
        used = self._used.by_name.get(name)
        if adapter is None:
            return False
        self._changed_late(name)
        if used is None or used.origin != adapter.origin:
            mine = (name, adapter.origin)
            self.problems = [each for each in self.problems if (each.name, each.origin) != mine]
            return True
        del self._used.by_name[name]
        self._take_added(self._used, name)
        self._changed_one(name, used)
        return True

    def knows_plain(self, name: str) -> bool:
        """Return whether it is known what pods have under a name without a version."""
        return name in self._plain

    def may_be_other(self, name: str) -> bool:
        """Return whether pods may have another source of an adapter that is replaced in place."""
        return self._plain.get(name, "") is None

    def plain_is(self, name: str, source: str) -> None:
        """Note what pods have under a name that nobody has declared."""
        self._plain.setdefault(name, source)
        self._forget_plain()

    def forget_plain(self, name: str) -> None:
        """Forget what pods had under a name that is declared no longer: none has it any more.

        If it is declared again, it needs no version, wherever it is loaded from then.
        """
        if name not in self._used.by_name:
            self._plain.pop(name, None)

    def plain_is_other(self, name: str) -> None:
        """Note that pods have another source under a name without a version.

        Then the adapter gets a version that is derived from its source, or is replaced in place.
        """
        adapter = self._used.by_name.get(name)
        is_known = self.in_place and self.may_be_other(name)
        if adapter is not None and not adapter.version and not is_known:
            self._tell([name] if name in self._untold else ())
            self._plain[name] = None
            self._used.change(adapter, self._versioned(adapter))
            # What pods have is not what was declared before: it is not kept.
            self._changed_one(name, None)

    def _changed_late(self, name: str) -> None:
        """Note a name that was changed one by one: a merge under way may have passed it."""
        if self._late is not None:
            self._late[name] = None

    def _changed_one(self, name: str, was: DeclaredAdapter | None) -> None:
        self._changed_late(name)
        self._untold.setdefault(name, was)
        self._tell([name])

    def _versioned(self, adapter: DeclaredAdapter) -> DeclaredAdapter:
        """Return an adapter with the version under which pods serve it."""
        if self.in_place:
            plain = self._plain.setdefault(adapter.name, adapter.source)
            if plain is not None and not is_same_source(plain, adapter.source):
                self._plain[adapter.name] = None
            self._forget_plain()
            return replace(adapter, version="") if adapter.version else adapter
        if adapter.version:
            return adapter
        plain = self._plain.setdefault(adapter.name, adapter.source)
        if plain is not None and is_same_source(plain, adapter.source):
            self._forget_plain()
            return adapter
        return replace(adapter, version=derived_version(adapter.source))

    def _forget_plain(self) -> None:
        """Forget the sources of names that are gone, if there are many: some at a time."""
        for _ in range(2 if len(self._plain) > MAX_PLAIN else 0):
            name, source = self._plain.popitem(last=False)
            if name in self._used.by_name:
                self._plain[name] = source

    def _keep(self, before: DeclaredAdapter | None, now: DeclaredAdapter) -> None:
        """Keep the version before a new one that gets only a share, or drop it."""
        if before is None:
            return
        kept = self._kept.pop(now.name, None)
        if now.share >= 100:
            return
        # Of two shares in a row, the version before the first one still gets most requests.
        old = before if kept is None else kept
        if old.served_name != now.served_name and old.base_model == now.base_model:
            self._kept[now.name] = old

    # All lists

    def _merge(self) -> Steps[None]:
        self._merges += 1
        number, self._late = self._merges, {}
        merged = Merged()
        changed: dict[str, None] = {}
        before = self._used.by_name
        for count, declared in enumerate(self._all(), 1):
            problem = merged.why_not(declared)
            if problem is None:
                adapter, was = self._versioned(declared), before.get(declared.name)
                # Most are the same objects: to compare their fields takes much longer.
                if was is not None and (was is adapter or was == adapter):
                    adapter = was
                else:
                    changed[declared.name] = None
                merged.put(adapter)
                if adapter.aliases and merged.has_other_aliases(adapter, self._used):
                    changed[declared.name] = None
            else:
                merged.problems.append(problem)
            if count % _MERGED_AT_ONCE == 0:
                yield
                if number != self._merges:
                    return
        is_used = yield from self._use(merged, changed, number)
        if is_used:
            yield from self._tell_in_steps(number)

    def _all(self) -> Iterator[DeclaredAdapter]:
        for origin in ORIGINS:
            yield from self._lists.get(origin, ())
            yield from tuple(self._added.get(origin, {}).values())

    def _use(self, merged: Merged, changed: Collection[str], number: int) -> Steps[bool]:
        """Use the merged lists from one moment on. Return whether they are of use."""
        self._teller = number
        before = self._used.by_name
        gone = before.keys() - merged.by_name.keys()
        for count, name in enumerate((*changed, *gone), 1):
            self._untold.setdefault(name, before.get(name))
            if count % _MERGED_AT_ONCE == 0:
                yield
                if number != self._merges:
                    return False
        for name in self._late or ():
            self._untold.setdefault(name, before.get(name))
            self._take_late(merged, name)
        self._used, self._late = merged, None
        self.problems = tuple(merged.problems)
        return True

    def _take_late(self, merged: Merged, name: str) -> None:
        """Take in a name that was changed while the lists were merged."""
        found = merged.by_name.get(name)
        if found is not None and found.origin in self._added:
            if name not in self._added[found.origin]:
                del merged.by_name[name]
        elif found is not None and not found.version:
            merged.change(found, self._versioned(found))
        self._take_added(merged, name)

    def _take_added(self, merged: Merged, name: str) -> None:
        """Use what was added under a name, if nothing takes precedence."""
        for origin in ORIGINS:
            adapter = self._added.get(origin, {}).get(name)
            if adapter is not None:
                found = merged.by_name.get(name)
                if found is None and merged.why_not(adapter) is None:
                    merged.put(self._versioned(adapter))
                elif found is not None and found.origin == adapter.origin:
                    merged.by_name[name] = self._versioned(adapter)
                return

    def _tell_in_steps(self, number: int) -> Steps[None]:
        while self._untold and number == self._teller:
            self._tell(tuple(islice(self._untold, NAMES_AT_ONCE)))
            yield

    def _tell(self, names: Collection[str]) -> None:
        for name in names:
            was, now = self._untold.pop(name), self._used.by_name.get(name)
            if now is None:
                self._kept.pop(name, None)
            else:
                self._keep(was, now)
        if names:
            for by_name in self._listeners_by_name:
                by_name(names)
        if names and not self._untold:
            for listener in self._listeners:
                listener()


def is_same_source(one: str, other: str) -> bool:
    """Return whether two paths or URLs name the same source."""
    return one.rstrip("/") == other.rstrip("/")


def derived_version(source: str) -> str:
    """Return the version of an adapter that is declared without one: 8 hexadecimal digits."""
    return hashlib.blake2b(source.encode(), digest_size=_DERIVED_BYTES).hexdigest()
