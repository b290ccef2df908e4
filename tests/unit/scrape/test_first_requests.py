"""Which pods are asked for a token, so that they state how many adapter slots they have."""

import pytest

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.lora_spec import LoraSpec
from lora_router.fleet.pod_metrics import LoraActivity, PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.scrape.first_requests import MOST_ATTEMPTS, FirstRequests
from tests.fleet import make_fleet, make_pod, state_of


class Asking:
    """A fleet of pods whose pages state no number of slots, and what the pods are asked."""

    def __init__(self, fleet: Fleet | None = None) -> None:
        self.fleet = fleet or make_fleet(2)
        self.asked: list[PodState] = []
        self.first_requests = FirstRequests(self.fleet, self.asked.append)

    def scrape(self, number: int, at: float = 1.0, slots: int | None = None) -> None:
        lora = None if slots is None else LoraActivity(slots, frozenset(), frozenset(), 1.0)
        self.fleet.put_metrics(
            state_of(self.fleet, number), PodMetrics(scraped_at=at, running=0.0, lora=lora)
        )


def test_a_pod_that_has_served_nothing_is_asked_once() -> None:
    asking = Asking()

    asking.scrape(1, at=1.0)
    asking.scrape(1, at=1.25)

    assert asking.asked == [state_of(asking.fleet, 1)]


def test_a_pod_that_states_its_slots_is_not_asked() -> None:
    asking = Asking()

    asking.scrape(1, slots=4)

    assert asking.asked == []


def test_a_server_that_never_states_them_is_asked_a_few_times() -> None:
    asking = Asking()

    for second in range(1, 100):
        asking.scrape(1, at=float(second))

    assert len(asking.asked) == MOST_ATTEMPTS


def test_a_pod_whose_slots_discovery_knows_is_not_asked() -> None:
    fleet = Fleet()
    fleet.replace([make_pod(1, lora=LoraSpec(slots=8))])
    fleet.put_models(state_of(fleet, 1), [ServedModel("base"), ServedModel("sql-lora", "base")])
    asking = Asking(fleet)

    asking.scrape(1)

    assert asking.asked == []


@pytest.mark.parametrize(
    "served", [[ServedModel("base")], []], ids=["no adapters", "no list of models yet"]
)
def test_a_pod_without_adapters_is_not_asked(served: list[ServedModel]) -> None:
    fleet = Fleet()
    fleet.replace([make_pod(1)])
    if served:
        fleet.put_models(state_of(fleet, 1), served)
    asking = Asking(fleet)

    asking.scrape(1)

    assert asking.asked == []


def test_a_pod_of_another_engine_is_not_asked() -> None:
    fleet = Fleet()
    fleet.replace([make_pod(1, engine="sglang")])
    fleet.put_models(state_of(fleet, 1), [ServedModel("base"), ServedModel("sql-lora", "base")])
    asking = Asking(fleet)

    asking.scrape(1)

    assert asking.asked == []


def test_a_pod_that_left_is_forgotten() -> None:
    asking = Asking()
    asking.scrape(1)

    asking.fleet.remove("pod-1")

    assert asking.first_requests._asked == {}
