"""Two routers that exchange shares."""

from dataclasses import replace

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare
from lora_router.fleet.pod_state import PodState
from tests.fleet import make_fleet, make_metrics, state_of

EVERY = 0.1


def small_fleet() -> Fleet:
    fleet = make_fleet(2, adapters=("a", "b", "c"))
    for state in fleet:
        fleet.put_metrics(state, replace(make_metrics(max_lora=2), running=0.0))
    return fleet


class TwoRouters:
    """Two routers over the same two pods."""

    def __init__(self) -> None:
        self.here, self.there = small_fleet(), small_fleet()
        self.now = 0.0

    def exchange(self, held: dict[str, HeldShare] | None = None) -> LedgerShare:
        self.now += EVERY
        mine = self.here.report_to_peers("here", EVERY, {}, self.now)
        theirs = self.there.report_to_peers("there", EVERY, held or {}, self.now)
        self.here.put_peer(theirs, self.now)
        self.there.put_peer(mine, self.now)
        return theirs

    @property
    def pod(self) -> PodState:
        """The first pod, in this router's fleet."""
        return state_of(self.here, 1)
