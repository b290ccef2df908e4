"""The lists of all origins as one: which adapter has a name or an alias, and which have none.

Names and aliases are unique. Of two adapters that want one, the first has it.
"""

from dataclasses import dataclass

from lora_router.adapters.declared import MAX_DECLARED, DeclaredAdapter


@dataclass(frozen=True, slots=True)
class Problem:
    """A declaration that is not in use."""

    name: str
    origin: str
    reason: str
    """A sentence that names what is wrong and what is allowed."""


class Merged:
    """The lists of all origins, as one."""

    def __init__(self) -> None:
        self.by_name: dict[str, DeclaredAdapter] = {}
        self.by_alias: dict[str, DeclaredAdapter] = {}
        self.problems: list[Problem] = []

    def get(self, name: str) -> DeclaredAdapter | None:
        """Return the adapter that clients mean by a name or an alias."""
        return self.by_name.get(name) or self.by_alias.get(name)

    def why_not(self, adapter: DeclaredAdapter) -> Problem | None:
        """Return why an adapter cannot be added, or ``None``."""
        other = self.get(adapter.name)
        if other is not None:
            return double(adapter, adapter.name, other)
        if len(self.by_name) >= MAX_DECLARED:
            reason = f"more than {MAX_DECLARED} adapters are declared"
            return Problem(adapter.name, adapter.origin, reason)
        return None

    def put(self, adapter: DeclaredAdapter) -> None:
        """Add an adapter that can be added, and those of its aliases that are free."""
        self.by_name[adapter.name] = adapter
        for alias in adapter.aliases:
            other = self.get(alias)
            if other is None:
                self.by_alias[alias] = adapter
            elif other is not adapter:
                self.problems.append(double(adapter, alias, other))

    def has_other_aliases(self, adapter: DeclaredAdapter, before: "Merged") -> bool:
        """Return whether an adapter has other ones of its aliases than it had before."""
        return any(
            (self.by_alias.get(alias) is adapter) != (before.by_alias.get(alias) is adapter)
            for alias in adapter.aliases
        )

    def change(self, adapter: DeclaredAdapter, now: DeclaredAdapter) -> None:
        """Put an adapter in the place of one with the same name and aliases."""
        self.by_name[now.name] = now
        for alias in adapter.aliases:
            if self.by_alias.get(alias) is adapter:
                self.by_alias[alias] = now


def double(adapter: DeclaredAdapter, name: str, other: DeclaredAdapter) -> Problem:
    """Return that an adapter cannot have a name, because another one has it."""
    reason = f"{name!r} is declared already by {other.origin} as {other.name!r}"
    return Problem(adapter.name, adapter.origin, reason)
