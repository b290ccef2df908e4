"""An adapter in the search for places (``places``)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.pod_plan import PodPlan
from lora_router.adapters.trouble import Trouble
from lora_router.fleet.pod_state import PodState
from lora_router.routing.rendezvous import REMEMBERED, WHOLE, first_positions, hashes_of


class FitPods(tuple[PodPlan, ...]):  # noqa: SLOT001 -- a tuple cannot have slots
    """The pods on which adapters may be that are declared alike."""

    _hashes: list[int] | None = None

    @property
    def name_hashes(self) -> list[int]:
        """The hashes of their names."""
        if self._hashes is None:
            self._hashes = hashes_of([plan.state for plan in self])
        return self._hashes


@dataclass(slots=True)
class WantedAdapter:
    """An adapter with the pods that it gets."""

    adapter: DeclaredAdapter
    fits: FitPods
    """The pods on which it may be."""
    needed: int
    """On how many of them it should be at least."""
    most: int
    load: float
    """Its mean number of requests in flight."""
    trouble: Trouble | None = None
    """What hinders its loads, if something does."""
    pods: dict[PodPlan, None] = field(default_factory=dict)
    """The pods that it gets."""
    slots: float = 0.0
    """Their slots."""
    order: Sequence[PodPlan] = ()
    """Its first pods by rendezvous hashing, once they were asked for."""

    @property
    def name(self) -> str:
        """Its served name."""
        return self.adapter.served_name

    @property
    def comes_last(self) -> bool:
        """Whether it gets one copy after all others, because it may be that no pod can load it."""
        return self.trouble is not None and self.trouble.is_nowhere

    @property
    def may_evict(self) -> bool:
        """Whether others may make room for it now."""
        return self.trouble is None or self.trouble.may_evict

    @property
    def is_complete(self) -> bool:
        """Whether it gets no further copy."""
        return len(self.pods) >= (min(1, self.most) if self.comes_last else self.most)

    @property
    def active(self) -> float:
        """How many slots it takes on average, if its requests share one."""
        return 1.0 - math.exp(-self.load)

    def weigh(self, sign: float) -> None:
        """Count what it asks of its pods, evenly, or no longer (-1)."""
        copies = len(self.pods)
        if copies:
            active, load = sign * self.active / copies, sign * self.load / copies
            for plan in self.pods:
                plan.weigh(active, load)

    def may_get(self, plan: PodPlan) -> bool:
        """Return whether it may get a copy on a pod."""
        return plan not in self.pods and may_be_on(self.adapter, plan.state)

    def why(self, copies: int, *, waits: bool, swapped: bool) -> str:
        """Return why it gets one more copy (``places.Place.reason``).

        Args:
            copies: How many it has.
            waits: Whether requests wait because no pod has it.
            swapped: Whether another adapter loses a copy for it.
        """
        if not copies and waits:
            return "first-use"
        if copies < self.needed:
            return "everywhere" if self.adapter.pods.everywhere else "copies"
        return "demand" if swapped else "spare-memory"

    def without_failing(self, pods: Sequence[PodPlan]) -> Sequence[PodPlan]:
        """Return those of some pods that did not fail to load it; all of them, if they all did."""
        if self.trouble is None:
            return pods
        failing = self.trouble.pods
        return [plan for plan in pods if plan.state not in failing] or pods

    def order_of_pods(self) -> Sequence[PodPlan]:
        """Return the pods to consider for a copy, in order."""
        if not self.order:
            fits = self.fits
            count = len(fits) if len(fits) <= WHOLE else max(REMEMBERED, 2 * self.needed)
            positions = first_positions(self.name, fits.name_hashes, count)
            self.order = [fits[position] for position in positions]
        return self.order


def may_be_on(adapter: DeclaredAdapter, state: PodState) -> bool:
    """Return whether an adapter may be on a pod."""
    return adapter.base_model in state.base_models and adapter.pods.admits(state.pod)


def why_kept(adapter: DeclaredAdapter) -> str:
    """Return why an adapter keeps a copy that is loaded (``places.Place.reason``)."""
    if adapter.pods.everywhere:
        return "everywhere"
    return "pinned" if adapter.pinned else "copies"
