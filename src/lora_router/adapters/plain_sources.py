"""Finds out whether pods have loaded adapters without a version from where they are declared.

A declaration may have changed while no router ran, and an adapter may be on pods before somebody
declares it. Pods say in their lists from where they have loaded each adapter (``root``). Each
adapter is compared once, when a pod lists it first, or when it is declared: what this router has
loaded itself is right, even if a server writes the path in another way.

Where adapters are replaced in place, pods may differ, because a router may have ended in between.
There, each list is compared until one shows another source. Then each pod is told to load it that
this router has not told before.
"""

from lora_router.adapters.declarations import MAX_PLAIN, Declarations, is_same_source
from lora_router.adapters.declared import MAX_SOURCE_LENGTH


class PlainSources:
    """The sources of adapters that pods list under a name without a version."""

    def __init__(self, declarations: Declarations) -> None:
        """Create it.

        Args:
            declarations: Is told of adapters that pods have from elsewhere.
        """
        self._declarations = declarations
        self._compared: dict[str, None] = {}
        """The names that have been compared. Those of adapters that are gone leave if there are
        many: clients choose the names of templates."""

    def __contains__(self, name: str) -> bool:
        """Return whether it is to be found out from where pods have an adapter."""
        if name in self._compared:
            return False
        adapter = self._declarations.named(name)
        if adapter is None:
            return not self._declarations.knows_plain(name)
        return not adapter.version

    def found(self, name: str, root: str) -> None:
        """Note from where a pod says to have loaded an adapter."""
        if name not in self:
            return
        adapter = self._declarations.named(name)
        if adapter is None:
            if len(root) <= MAX_SOURCE_LENGTH:
                self._declarations.plain_is(name, root)
            return
        is_same = is_same_source(root, adapter.source)
        if not (is_same and self._declarations.in_place):
            self._note_compared(name)
        if not is_same:
            self._declarations.plain_is_other(name)

    def loaded(self, name: str) -> None:
        """Note that this router had an adapter loaded."""
        if self._declarations.in_place:
            return
        if self._declarations.named(name) is not None and name in self:
            self._note_compared(name)

    def _note_compared(self, name: str) -> None:
        self._compared[name] = None
        for _ in range(2 if len(self._compared) > MAX_PLAIN else 0):
            oldest = next(iter(self._compared))
            del self._compared[oldest]
            if self._declarations.named(oldest) is not None:
                self._compared[oldest] = None
