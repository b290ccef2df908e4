"""All adapters that are declared, whoever declared them.

Rules:

- Each origin (the file, the resources of Kubernetes, commands) replaces its own list as a whole.
  Templates add adapters one by one.
- Names and aliases are unique over all origins. Of two adapters with the same name, the one of the
  earlier origin counts, by the order of ``ORIGINS``. The other one is a problem, which is reported.
- An adapter without a version whose source changes gets a version that is derived from the source,
  so that it can be loaded beside the old one (``versions``).
- While a new version gets only a share of the requests, the old one is kept, so that the loader
  goes on to load it where its requests need it. A router that is started does not know it.
- If adapters are replaced in place, none has a version.
- Listeners are called after each change, synchronously.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lora_router.adapters.declared import MAX_DECLARED, DeclaredAdapter

ORIGINS = ("file", "kubernetes", "command", "template")
"""Who may declare adapters, in order of precedence."""
_DERIVED_BYTES = 4


@dataclass(frozen=True, slots=True)
class Problem:
    """A declaration that is not in use."""

    name: str
    origin: str
    reason: str
    """A sentence that names what is wrong and what is allowed."""


class Declarations:
    """The adapters of one fleet that are declared."""

    def __init__(self, *, in_place: bool = False) -> None:
        """Create it without adapters.

        Args:
            in_place: Whether a pod replaces an adapter by its new version, under the same name.
        """
        self._in_place = in_place
        self._lists: dict[str, tuple[DeclaredAdapter, ...]] = {}
        self._added: dict[str, dict[str, DeclaredAdapter]] = {}
        """By origin and name: those that were added one by one."""
        self._by_name: dict[str, DeclaredAdapter] = {}
        self._by_alias: dict[str, DeclaredAdapter] = {}
        self._plain: dict[str, str | None] = {}
        """By name: the source that pods have under the name without a version; ``None``: another
        one than any that is declared now. The names of adapters that are gone are kept, too."""
        self._kept: dict[str, DeclaredAdapter] = {}
        """By name: the old version of an adapter whose new one gets only a share."""
        self._listeners: list[Callable[[], None]] = []
        self._listeners_by_name: list[Callable[[Collection[str]], None]] = []
        self.problems: Sequence[Problem] = ()
        """Declarations that are not in use, because another one has their name."""

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name or name in self._by_alias

    def __iter__(self) -> Iterator[DeclaredAdapter]:
        return iter(self._by_name.values())

    def kept(self, name: str) -> DeclaredAdapter | None:
        """Return the old version of an adapter, if the new one gets only a share."""
        return self._kept.get(name)

    def get(self, name: str) -> DeclaredAdapter | None:
        """Return the adapter that clients mean by a name or an alias."""
        return self._by_name.get(name) or self._by_alias.get(name)

    def named(self, name: str) -> DeclaredAdapter | None:
        """Return the adapter that has a name, not as an alias."""
        return self._by_name.get(name)

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each change."""
        self._listeners.append(listener)

    def subscribe_to_names(self, listener: Callable[[Collection[str]], None]) -> None:
        """Call ``listener`` after each change, before the others, with the names that changed."""
        self._listeners_by_name.append(listener)

    def replace(self, origin: str, adapters: Iterable[DeclaredAdapter]) -> None:
        """Replace all that one origin declares.

        Args:
            origin: One of ``ORIGINS``.
            adapters: All of them, in order, without those that were added.
        """
        self._lists[origin] = tuple(adapters)
        self._merge()

    def add(self, origin: str, adapter: DeclaredAdapter) -> bool:
        """Declare one more adapter; return whether it is in use.

        It costs the same however many there are, unless it replaces another one.
        """
        of_origin = self._added.setdefault(origin, {})
        name = adapter.name
        if name in of_origin:
            of_origin[name] = adapter
            self._merge()
        elif self.get(name) is None and len(self) < MAX_DECLARED and not adapter.aliases:
            of_origin[name] = adapter
            self._by_name[name] = self._versioned(adapter)
            self._tell((name,))
        else:
            return False
        return True

    def replace_added(self, origin: str, adapters: Iterable[DeclaredAdapter]) -> None:
        """Replace all adapters that were added one by one."""
        found = {adapter.name: adapter for adapter in adapters}
        if self._added.get(origin, {}) != found:
            self._added[origin] = found
            self._merge()

    def discard(self, origin: str, name: str) -> None:
        """Withdraw one adapter that was added."""
        adapter = self._added.get(origin, {}).pop(name, None)
        if adapter is None:
            return
        used = self._by_name.get(name)
        if used is not None and used.origin == adapter.origin and not used.aliases:
            del self._by_name[name]
            self._tell((name,))
        else:
            self._merge()

    def plain_is_other(self, name: str) -> None:
        """Note that pods have another source under a name without a version.

        Then the adapter gets a version that is derived from its source.
        """
        adapter = self._by_name.get(name)
        if adapter is not None and not self._in_place and not adapter.version:
            self._plain[name] = None
            self._by_name[name] = self._versioned(adapter)
            for alias in adapter.aliases:
                if self._by_alias.get(alias) is adapter:
                    self._by_alias[alias] = self._by_name[name]
            self._tell((name,))

    def _versioned(self, adapter: DeclaredAdapter) -> DeclaredAdapter:
        """Return an adapter with the version under which pods serve it."""
        if self._in_place:
            return replace(adapter, version="") if adapter.version else adapter
        if adapter.version:
            return adapter
        plain = self._plain.setdefault(adapter.name, adapter.source)
        if plain == adapter.source:
            return adapter
        return replace(adapter, version=derived_version(adapter.source))

    def _keep(self, before: DeclaredAdapter | None, now: DeclaredAdapter) -> None:
        """Keep the version before a new one that gets only a share, or drop it."""
        kept = self._kept.pop(now.name, None)
        if before is None or now.share >= 100:
            return
        # Of two shares in a row, the version before the first one still gets most requests.
        old = before if kept is None else kept
        if old.served_name != now.served_name and old.base_model == now.base_model:
            self._kept[now.name] = old

    def _merge(self) -> None:
        before = self._by_name
        by_name: dict[str, DeclaredAdapter] = {}
        by_alias: dict[str, DeclaredAdapter] = {}
        problems: list[Problem] = []
        changed: set[str] = set()
        for origin in ORIGINS:
            added = self._added.get(origin, {}).values()
            for declared in (*self._lists.get(origin, ()), *added):
                name = declared.name
                other = by_name.get(name) or by_alias.get(name)
                if other is not None:
                    problems.append(_double(declared, name, other))
                elif len(by_name) >= MAX_DECLARED:
                    reason = f"more than {MAX_DECLARED} adapters are declared"
                    problems.append(Problem(name, declared.origin, reason))
                else:
                    adapter = self._versioned(declared)
                    was = before.get(name)
                    # Most are the same objects: to compare their fields takes much longer.
                    if was is not None and (was is adapter or was == adapter):
                        adapter = was
                    else:
                        changed.add(name)
                        self._keep(was, adapter)
                    by_name[name] = adapter
                    problems += _add_aliases(adapter, by_name, by_alias)
        self._by_name, self._by_alias = by_name, by_alias
        self.problems = tuple(problems)
        while len(self._plain) > 2 * MAX_DECLARED:
            del self._plain[next(name for name in self._plain if name not in by_name)]
        gone = before.keys() - by_name.keys()
        for name in gone & self._kept.keys():
            del self._kept[name]
        changed |= gone
        if changed:
            self._tell(changed)

    def _tell(self, names: Collection[str]) -> None:
        for by_name in self._listeners_by_name:
            by_name(names)
        for listener in self._listeners:
            listener()


def derived_version(source: str) -> str:
    """Return the version of an adapter that is declared without one: 8 hexadecimal digits."""
    return hashlib.blake2b(source.encode(), digest_size=_DERIVED_BYTES).hexdigest()


def _add_aliases(
    adapter: DeclaredAdapter,
    by_name: Mapping[str, DeclaredAdapter],
    by_alias: dict[str, DeclaredAdapter],
) -> Iterator[Problem]:
    """Add the aliases that are free, and yield the others as problems."""
    for alias in adapter.aliases:
        other = by_name.get(alias) or by_alias.get(alias)
        if other is None:
            by_alias[alias] = adapter
        elif other is not adapter:
            yield _double(adapter, alias, other)


def _double(adapter: DeclaredAdapter, name: str, other: DeclaredAdapter) -> Problem:
    reason = f"{name!r} is declared already by {other.origin} as {other.name!r}"
    return Problem(adapter.name, adapter.origin, reason)
