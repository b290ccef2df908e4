"""What copies of an adapter are worth: the seconds of waiting that they save.

A request waits if its adapter is nowhere, if no pod with the adapter has a free slot, or if these
pods have more requests than others. So:

- The first copy is worth most. Without it, requests wait for a load, and all at the same pod.
- Further copies save waits for a slot. Such a wait needs two things: the adapter is not in flight
  (a request that joins others needs no slot), and all slots of the pods with the adapter are taken.
  So they help adapters most that have about one request in flight. Popular ones are always in
  flight, and rare ones are not asked for. Each further copy is worth less than the one before, and
  the less the more slots these pods have. A copy is worth more on a pod with many slots.
- Copies also save waits on pods with too many requests, if an adapter has more of them than its
  pods can take beside the others.
- The copies that the operator wants beyond the first one are worth less than all first copies, and
  more than most of those that only demand asks for (``swaps``).
- An adapter that is not asked for counts with ``UNASKED`` requests. So rare ones are kept once, and
  twice while nobody else needs the room.

The figures were chosen with ``lora-router simulate`` on its slot-bound scenarios, on seeds 11 to
13. ``SWAP_SECONDS`` and ``swaps.SWAP`` were compared with other values on seeds 1 to 3,
``FILL_SECONDS`` on seeds 31 to 38.
"""

import math
from dataclasses import dataclass

from lora_router.adapters.demand import Demand

SWAP_SECONDS = 30.0
"""For how long demand is expected to stay as it is, if a copy takes the place of another one. A
lower value makes fewer loads pay."""
FILL_SECONDS = 3000.0
"""The same, if a copy takes a place that nobody needs. The load of a second copy that pays in this
time cannot wait. A higher value brings second copies sooner, and stalls pods more while it does."""
UNASKED = 0.02
"""Load of an adapter that is not asked for, in requests in flight."""
NOWHERE = 20.0
"""Seconds that a request waits in all if its adapter is nowhere, with what its load costs others. A
lower value lets rare adapters leave the fleet, so that others get further copies."""
TAKEN = 0.84
"""How often a slot is taken. So all four slots of a pod are taken half of the time. A higher value
makes copies beyond the second worth more."""
SLOT_SECONDS = 2.0
"""Seconds that a request waits for a slot."""
_WANTED = 0.75
"""How much of the first copy of an adapter that is not asked for a further copy is worth that the
operator wants, at least."""
CROWDED = 1.5
"""From how many times the usual requests of a pod on, those of one adapter are too many for it."""


@dataclass(frozen=True, slots=True)
class CopyWorth:
    """What copies are worth in one fleet at one moment."""

    demand: Demand
    pod_load: float
    """Mean load of a pod, in requests in flight for adapters."""

    def load_of(self, name: str) -> float:
        """Return the load that counts for an adapter, above 0."""
        return self.demand.loads.get(name, 0.0) + UNASKED

    def asked_share(self, name: str) -> float:
        """Return which share of the load that counts is of requests that were seen."""
        return 1.0 - UNASKED / self.load_of(name)

    def of(self, name: str, copies: int, slots: float, more: float, needed: int = 1) -> float:
        """Return what one more copy saves in each second, in seconds of waiting.

        Args:
            name: The served name of the adapter.
            copies: How many it has.
            slots: How many slots the pods have together that have them.
            more: How many slots the pod of the further copy has.
            needed: How many the operator wants at least.
        """
        load = self.load_of(name)
        if not copies:
            return load * NOWHERE if needed > 0 else 0.0
        if copies < needed:
            share = _WANTED + (1.0 - _WANTED) * load / (1.0 + load)
            return share * UNASKED * NOWHERE
        waits = self.waits(name, slots) * (1.0 - math.pow(TAKEN, more))
        return waits + self._crowd(load, copies) - self._crowd(load, copies + 1)

    def waits(self, name: str, slots: float) -> float:
        """Return what requests wait for a slot in each second, in seconds.

        Args:
            name: The served name of the adapter.
            slots: How many slots the pods have together that have it.
        """
        load = self.load_of(name)
        return load * math.exp(-load) * SLOT_SECONDS * math.pow(TAKEN, slots)

    def _crowd(self, load: float, copies: int) -> float:
        """Return what requests wait because their pods have too many of them."""
        too_many = load / copies - CROWDED * self.pod_load
        return load * too_many / self.pod_load if too_many > 0.0 and self.pod_load > 0.0 else 0.0
