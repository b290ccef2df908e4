"""How long loads of adapters take: learned from first bytes, reported, configured, or assumed."""

import random
from dataclasses import replace

import pytest

from lora_router.fleet.adapter_beliefs import AWAY, IN_HOST_MEMORY, IN_SLOT
from lora_router.fleet.answer import FROM_THE_POD, Answer
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.ledger import Reservation
from lora_router.fleet.load_seconds import ASSUMED
from lora_router.fleet.load_times import LoadTimes
from lora_router.fleet.lora_spec import LoraSpec
from lora_router.fleet.peer_ledgers import LedgerShare, PodShare
from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.scenario import shipped_scenario
from lora_router.simulator.trace import make_trace
from tests.fleet import ManualClock, make_metrics, make_pod, state_of

ANSWER = Answer(200, details=FROM_THE_POD)
ASIDE = 4
"""Requests in slots for each load. Enough of them make the usual time to the first byte known."""


class Pods:
    """Two pods with two slots and room for four adapters, and a clock that a test advances."""

    def __init__(self, *base_models: str) -> None:
        self.clock = ManualClock()
        self.fleet = Fleet()
        self.fleet.ledger.now = self.clock.now
        self.rng = random.Random(1)
        for number, base_model in enumerate(base_models or ("base", "base"), start=1):
            spec = LoraSpec(slots=2, host_memory=4)
            self.fleet.upsert(make_pod(number, lora=spec, base_model=base_model))
            self.scrape(number)

    def scrape(self, number: int, load_seconds: float | None = None) -> None:
        metrics = replace(make_metrics(max_lora=2), running=0.0, adapter_load_seconds=load_seconds)
        self.fleet.put_metrics(state_of(self.fleet, number), metrics)

    def send(self, adapter: str | None, *, number: int = 1, streamed: bool = True) -> Reservation:
        return self.fleet.ledger.reserve(state_of(self.fleet, number), adapter, streamed=streamed)

    def ask(
        self, adapter: str | None, seconds: float, *, number: int = 1, answer: Answer = ANSWER
    ) -> None:
        """Send a request whose first byte comes after some seconds."""
        request = self.send(adapter, number=number)
        self.clock.advance(seconds)
        request.answered(answer)
        request.release()

    def load(
        self, host: float, disk: float, *, number: int = 1, times: int = 40, noise: float = 0.0
    ) -> None:
        """Use six adapters in turn on a pod, so that some come from each place."""
        beliefs = state_of(self.fleet, number).beliefs
        for turn in range(times):
            for adapter in ("a", "b", "c", "a", "d", "e"):
                load = {IN_HOST_MEMORY: host, AWAY: disk}.get(beliefs.where(adapter), 0.0)
                for seconds in (load, *[0.0] * ASIDE):
                    first_byte = 0.05 + seconds + self.rng.random() * noise
                    self.ask(adapter, first_byte, number=number)
            self.clock.advance(turn)

    def known(self, number: int = 1) -> tuple[float, float]:
        _, host, disk = state_of(self.fleet, number).beliefs.load_seconds
        return host, disk


def test_before_any_load_figures_are_assumed() -> None:
    assert Pods().known() == ASSUMED[1:]


@pytest.mark.parametrize("adapter", ["idle", "in-memory", "away"])
def test_a_place_that_is_known_needs_not_be_asked_for_again(adapter: str) -> None:
    places = []
    for is_told in (False, True):
        pods = Pods()
        for name in ("in-memory", "other", "idle"):
            pods.ask(name, 0.1)
        state = state_of(pods.fleet, 1)
        where = state.beliefs.where(adapter) if is_told else None
        places.append(pods.fleet.ledger.reserve(state, adapter, streamed=True, where=where).place)

    assert places[0] == places[1] is not None


def test_loads_from_host_memory_and_from_disk_are_learned_apart() -> None:
    pods = Pods()
    pods.load(host=0.02, disk=0.6)
    assert pods.known() == pytest.approx((0.02, 0.6), rel=0.05)


def test_assumed_times_are_told_from_learned_ones() -> None:
    pods = Pods()
    beliefs = state_of(pods.fleet, 1).beliefs
    pods.load(0.1, 2.0, times=1)
    assert not beliefs.knows_disk
    pods.load(0.1, 2.0)
    assert beliefs.knows_disk


def test_what_is_learned_follows_a_change() -> None:
    pods = Pods()
    pods.load(host=0.02, disk=0.6)
    pods.load(host=0.04, disk=3.0)
    assert pods.known() == pytest.approx((0.04, 3.0), rel=0.05)


def test_first_bytes_that_vary_by_more_than_a_load_say_little_about_it() -> None:
    pods = Pods()
    pods.load(host=0.08, disk=2.5, noise=1.0)
    host, disk = pods.known()
    assert host == pytest.approx(0.08, abs=0.06)
    assert disk == pytest.approx(2.5, rel=0.15)


def test_a_pod_without_loads_is_taken_for_others_with_its_base_model() -> None:
    pods = Pods("llama", "llama", "mistral")
    pods.load(host=0.02, disk=0.6)
    for number in (2, 3):
        pods.scrape(number)

    assert pods.known(2) == pytest.approx((0.02, 0.6), rel=0.05)
    assert pods.known(3) == ASSUMED[1:]


def test_pods_that_are_alike_are_taken_to_load_equally_fast() -> None:
    """Otherwise every adapter that is nowhere would go to the pod whose loads were lucky."""
    pods = Pods()
    pods.load(host=0.02, disk=0.6)
    pods.load(host=0.03, disk=0.9, number=2)
    for number in (1, 2):
        pods.scrape(number)

    assert pods.known(1) == pytest.approx(pods.known(2), rel=0.01)


def test_a_pod_whose_loads_take_several_times_as_long_has_times_of_its_own() -> None:
    pods = Pods()
    pods.load(host=0.02, disk=0.6)
    pods.load(host=0.02, disk=6.0, number=2)
    for number in (1, 2):
        pods.scrape(number)

    assert pods.known(2)[1] > 3 * pods.known(1)[1]


@pytest.mark.parametrize(
    ("reported", "known"), [(0.04, (0.04, 1.5)), (0.9, (0.08, 0.9)), (7000.0, (0.08, 60.0))]
)
def test_what_a_pod_reports_is_believed_until_loads_are_seen(
    reported: float, known: tuple[float, float]
) -> None:
    pods = Pods()
    pods.scrape(1, reported)
    assert pods.known() == known
    assert pods.known(2) == ASSUMED[1:]

    pods.load(host=0.02, disk=0.6)
    assert pods.known() == pytest.approx((0.02, 0.6), rel=0.05)


@pytest.mark.parametrize(("option", "known"), [(0.2, (0.2, 1.5)), (4.0, (4.0, 4.0))])
def test_the_option_is_the_time_from_host_memory(option: float, known: tuple[float, float]) -> None:
    pods = Pods()
    pods.fleet.ledger.load_times.assume(option)
    pods.scrape(1)
    assert pods.known() == known


def test_a_request_that_joins_the_adapter_of_a_peer_needs_no_load() -> None:
    pods = Pods()
    pod = state_of(pods.fleet, 1)
    in_flight = PodShare((pod.pod.address, pod.pod.uid), 2, {"a": 1, "b": 1})
    pods.fleet.put_peer(LedgerShare("there", 1, 0.1, {"pod-1": in_flight}, {}, {}), 0.0)
    assert LoadTimes.place_of(pod, "a") is None, "it may be loaded for the peer now"
    pods.fleet.put_metrics(pod, make_metrics(running=("a",), max_lora=2))
    assert LoadTimes.place_of(pod, "a") == IN_SLOT, "and the pod is full"
    assert LoadTimes.place_of(pod, "c") is None, "it may wait for a slot"


class TestWhatIsIgnored:
    """First bytes that do not show how long a load takes."""

    @pytest.fixture
    def pods(self) -> Pods:
        pods = Pods()
        for _ in range(10):
            pods.ask("a", 0.05)
        return pods

    def seen(self, pods: Pods) -> int:
        loads = state_of(pods.fleet, 1).loads
        return 0 if loads is None else loads.count

    def test_a_load_counts(self, pods: Pods) -> None:
        pods.ask("b", 0.5)
        assert self.seen(pods) == 1

    def test_a_request_that_may_wait_for_a_slot(self, pods: Pods) -> None:
        busy = [pods.send("b"), pods.send("c")]
        before = self.seen(pods)
        pods.ask("d", 9.0)
        assert self.seen(pods) == before
        for request in busy:
            request.release()

    def test_a_request_that_waits_for_a_load_of_another(self, pods: Pods) -> None:
        first, second = pods.send("b"), pods.send("b")
        pods.clock.advance(0.5)
        loads = state_of(pods.fleet, 1).loads
        assert loads is not None
        usual = tuple(loads.first_bytes)
        for request in (second, first):
            request.answered(ANSWER)
        assert self.seen(pods) == 1
        assert tuple(loads.first_bytes) == usual

        third = pods.send("b")
        third.answered(ANSWER)
        assert len(loads.first_bytes) == len(usual) + 1

    def test_a_request_that_is_cancelled(self, pods: Pods) -> None:
        pods.send("b").release()
        assert self.seen(pods) == 0
        assert not state_of(pods.fleet, 1).loading

    def test_a_request_whose_adapter_the_pod_does_not_have(self, pods: Pods) -> None:
        request = pods.send("b")
        request.has_no_adapter()
        pods.clock.advance(9.0)
        request.answered(ANSWER)
        request.release()
        assert self.seen(pods) == 0
        assert not state_of(pods.fleet, 1).loading

    def test_an_answer_that_is_not_streamed(self, pods: Pods) -> None:
        request = pods.send("b", streamed=False)
        pods.clock.advance(9.0)
        request.answered(ANSWER)
        assert self.seen(pods) == 0

    @pytest.mark.parametrize(
        "answer", [Answer(500, details=FROM_THE_POD), Answer(503, details="no_healthy_upstream")]
    )
    def test_an_error(self, pods: Pods, answer: Answer) -> None:
        pods.ask("b", 0.5, answer=answer)
        assert self.seen(pods) == 0

    def test_a_request_that_another_pod_served(self, pods: Pods) -> None:
        pods.ask("b", 0.5, answer=replace_pod(ANSWER, "10.0.0.2:8000"))
        assert self.seen(pods) == 0
        assert not state_of(pods.fleet, 1).loading

    def test_a_request_that_another_pod_served_does_not_end_the_load_of_another(
        self, pods: Pods
    ) -> None:
        loads, follows = pods.send("b"), pods.send("b")

        follows.answered(replace_pod(ANSWER, "10.0.0.2:8000"))

        assert state_of(pods.fleet, 1).loading == {"b"}
        loads.answered(ANSWER)
        assert not state_of(pods.fleet, 1).loading

    def test_nor_does_one_that_turns_out_to_be_for_no_adapter(self, pods: Pods) -> None:
        pods.send("b")
        pods.send("b").has_no_adapter()
        assert state_of(pods.fleet, 1).loading == {"b"}


def replace_pod(answer: Answer, served_by: str) -> Answer:
    return Answer(answer.status, served_by=served_by, details=answer.details)


@pytest.mark.slow
def test_times_are_learned_in_a_busy_fleet() -> None:
    scenario = shipped_scenario("b-zipf")
    options = scenario.fleet(60.0)
    engines = [
        replace(each, max_cpu_loras=16, host_load_seconds=0.03, disk_load_seconds=0.7)
        for each in options.engines
    ]
    options = replace(options, engines=tuple(engines), host_memory_told=True)
    simulation = FleetSimulation(
        options, lambda rng: LoraPlacement(AlgorithmOptions(rng=rng)), seed=1
    )
    simulation.run(make_trace(scenario.workload, rate=scenario.rate, seconds=60.0, seed=1))

    [router] = simulation.routers
    for state in router.fleet:
        _, host, disk = state.beliefs.load_seconds
        assert host == pytest.approx(0.03, abs=0.02)
        assert disk == pytest.approx(0.7, rel=0.1)
