"""*Slot*: what a further slot costs for an adapter that is in flight already.

A slot that a hot adapter takes is one that others cannot get. The price rises as the fleet's free
slots become few. It is not charged if the pods that have the adapter are overloaded. The last slots
of the fleet are kept for adapters that have none, unless most requests are on these pods.

A hot adapter belongs on pods with few slots. It slows the requests of every other adapter on its
pod, which then keep their slots for longer, and on a pod with few slots these are few. So where the
pods of a fleet differ, another slot on a pod with fewer slots costs nothing as soon as the pods
that have the adapter are busier than average. The copy on the larger pod drains then (``copies``).

The last free slot of a pod is worth more than the pod's load shows. A pod without a free slot gets
no further adapter, however few requests it has. If rare adapters take the last slots of the pods
with the least load, these stay idle, and no hot adapter can spread to them. So for an adapter that
is not in flight, a pod with one free slot costs at least the average load.
"""

from lora_router.fleet.pod_state import PodView
from lora_router.routing.candidates import Candidates, FleetLoad
from lora_router.routing.terms.base_cost import BaseCost

SLOT_PRICE = 24.0
"""Price of another slot for an adapter in flight, when half of the fleet's slots are in use. A
lower value makes hot adapters take slots that others soon need. A higher value makes pods with
popular adapters busier."""
OVERLOAD = 2.0
"""A pod is overloaded if it has more than this many times the average load. If the pod to join is
overloaded, a slot costs nothing. A lower value makes hot adapters take slots that rare ones wait
for. A higher value makes pods with hot adapters fall behind near the fleet's capacity, keep their
slots for longer, and fall further behind."""
LAST_OVERLOAD = 5.0
"""The same, while no more than ``KEPT_SHARE`` of the fleet's slots are free. A lower value makes
rare adapters wait for copies of hot ones. A higher value lets a sudden crowd stay on one pod."""
NEXT_OVERLOAD = 2.5
"""The same for a request that waits for the next free slot, because none was free (``spreading``).
A lower value makes rare adapters wait for copies of hot ones while slots are scarce. A higher value
lets a hot adapter stay on one pod then."""
LARGER_OVERLOAD = 1.0
"""The same, if the pod with the further slot has fewer slots than the pod to join. A lower value
moves adapters that are not hot. A higher value lets hot adapters slow those on pods with many
slots."""
KEPT_SHARE = 0.1
"""Share of the fleet's slots that are kept for adapters without one. A lower value makes rare
adapters wait until a copy of a hot one drains. A higher value makes pods with hot adapters fall
behind."""
_A_FEW = 8
"""Requests that are added to this threshold, so that the first requests in an idle fleet do not
overload its pods."""


def slot_price(
    fleet: FleetLoad,
    spare: PodView | None,
    spare_load: float,
    pod: PodView | None,
    *,
    is_held: bool = False,
) -> float:
    """Return the price of a further slot for an adapter in flight.

    Args:
        fleet: The load and slots of the fleet.
        spare: The least loaded pod that the request could join, if it is known.
        spare_load: Its load.
        pod: The pod with the further slot, if it is known.
        is_held: Whether the request waits for it.
    """
    if spare is not None and pod is not None and _is_smaller(pod, spare):
        times = LARGER_OVERLOAD
    elif fleet.free_slots > KEPT_SHARE * fleet.slots:
        times = OVERLOAD
    else:
        times = NEXT_OVERLOAD if is_held and _is_usual(fleet, spare) else LAST_OVERLOAD
    if spare_load > times * fleet.average + _A_FEW:
        return 0.0
    return SLOT_PRICE * (fleet.slots - fleet.free_slots) / max(fleet.free_slots, 1)


def takes_next_slot(fleet: FleetLoad, spare: PodView) -> bool:
    """Return whether an adapter in flight takes the next slot that becomes free, while none is.

    If pods have different numbers of slots, it does not: nobody knows which pod has the next one.

    Args:
        fleet: The load and slots of the fleet.
        spare: The least loaded pod that the request could join.
    """
    requests = spare.in_flight + spare.beliefs.foreign_requests
    return requests > NEXT_OVERLOAD * fleet.average + _A_FEW and _is_usual(fleet, spare)


def _is_smaller(pod: PodView, other: PodView) -> bool:
    """Return whether a pod has fewer slots than another one."""
    slots, others = pod.beliefs.slots, other.beliefs.slots
    return slots is not None and others is not None and slots < others


def _is_usual(fleet: FleetLoad, pod: PodView | None) -> bool:
    """Return whether a pod has as many slots as pods have on average."""
    slots = None if pod is None else pod.beliefs.slots
    return slots is not None and slots * fleet.pods == fleet.slots


def last_slot_price(pod: PodView, below_average: float) -> float:
    """Return what a slot of a pod costs beyond the pod's load, for an adapter not in flight.

    Args:
        pod: The pod, with a free slot.
        below_average: By how much its load is below the average of the pods.
    """
    return max(0.0, below_average) if pod.beliefs.free_slots == 1 else 0.0


def with_last_slots(
    open_pods: list[tuple[float, PodView]], candidates: Candidates, base: BaseCost
) -> list[tuple[float, PodView]]:
    """Return the costs of pods with what their last free slots cost beyond the load there."""
    if all(pod.beliefs.free_slots != 1 for _, pod in open_pods):
        return open_pods
    average = candidates.load().average * base.each
    return [(cost + last_slot_price(pod, average - base.load(pod)), pod) for cost, pod in open_pods]
