"""Simulated routers that talk to each other, fail, and are replaced."""

import random
from dataclasses import replace

import pytest

from lora_router.config.settings import Settings
from lora_router.fleet.fleet import Fleet
from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.fleet_options import FleetOptions, RouterEvent, RouterTrouble
from lora_router.simulator.fleet_simulation import FleetRun, FleetSimulation
from lora_router.simulator.knowledge import PEERING
from lora_router.simulator.network import WireOptions
from lora_router.simulator.router_model import RouterModel
from lora_router.simulator.trace import Arrival, Workload, make_trace
from tests.parameters import mostly_slow

WORKLOAD = Workload(12, zipf=1.0)
FLEET = FleetOptions(
    (EngineOptions(max_loras=4),) * 4, WORKLOAD.adapter_names, routers=2, knowledge=PEERING
)
KILLED, STALLED, PARTED = RouterTrouble
FOR_EVER = 1e6


def placement(rng: random.Random) -> LoraPlacement:
    return LoraPlacement(AlgorithmOptions(rng=rng))


def trace(seconds: float = 20.0, rate: float = 8.0) -> list[Arrival]:
    return list(make_trace(WORKLOAD, rate=rate, seconds=seconds, seed=3))


class Watched:
    """A run in which something is looked at now and then."""

    def __init__(self, fleet: FleetOptions, *, seconds: float = 20.0, rate: float = 8.0) -> None:
        self.simulation = FleetSimulation(fleet, placement, seed=3)
        self.trace = trace(seconds, rate)
        self.seen: list[object] = []

    def at(self, time: float, look: object) -> None:
        self.simulation.call_at(time, lambda: self.seen.append(look()))  # type: ignore[operator]

    def run(self) -> FleetRun:
        return self.simulation.run(self.trace)

    def router(self, number: int) -> RouterModel:
        return self.simulation.routers[number]

    def peers(self, number: int) -> list[str]:
        hub = self.router(number).hub
        assert hub is not None
        return sorted(hub.peers)

    def load_of_peers(self, number: int) -> int:
        """Requests that a router believes to be in flight from its peers."""
        return sum(state.beliefs.peers.requests for state in self.router(number).fleet)

    def in_flight(self, number: int) -> int:
        return self.router(number).fleet.ledger.total


def event(trouble: RouterTrouble, at: float, lasts: float, router: int = 0) -> RouterEvent:
    return RouterEvent(trouble, router, at, lasts)


@pytest.mark.slow
def test_routers_meet_at_once_and_know_what_the_others_have_in_flight() -> None:
    watched = Watched(replace(FLEET, routers=3))
    watched.at(0.2, lambda: [watched.peers(number) for number in range(3)])

    run = watched.run()

    names = ["router-0", "router-1", "router-2"]
    assert watched.seen == [[[each for each in names if each != name] for name in names]]
    assert len(run.requests) == len(watched.trace)
    assert [watched.in_flight(number) for number in range(3)] == [0, 0, 0]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_whatever_the_network_does() -> None:
    fleet = replace(
        FLEET,
        routers=3,
        wire=WireOptions(loss=0.05, late=0.05),
        router_events=(event(KILLED, 5.0, 2.0), event(PARTED, 8.0, 2.0, 1)),
    )
    first, second = (FleetSimulation(fleet, placement, 3).run(trace()) for _ in range(2))
    assert [each.first_token for each in first.requests] == [
        each.first_token for each in second.requests
    ]
    assert first.seconds == second.seconds


@pytest.mark.parametrize("delay", mostly_slow([0.0, 0.4]))
def test_what_a_router_knows_of_its_peers_is_as_old_as_the_delay(delay: float) -> None:
    """The peer's requests end at about the same time, which a router hears later."""
    watched = Watched(replace(FLEET, wire=WireOptions(delay, 0.0)), seconds=3.0)
    last = FleetSimulation(FLEET, placement, 3).run(trace(3.0)).seconds
    for tenth in range(int(10 * last)):
        watched.at(tenth / 10, lambda: (watched.in_flight(0), watched.load_of_peers(1)))
    watched.run()

    pairs = [pair for pair in watched.seen if isinstance(pair, tuple)]
    shift = 1 + round(10 * delay)
    now = sum(abs(here - there) for here, there in pairs)
    later = sum(abs(pairs[at][0] - pairs[at + shift][1]) for at in range(len(pairs) - shift))
    assert later < now


@pytest.mark.slow
def test_a_router_catches_up_after_each_lost_message() -> None:
    watched = Watched(replace(FLEET, wire=WireOptions(loss=0.1)))
    watched.at(15.0, lambda: (watched.peers(0), watched.peers(1)))
    watched.run()

    assert watched.seen == [(["router-1"], ["router-0"])]
    for router in watched.simulation.routers:
        assert router.hub is not None
        assert router.hub.counts.silent == 0
        assert router.hub.counts.reports_received > 100


@pytest.mark.slow
def test_late_packets_delay_the_messages_behind_them_and_lose_none() -> None:
    watched = Watched(replace(FLEET, wire=WireOptions(late=0.1)))
    watched.run()
    here, there = (router.hub for router in watched.simulation.routers)
    assert here is not None
    assert there is not None
    assert here.counts.reports_sent - there.counts.reports_received <= 15


@pytest.mark.slow
def test_a_partition_makes_routers_forget_each_other_until_it_is_over() -> None:
    parted = [event(PARTED, 5.0, 5.0, number) for number in range(2)]
    watched = Watched(replace(FLEET, router_events=tuple(parted)))
    for time in (4.9, 6.2, 9.9, 11.2):
        watched.at(time, lambda: (watched.peers(0), watched.load_of_peers(0) > 0))
    watched.run()
    assert watched.seen == [(["router-1"], True), ([], False), ([], False), (["router-1"], True)]


@pytest.mark.slow
def test_a_short_partition_only_delays_what_routers_say() -> None:
    parted = [event(PARTED, 5.0, 0.5, number) for number in range(2)]
    watched = Watched(replace(FLEET, router_events=tuple(parted)))
    watched.run()
    for router in watched.simulation.routers:
        assert router.hub is not None
        assert router.hub.counts.silent == 0


@pytest.mark.slow
def test_a_killed_router_is_forgotten_and_another_one_takes_its_place() -> None:
    watched = Watched(replace(FLEET, router_events=(event(KILLED, 5.0, 5.0),)))
    for time in (4.9, 5.5, 6.1, 12.0):
        watched.at(time, lambda: (watched.load_of_peers(1) > 0, watched.peers(1)))
    run = watched.run()

    assert watched.seen == [
        (True, ["router-0"]),
        (True, ["router-0"]),
        (False, []),
        (True, ["router-0-1"]),
    ]
    assert len(run.requests) == len(watched.trace)
    assert watched.in_flight(1) == 0


@pytest.mark.slow
def test_routers_that_are_replaced_one_after_the_other_know_what_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rolling update of a fleet with few requests, in which most adapters are idle."""
    workload = Workload(24, zipf=0.8)
    update = tuple(event(KILLED, 20.0 + 10.0 * n, 3.0, n % 2) for n in range(4))
    fleet = replace(
        FLEET,
        engines=(EngineOptions(max_loras=4, max_cpu_loras=8),) * 8,
        adapters=workload.adapter_names,
        preloaded=(),
    )
    arrivals = list(make_trace(workload, rate=2.0, seconds=60.0, seed=3))

    def loads(fleet: FleetOptions) -> int:
        return sum(pod.loads for pod in FleetSimulation(fleet, placement, 3).run(arrivals).pods)

    undisturbed, updated = loads(fleet), loads(replace(fleet, router_events=update))
    monkeypatch.setattr(Fleet, "idle_adapters", lambda *_: {})
    untold = loads(replace(fleet, router_events=update))

    assert updated <= 1.1 * undisturbed
    assert updated <= 0.8 * untold


def test_held_requests_of_a_killed_router_are_asked_of_another_one() -> None:
    fleet = replace(
        FLEET,
        engines=(EngineOptions(max_loras=1),) * 2,
        router_events=(event(KILLED, 5.0, FOR_EVER),),
    )
    watched = Watched(fleet, seconds=10.0, rate=4.0)
    watched.at(4.99, lambda: watched.router(0).director.held > 0)
    watched.at(5.01, lambda: watched.router(0).asked == {})

    run = watched.run()

    assert watched.seen == [True, True]
    assert len(run.requests) == len(watched.trace)


def test_requests_wait_while_no_router_is_there() -> None:
    fleet = replace(FLEET, routers=1, router_events=(event(KILLED, 5.0, 3.0),))
    watched = Watched(fleet, seconds=10.0)

    run = watched.run()

    assert len(run.requests) == len(watched.trace)
    late = [each for each in run.requests if 5.0 < each.arrived < 8.0]
    assert late
    assert all(each.first_token > 8.0 for each in late)


@pytest.mark.slow
def test_a_router_that_stands_still_is_forgotten_and_met_again() -> None:
    watched = Watched(replace(FLEET, router_events=(event(STALLED, 5.0, 2.0),)))
    for time in (4.9, 6.5, 8.5):
        watched.at(time, lambda: watched.peers(1))
    run = watched.run()

    assert watched.seen == [["router-0"], [], ["router-0"]]
    assert len(run.requests) == len(watched.trace)


@pytest.mark.slow
def test_routers_with_clocks_of_different_speeds_understand_each_other() -> None:
    watched = Watched(replace(FLEET, clock_rates=(1.0, 0.8)))
    watched.run()
    for router in watched.simulation.routers:
        assert router.hub is not None
        assert router.hub.counts.silent == 0
        assert sum(router.hub.counts.rejected.values()) == 0


@pytest.mark.slow
def test_scrapes_of_a_router_with_a_fast_clock_are_fresh() -> None:
    watched = Watched(replace(FLEET, clock_rates=(1.5,)))
    clock = watched.simulation

    def ages() -> float:
        now = watched.router(0).clock.now()
        assert now == pytest.approx(1.5 * clock.time)
        return max(now - state.beliefs.scraped_at for state in watched.router(0).fleet)

    watched.at(10.0, ages)
    watched.run()
    [oldest] = watched.seen
    assert isinstance(oldest, float)
    assert 0 <= oldest <= 0.3


def test_pods_are_scraped_as_often_as_by_a_router_with_default_settings() -> None:
    default = Settings.model_fields["pod_metric_refresh_interval_ms"].default
    assert default == 1000 * FLEET.scrape_seconds


@pytest.mark.slow
@pytest.mark.parametrize("routers", [1, 2, 4])
def test_no_rare_adapter_starves_behind_one_that_never_pauses(routers: int) -> None:
    """With four routers that kept its slot from being empty, it waited for 70 s and more."""
    workload = Workload(4, zipf=5.0)
    engine = EngineOptions(max_loras=1)
    fleet = FleetOptions((engine,), workload.adapter_names, routers=routers, knowledge=PEERING)
    requests = make_trace(workload, rate=3.4, seconds=100.0, seed=41)

    run = FleetSimulation(replace(fleet, max_hold_seconds=5.0), placement, 41).run(requests)

    assert max(each.first_token - each.arrived for each in run.requests) < 15.0
