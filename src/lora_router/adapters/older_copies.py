"""Copies of older versions in the search for places (``places``).

Such a copy is no longer declared, so its place is nobody's until it is unloaded. But it is unloaded
only when the declared version serves, and that needs a place. So where host memory is full, the
declared version gets the place of an older copy, and nobody else does.
"""

from collections.abc import Collection, Container

from lora_router.adapters.capacity import room_of
from lora_router.adapters.declared import DeclaredAdapter, plain_name
from lora_router.adapters.pod_plan import PodPlan


class OlderCopies:
    """The older copies whose places the declared versions may take."""

    def __init__(self) -> None:
        self._successors: dict[str, str] = {}
        """By name: the served name of the version that gets all requests in the end; empty: two
        versions are to be served."""
        self._plans: dict[str, dict[PodPlan, None]] = {}
        """By served name of the successor: the pods with an older copy."""
        self._on: dict[PodPlan, tuple[str, ...]] = {}
        """By pod: the successors of its older copies."""

    def declare(self, adapter: DeclaredAdapter) -> None:
        """Note one of the declared adapters."""
        is_only = adapter.share >= 100 and adapter.name not in self._successors
        self._successors[adapter.name] = adapter.served_name if is_only else ""

    def forget_declared(self) -> None:
        """Forget all declared adapters, because they are noted anew."""
        self._successors = {}

    def count(self, plan: PodPlan, declared: Container[str]) -> None:
        """Find out anew what room a pod has, and of what it has older copies.

        Args:
            plan: The pod.
            declared: The served names of the declared adapters.
        """
        for served in self._on.pop(plan, ()):
            self._plans[served].pop(plan, None)
            if not self._plans[served]:
                del self._plans[served]
        plan.room = room_of(plan.state, declared) - len(plan.adapters)
        older = (name for name in plan.state.adapters if name not in declared)
        names = (self._successors.get(plain_name(name), "") for name in older)
        found = {served: None for served in names if served}
        for served in found:
            self._plans.setdefault(served, {})[plan] = None
            is_missing = served in plan.adapters and served not in plan.state.adapters
            if is_missing and plan.room < 0:
                plan.room += 1  # It belongs there in place of the older copy.
        if found:
            self._on[plan] = tuple(found)

    def of(self, served: str) -> Collection[PodPlan]:
        """Return the pods with a copy of an older version of a declared adapter."""
        return self._plans.get(served, ())

    @staticmethod
    def give_way(plan: PodPlan) -> None:
        """Let a declared version have the place of its older copy on a pod."""
        plan.room += 1
