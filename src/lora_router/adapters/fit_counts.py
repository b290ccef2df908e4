"""How many pods an adapter may be loaded on, and why none has a place for it."""

from collections.abc import Callable
from dataclasses import dataclass

from lora_router.adapters.declared import DeclaredAdapter, WantedPods
from lora_router.counted import counted
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState

_MAX_COUNTED = 1024
"""Kinds of declarations whose pods stay counted."""


@dataclass(frozen=True, slots=True)
class FitCount:
    """The pods on which an adapter may be loaded."""

    serving: int = 0
    """Ready pods that serve its base model."""
    fit: int = 0
    """Those of them that its declaration admits."""
    blocked: int = 0
    """Those of these that take no loads at all."""
    blocked_reason: str = ""
    """Which one of them does not, and why: ``ml/a: there is no such call``."""
    unread: int = 0
    """Ready pods whose list has not been read, so that it is unknown what they serve."""

    def why_nowhere(self) -> str:
        """Return why the adapter has a place on none of them, in words."""
        if not self.serving and self.unread:
            pods = counted(self.unread, "ready pod")
            return f"the list of {pods} has not been read yet, and no other serves its base model"
        if not self.serving:
            return "no ready pod serves its base model"
        if not self.fit:
            pods = counted(self.serving, "ready pod")
            found = f"its labels or its namespace match none of {pods} of its base model"
            if self.unread:
                found += f"; the list of {counted(self.unread, 'more ready pod')} has not been read"
            return found
        if self.blocked == self.fit:
            return f"no matching pod takes loads ({self.fit} match): {self.blocked_reason}"
        return f"no matching pod has a place for it now ({self.fit} match)"


NO_PODS = FitCount()


class FitCounts:
    """Counts pods once for all adapters that are declared alike."""

    def __init__(self, fleet: Fleet, blocked: Callable[[PodState], str]) -> None:
        """Create it.

        Args:
            fleet: The pods.
            blocked: Returns why a pod takes no loads; empty: it does.
        """
        self._fleet = fleet
        self._blocked = blocked
        self._counted: dict[tuple[str, WantedPods], FitCount] = {}

    def forget(self) -> None:
        """Count anew from now on. Between two calls, the numbers may be old."""
        self._counted.clear()

    def of(self, adapter: DeclaredAdapter) -> FitCount:
        """Return the count of an adapter."""
        pods = WantedPods(selector=adapter.pods.selector, namespace=adapter.pods.namespace)
        key = (adapter.base_model, pods)
        known = self._counted.get(key)
        if known is None:
            known = self._count(adapter.base_model, pods)
            if len(self._counted) < _MAX_COUNTED:
                self._counted[key] = known
        return known

    def _count(self, base_model: str, pods: WantedPods) -> FitCount:
        serving = fit = blocked = unread = 0
        reason = ""
        for state in self._fleet:
            if not state.pod.ready or base_model not in state.base_models:
                unread += state.pod.ready and not state.models_known
                continue
            serving += 1
            if pods.admits(state.pod):
                fit += 1
                if found := self._blocked(state):
                    blocked += 1
                    reason = reason or f"{state.pod.name}: {found}"
        return FitCount(serving, fit, blocked, reason, unread)
