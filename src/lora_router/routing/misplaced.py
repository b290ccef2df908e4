"""Adapters that wait on a pod for a slot, because their requests could not be held any longer.

vLLM gives such an adapter a slot when every request of another adapter there has ended. With
popular adapters that never happens by itself.

Rules:

1. For an adapter that waits on a pod, a slot of that pod is closed until it is empty. The adapter
   that has waited there longest then gets it. A slot that was closed for its held requests stays
   closed: reopened, it would take the requests of the other adapter that wait meanwhile.
2. Further requests of an adapter that waits on a pod are placed on another pod if that has a free
   slot, and held if they may be. Otherwise they wait on the same pod.
3. As many slots may be closed as ``slot_closing`` says. The adapters for which no slot may be
   closed yet are served in order.
4. Up to ``MOST`` adapters are remembered, and up to ``MOST_ON_A_POD`` on one pod. One more waits
   without help.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.closed_slots import ClosedSlots
from lora_router.routing.slot_closing import in_flight, open_slots
from lora_router.routing.slot_queues import SlotQueues

MOST = 1024
"""How many adapters are remembered."""
MOST_ON_A_POD = 16
"""How many of them on one pod. A release on a pod looks at all of them."""
PATIENCE_SECONDS = 1.0
"""How long an adapter waits on a pod before a slot is closed for it. A lower value closes slots
that would be empty by themselves, and the adapters in them wait elsewhere in turn. A higher value
makes rare adapters wait longer."""
_LOOKED_AT = 8
"""How many of those that have no closed slot are looked at in one go."""


@dataclass(slots=True, eq=False)
class Misplaced:
    """An adapter that waits on a pod."""

    pod: PodState
    adapter: str
    since: float
    """When its first request was sent to the pod."""
    closing: tuple[PodState, str] | None = None
    """The slot that is closed for it."""
    slots: int = 0
    """The slots of the pods that could take its requests, when it began to wait."""
    bases: BaseModels = field(init=False)
    """The base models of the pod."""

    def __post_init__(self) -> None:
        self.bases = self.pod.base_models


class MisplacedAdapters:
    """All adapters that wait on pods."""

    def __init__(
        self,
        slots: ClosedSlots,
        may_close: Callable[[BaseModels, int], bool],
        follows: Callable[[PodView, str], bool],
    ) -> None:
        """Remember none.

        Args:
            slots: The closed slots.
            may_close: Returns whether a further one of so many slots may be closed, on the pods of
                some base models.
            follows: Returns whether requests of an adapter are about to follow others to a pod. Its
                slot there is not closed meanwhile.
        """
        self._slots = slots
        self._may_close = may_close
        self._follows = follows
        self._by_pod: dict[PodState, dict[str, Misplaced]] = {}
        """Those on each pod, the one that has waited longest first."""
        self._next = SlotQueues[Misplaced]()
        """Those for which no slot is closed."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def pods_of(self, adapter: str) -> list[PodView]:
        """Return the pods on which an adapter waits."""
        closed = self._slots.closed_to(adapter)
        return [
            pod
            for pod in closed
            if isinstance(pod, PodState) and adapter in self._by_pod.get(pod, ())
        ]

    def add(
        self, pod: PodState, adapter: str, now: float, slots: int, heir: Misplaced | None = None
    ) -> list[str]:
        """Remember an adapter that may have no slot on a pod, and close one for it if possible.

        Args:
            pod: The pod.
            adapter: The adapter.
            now: The time.
            slots: The slots of the pods that could take its requests.
            heir: The adapter there, with a slot that is closed for it already.

        Returns:
            The adapters in slots that are open again.
        """
        on_pod = self._by_pod.get(pod, {})
        known = on_pod.get(adapter)
        if known is not None and heir is not None:
            self._next.remove(known)
            reopened = self._slots.hand_over(heir, known)
            return [] if reopened is None else [reopened]
        if (
            known is not None
            or self._count >= MOST
            or len(on_pod) >= min(MOST_ON_A_POD, excess(pod))
        ):
            reopened = None if heir is None else self._slots.reopen(heir)
            return [] if reopened is None else [reopened]
        misplaced = on_pod[adapter] = heir or Misplaced(pod, adapter, now)
        misplaced.slots = slots
        self._by_pod[pod] = on_pod
        self._count += 1
        if heir is None:
            self._next.add(misplaced)
        self._slots.wait_on(misplaced.pod, adapter, misplaced)
        self.serve(now)
        return []

    def settle(self, pod: PodState) -> list[str]:
        """Forget those that wait no more on a pod.

        A server gives a free slot to the adapter that waits there first, whichever slot it is.

        Return the adapters that may join the pod again: those, and those whose slots open again.
        """
        on_pod = self._by_pod.get(pod)
        if not on_pod:
            return []
        changed: list[str] = []
        for misplaced in tuple(on_pod.values()):
            if misplaced.adapter not in pod.in_flight_adapters:
                changed += self._forget(misplaced, on_pod)
        robbed = [each for each in on_pod.values() if each.closing and not in_flight(*each.closing)]
        in_order = sorted(on_pod.values(), key=_has_slot, reverse=True)
        free = max(len(on_pod) - excess(pod), len(robbed), sum(map(_has_slot, in_order)))
        for misplaced in in_order[:free]:
            if misplaced in robbed:
                robbed.remove(misplaced)
            elif robbed and misplaced.closing is not None:
                # It got the slot that was closed for another, which gets the one closed for it.
                reopened = self._slots.hand_over(misplaced, robbed.pop(0))
                changed += () if reopened is None else (reopened,)
            changed += self._forget(misplaced, on_pod)
        for misplaced in robbed:
            reopened = self._slots.reopen(misplaced)
            changed += () if reopened is None else (reopened,)
            self._next.add(misplaced)
        if not on_pod:
            del self._by_pod[pod]
        return changed

    def robbed(self, misplaced: Misplaced) -> None:
        """Let one wait again, because the slot that was closed for it is now another's."""
        self._next.add(misplaced)

    def serve(self, now: float) -> None:
        """Close slots for the next ones that have waited for long enough, while that is allowed."""
        for waiting in self._next.each():
            for misplaced in tuple(islice(waiting, _LOOKED_AT)):
                if now - misplaced.since < PATIENCE_SECONDS:
                    break
                if not self._may_close(misplaced.bases, misplaced.slots):
                    break
                slot = self._choose(misplaced)
                if slot is not None:
                    self._next.remove(misplaced)
                    self._slots.close(misplaced, slot, now)

    def _forget(self, misplaced: Misplaced, on_pod: dict[str, Misplaced]) -> Iterator[str]:
        """Forget one; yield the adapters that may join its pod again."""
        del on_pod[misplaced.adapter]
        self._next.remove(misplaced)
        self._count -= 1
        self._slots.wait_no_more_on(misplaced.pod, misplaced.adapter)
        yield misplaced.adapter
        reopened = self._slots.reopen(misplaced)
        if reopened is not None:
            yield reopened

    def _choose(self, misplaced: Misplaced) -> tuple[PodState, str] | None:
        """Return the slot of its pod with the fewest requests in flight that may be closed."""
        pod = misplaced.pod
        closed, waiting = self._slots.adapters_on(pod), self._by_pod[pod]
        open_ones = (
            (requests, name)
            for requests, name in open_slots(pod)
            if name not in closed and name not in waiting and not self._follows(pod, name)
        )
        best = min(open_ones, default=None)
        return None if best is None else (pod, best[1])


def _has_slot(misplaced: Misplaced) -> bool:
    """Return whether a scrape has shown an adapter in a slot since it waits.

    Of the adapters that wait on a pod, a router does not know those of its peers. So it cannot tell
    by their number which ones have got a slot.
    """
    pod = misplaced.pod
    metrics, active = pod.metrics, pod.beliefs.active
    return (
        metrics is not None and metrics.scraped_at > misplaced.since and misplaced.adapter in active
    )


def excess(pod: PodState) -> int:
    """Return how many more adapters are in flight on a pod than it has slots."""
    beliefs = pod.beliefs
    if beliefs.slots is None:
        return 0
    foreign = beliefs.foreign_adapters
    mine = pod.in_flight_adapters
    return len(mine.keys() | foreign if foreign else mine) - beliefs.slots
