"""What a server without requests lists of adapters is not believed for ever."""

from dataclasses import replace

import pytest

from lora_router.fleet.idle_server import IDLE_SECONDS, IdleServer
from lora_router.fleet.pod_metrics import LoraActivity, PodMetrics
from tests.fleet import make_fleet, make_metrics, state_of


def page(at: float, *, running: float = 0.0, updated_at: float = 1.7e9) -> PodMetrics:
    lora = LoraActivity(1, frozenset({"a"}), frozenset({"a"}), updated_at)
    metrics = make_metrics(max_lora=1, scraped_at=at)
    return replace(metrics, running=running, waiting=0.0, lora=lora)


def test_the_adapter_of_an_aborted_request_gives_its_slot_back() -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)

    for second in range(int(IDLE_SECONDS) + 1):
        assert state.beliefs.free_slots in (None, 0)
        fleet.put_metrics(state, page(float(second)))

    assert state.beliefs.active == frozenset()
    assert state.beliefs.free_slots == 1


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"running": 1.0}, id="a request runs"),
        pytest.param({"updated_at": 1.7e9 + 1}, id="the list was updated"),
    ],
)
def test_what_shows_activity_meanwhile_counts(changes: dict[str, float]) -> None:
    server = IdleServer()
    server.active(page(0.0))
    server.active(page(9.0, **changes))

    assert server.active(page(11.0, updated_at=changes.get("updated_at", 1.7e9))) == {"a"}
    assert server.active(page(30.0, updated_at=changes.get("updated_at", 1.7e9))) == set()
