"""Base models that pods serve keep their names, whatever adapters are called.

Otherwise, whoever may declare an adapter could take all requests for a base model.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection

from lora_router.adapters.declared import MAX_DECLARED, DeclaredAdapter
from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.adapters")


class BaseNames:
    """The names of the base models of one fleet."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Create it without base models.

        Args:
            now: Returns seconds, monotonic.
        """
        self._pods: Counter[str] = Counter()
        """The number of pods that serve each."""
        self._told: set[tuple[str, str]] = set()
        self._limit = LogLimit(60.0, burst=20, clock=now)

    def change(self, before: Collection[str], after: Collection[str]) -> Collection[str]:
        """Take in the base models of a pod; return those that no other pod served, or serves.

        Args:
            before: What it served.
            after: What it serves now.
        """
        known = set(self._pods)
        self._pods.subtract(before)
        self._pods.update(after)
        for model in before:
            if self._pods[model] <= 0:
                del self._pods[model]
        return known ^ self._pods.keys()

    def keep(self, name: str, adapter: DeclaredAdapter) -> bool:
        """Return whether a name of an adapter stands for a base model. The first time is logged."""
        if name not in self._pods:
            return False
        pair = adapter.name, name
        if pair not in self._told and len(self._told) < MAX_DECLARED:
            is_told = self._limit.log(
                log,
                logging.WARNING,
                "base-model",
                "adapter %s, declared by %s: %s is a base model that pods serve, so requests for "
                "it get the base model; give the adapter another name",
                adapter.name,
                adapter.origin,
                "its name" if name == adapter.name else f"its alias {name}",
            )
            if is_told:
                self._told.add(pair)
        return True
