"""What an ejected pod means for routing: its adapters bind nobody, nobody waits for its slots."""

import pytest

from lora_router.fleet.answer import Answer
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import EJECTED, HealthRules
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.pod_state import PodState
from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.outcome import Routed
from lora_router.routing.overload import PATIENCE_SECONDS
from lora_router.routing.registry import load_algorithms
from tests.fleet import make_fleet, make_metrics, state_of
from tests.unit.routing.router import Router

ADAPTERS = ("a", "b", "c", "d")


def small_fleet(pods: int = 2) -> Fleet:
    """Return pods of one slot each, with outlier ejection."""
    fleet = make_fleet(pods, adapters=ADAPTERS, outliers=Outliers(HealthRules(), lambda: 1000.0))
    for state in fleet:
        fleet.put_metrics(state, make_metrics(max_lora=1))
    return fleet


def eject(fleet: Fleet, number: int) -> PodState:
    """Let a pod fail until it is ejected."""
    state = state_of(fleet, number)
    for _ in range(3):
        request = fleet.ledger.reserve(state, None)
        request.answered(Answer(500))
        request.release()
    assert state.health.state is EJECTED
    return state


def pod_of(routed: Routed) -> str:
    return routed.reservation.state.pod.name


def test_an_adapter_in_flight_on_an_ejected_pod_goes_elsewhere() -> None:
    fleet = small_fleet()
    router = Router(fleet)
    first = router.routed("a")

    eject(fleet, int(pod_of(first)[-1]))

    assert pod_of(router.routed("a")) != pod_of(first)


def test_nobody_waits_for_a_slot_of_an_ejected_pod() -> None:
    fleet = small_fleet()
    router = Router(fleet)
    running = {pod_of(routed): routed for routed in (router.routed("a"), router.routed("b"))}
    router.held("c")
    router.clock.advance(PATIENCE_SECONDS + 0.1)
    [queue] = router.director.reception.room.queues()
    assert queue.closing is not None
    closed = queue.closing[0].pod.name

    eject(fleet, int(closed[-1]))

    assert queue.closing is not None
    assert queue.closing[0].pod.name != closed
    running[queue.closing[0].pod.name].reservation.release()
    [(_, outcome)] = router.late
    assert isinstance(outcome, Routed)
    assert pod_of(outcome) != closed


@pytest.mark.parametrize("name", sorted(load_algorithms(AlgorithmOptions())))
def test_no_algorithm_sends_anything_to_an_ejected_pod(name: str) -> None:
    fleet = small_fleet(4)
    router = Router(fleet, load_algorithms(AlgorithmOptions())[name])

    eject(fleet, 2)

    for number in range(40):
        outcome = router.send(("base", *ADAPTERS)[number % 5])
        if isinstance(outcome, Routed):
            assert pod_of(outcome) != "pod-2"
            outcome.reservation.release()


def test_requests_that_name_no_model_avoid_it_too() -> None:
    fleet = small_fleet(4)
    router = Router(fleet)

    eject(fleet, 2)

    for _ in range(20):
        routed = router.director.pass_through()
        assert isinstance(routed, Routed)
        assert pod_of(routed) != "pod-2"
