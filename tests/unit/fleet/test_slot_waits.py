"""Which deferred requests may wait for an adapter slot. vLLM defers others, too."""

from dataclasses import replace

from lora_router.fleet.ledger import Reservation
from lora_router.fleet.peer_ledgers import LedgerShare, PodShare
from lora_router.fleet.pod_metrics import PodMetrics
from tests.fleet import make_fleet, make_metrics, state_of

SERVER = ("10.0.0.1:8000", "")


def page(
    *active: str, running: float, deferred: float = 1.0, at: float = 1.0, slots: int | None = 2
) -> PodMetrics:
    metrics = make_metrics(active, max_lora=slots, scraped_at=at)
    return replace(metrics, running=running, waiting=deferred, deferred=deferred)


class Pod:
    """A pod with two slots, and the requests of this router on it."""

    def __init__(self, *adapters: str | None) -> None:
        self.fleet = make_fleet(1)
        self.state = state_of(self.fleet, 1)
        self.open = [self.send(adapter) for adapter in adapters]

    def send(self, adapter: str | None) -> Reservation:
        return self.fleet.ledger.reserve(self.state, adapter)

    def free_after(self, metrics: PodMetrics) -> int | None:
        self.fleet.put_metrics(self.state, metrics)
        return self.state.beliefs.free_slots


def test_with_fewer_running_requests_than_slots_nothing_waits_for_a_slot() -> None:
    assert Pod().free_after(page(running=0)) == 2
    assert Pod().free_after(page("theirs", running=1)) == 1
    assert Pod().free_after(page("theirs", running=1, deferred=9)) == 1


def test_strangers_requests_may_be_for_adapters_without_a_first_token() -> None:
    """Two requests run, and one adapter is listed. The other request may be for another adapter."""
    pod = Pod()

    assert pod.free_after(page("theirs", running=2)) == 0
    assert pod.state.beliefs.somebody_waits


def test_requests_that_ledgers_explain_are_for_no_further_adapter() -> None:
    """Many requests run, all of them for the base model or for one adapter."""
    pod = Pod("ours", *[None] * 19)

    assert pod.free_after(page("ours", running=19)) == 1
    assert not pod.state.beliefs.somebody_waits


def test_an_adapter_that_this_router_sent_counts_before_its_first_token() -> None:
    pod = Pod("first", "second")

    assert pod.free_after(page("first", running=2)) == 0
    assert pod.state.beliefs.somebody_waits
    pod.open[0].release()
    # The request that waits takes the slot.
    assert pod.state.beliefs.free_slots == 0


def test_what_peers_have_in_flight_is_explained() -> None:
    pod = Pod()
    shares = {"pod-1": PodShare(SERVER, 20, {"theirs": 20})}
    pod.fleet.put_peer(LedgerShare("peer", 1, 0.1, shares, {}, {}), 0.5)

    assert pod.free_after(page("theirs", running=19)) == 1


def test_in_the_step_in_which_a_slot_becomes_free_it_is_already_taken() -> None:
    """The request is deferred until the next step begins."""
    pod = Pod()
    assert pod.free_after(page("x", "y", running=2, at=1.0)) == 0

    assert pod.free_after(page("x", running=1, at=2.0)) == 0
    # It would have run by now.
    assert pod.free_after(page("x", running=1, at=3.0)) == 1


def test_without_a_deferred_request_nothing_waits() -> None:
    pod = Pod()
    assert pod.free_after(page("x", "y", running=9, deferred=0)) == 0
    assert not pod.state.beliefs.somebody_waits


def test_nothing_is_believed_of_a_pod_whose_slots_are_unknown() -> None:
    pod = Pod()

    assert pod.free_after(page("x", running=9, slots=None)) is None
    assert not pod.state.beliefs.somebody_waits
