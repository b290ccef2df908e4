"""*Slot*: what a further slot costs for an adapter that is in flight already.

A slot that a hot adapter takes is one that others cannot get. The price rises as the fleet's free
slots become few. It is not charged if the pods that have the adapter are overloaded.
"""

from lora_router.routing.candidates import FleetLoad

SLOT_PRICE = 24.0
"""Price of another slot for an adapter in flight, when half of the fleet's slots are in use. A
lower value makes hot adapters take slots that others soon need. A higher value makes pods with
popular adapters busier."""
OVERLOAD = 3.0
"""A pod is overloaded if it has more than this many times the average load. If the pod to join is
overloaded, a slot costs nothing. A lower value makes hot adapters take the last slots, so that rare
adapters wait. A higher value makes pods with hot adapters fall behind near the fleet's capacity,
keep their slots for longer, and fall further behind."""
_A_FEW = 8
"""Requests that are added to this threshold, so that the first requests in an idle fleet do not
overload its pods."""


def slot_price(fleet: FleetLoad, spare_load: float) -> float:
    """Return the price of a further slot for an adapter in flight.

    Args:
        fleet: The load and slots of the fleet.
        spare_load: The load of the least loaded pod that the request could join.
    """
    if spare_load > OVERLOAD * fleet.in_flight / fleet.pods + _A_FEW:
        return 0.0
    return SLOT_PRICE * (fleet.slots - fleet.free_slots) / max(fleet.free_slots, 1)
