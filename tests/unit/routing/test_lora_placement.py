"""``lora-placement``: each rule, and the result in a whole fleet."""

import random
from dataclasses import replace

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prompt import Prompt
from lora_router.routing.algorithm import AlgorithmOptions, Hold, InferenceRequest, Pick, WakesOn
from lora_router.routing.candidates import Candidates
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.routing.overload import PATIENCE_SECONDS, Overload
from lora_router.routing.rendezvous import rendezvous_order
from lora_router.routing.slot_closing import CROWDED_PATIENCE_SECONDS
from lora_router.routing.terms.weights import PREFIX_WEIGHT
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.scenario import shipped_scenario, shipped_scenarios
from lora_router.simulator.summary import Summary, summarise
from lora_router.simulator.trace import make_trace
from tests.fleet import ManualClock, make_fleet, make_metrics, make_pod, state_of
from tests.unit.routing.router import Router

ADAPTERS = tuple(f"a{number}" for number in range(1, 9))


def placement(seed: int = 1, **extra: str) -> LoraPlacement:
    return LoraPlacement(AlgorithmOptions(rng=random.Random(seed), extra=extra))


def fleet_of(pods: int = 2, slots: int | None = 2) -> Fleet:
    fleet = make_fleet(pods, adapters=ADAPTERS)
    for state in fleet:
        fleet.put_metrics(state, replace(make_metrics(max_lora=slots), running=0.0))
    return fleet


def ask(
    algorithm: LoraPlacement,
    fleet: Fleet,
    adapter: str | None,
    *,
    now: float = 1.0,
    may_hold: bool = True,
) -> Pick | Hold:
    request = InferenceRequest(adapter or "base", adapter, may_hold=may_hold)
    return algorithm.pick(request, Candidates.of(fleet.ready()), now)


def pod_of(answer: Pick | Hold) -> PodState:
    assert isinstance(answer, Pick)
    assert isinstance(answer.pod, PodState)
    return answer.pod


def occupy(fleet: Fleet, number: int, *adapters: str) -> None:
    for adapter in adapters:
        fleet.ledger.reserve(state_of(fleet, number), adapter)


def test_base_model_requests_fill_what_adapters_leave() -> None:
    fleet = fleet_of(3)
    occupy(fleet, 1, "a1", "a1")
    occupy(fleet, 2, "a2")
    assert pod_of(ask(placement(), fleet, None)) is state_of(fleet, 3)


def test_a_request_joins_its_adapter_even_on_a_full_pod() -> None:
    fleet = fleet_of()
    occupy(fleet, 1, "a1", "a2")
    answer = ask(placement(), fleet, "a1")
    assert pod_of(answer) is state_of(fleet, 1)
    assert isinstance(answer, Pick)
    assert answer.reason == "joined"


def test_every_router_sends_a_cold_adapter_to_the_same_pod_by_hashing() -> None:
    fleet = fleet_of(4)
    for adapter in ADAPTERS:
        [first, *_] = rendezvous_order(adapter, fleet.ready())
        assert {id(pod_of(ask(placement(seed), fleet, adapter))) for seed in range(5)} == {
            id(first)
        }


def test_a_pod_without_a_slot_to_spare_takes_no_further_adapter() -> None:
    fleet = fleet_of()
    occupy(fleet, 1, "a1", "a2")
    for adapter in ADAPTERS[2:]:
        assert pod_of(ask(placement(), fleet, adapter)) is state_of(fleet, 2)


def test_an_idle_adapter_is_found_where_it_is_still_loaded() -> None:
    fleet = fleet_of(4)
    [*_, last] = rendezvous_order("a1", fleet.ready())
    assert isinstance(last, PodState)
    fleet.ledger.reserve(last, "a1").release()
    assert pod_of(ask(placement(), fleet, "a1")) is last


def test_a_hot_adapter_spreads_when_there_is_room_and_not_when_slots_are_few() -> None:
    fleet = fleet_of(2, slots=4)
    occupy(fleet, 1, *["a1"] * 40)
    answer = ask(placement(), fleet, "a1")
    assert pod_of(answer) is state_of(fleet, 2)
    assert isinstance(answer, Pick)
    assert answer.reason == "spread"

    occupy(fleet, 1, "a2", "a3", "a4")
    occupy(fleet, 2, "a5", "a6", "a7")
    assert pod_of(ask(placement(), fleet, "a1")) is state_of(fleet, 1)


def test_the_last_slots_are_for_others_unless_a_pod_is_overloaded() -> None:
    fleet = fleet_of(2, slots=2)
    occupy(fleet, 2, "a2")
    occupy(fleet, 1, *["a1"] * 20)
    assert pod_of(ask(placement(), fleet, "a1")) is state_of(fleet, 1)

    fleet = fleet_of(8, slots=2)
    for number in range(2, 9):
        occupy(fleet, number, "a2", "a3") if number < 8 else occupy(fleet, number, "a4")
    occupy(fleet, 1, "a5", *["a1"] * 150)
    answer = ask(placement(), fleet, "a1")
    assert pod_of(answer) is state_of(fleet, 8)


def test_a_hot_adapter_moves_to_a_pod_with_fewer_slots_where_it_slows_fewer_others() -> None:
    def fleet_with_a_free_slot(slots: int) -> Fleet:
        fleet = fleet_of(2, slots=8)
        pod = state_of(fleet, 2)
        fleet.put_metrics(pod, replace(make_metrics(max_lora=slots), running=0.0))
        occupy(fleet, 1, *["a1"] * 40, "a2", "a3", "a4", "a5", "a6", "a7", "a8")
        occupy(fleet, 2, *[f"b{number}" for number in range(1, slots)])
        return fleet

    fleet = fleet_with_a_free_slot(slots=2)
    assert pod_of(ask(placement(), fleet, "a1")) is state_of(fleet, 2)
    fleet = fleet_with_a_free_slot(slots=8)
    assert pod_of(ask(placement(), fleet, "a1")) is state_of(fleet, 1)


def test_a_rare_adapter_leaves_the_last_slot_of_an_idle_pod_to_others() -> None:
    fleet = fleet_of(3, slots=2)
    occupy(fleet, 1, "a1")
    occupy(fleet, 2, *["a2"] * 12)
    fleet.ledger.reserve(state_of(fleet, 3), None)
    fleet.ledger.reserve(state_of(fleet, 3), None)
    # Pod 1 has the fewest requests. With its last slot taken, no other adapter could use the rest.
    assert pod_of(ask(placement(), fleet, "a3")) is state_of(fleet, 3)


def test_while_requests_wait_the_smaller_copy_of_an_adapter_drains() -> None:
    router = Router(fleet_of(2, slots=2))
    fleet = router.fleet
    occupy(fleet, 1, *["a1"] * 8, "a2")
    occupy(fleet, 2, *["a1"] * 2, "a3")
    assert pod_of(ask(placement(), fleet, "a1")) is state_of(fleet, 2)
    router.send("a4")
    assert router.director.held == 1
    assert router.routed("a1").reservation.state is state_of(fleet, 1)


def test_a_load_counts_for_less_the_more_requests_it_will_serve() -> None:
    for in_flight, goes_to in ((2, 1), (60, 2)):
        fleet = fleet_of(2, slots=4)
        # The pod that has the adapter has the same load, made up of more or fewer of its requests.
        occupy(fleet, 1, *["a1"] * in_flight, *["a2"] * (60 - in_flight))
        assert pod_of(ask(placement(), fleet, "a1")) is state_of(fleet, goes_to)


def test_the_price_of_a_load_is_what_is_believed_of_the_pod_or_what_is_configured() -> None:
    def goes_to(algorithm: LoraPlacement, load_seconds: float | None = None) -> PodState:
        fleet = fleet_of(2, slots=4)
        if load_seconds is not None:
            for state in fleet:
                state.beliefs.load_seconds = 0.0, load_seconds, load_seconds
        occupy(fleet, 1, *["a1"] * 6)
        return pod_of(ask(algorithm, fleet, "a1"))

    assert goes_to(placement()).pod.name == "pod-1"
    assert goes_to(placement(adapter_load_seconds="0.001")).pod.name == "pod-2"
    assert goes_to(placement(), load_seconds=0.001).pod.name == "pod-2"
    assert goes_to(placement(adapter_load_seconds="0.001"), load_seconds=5.0).pod.name == "pod-1"


@pytest.mark.parametrize("written", ["soon", "-1", "nan", "61"])
def test_a_load_time_that_makes_no_sense_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=f"^adapter_load_seconds={written}: must be a number of"):
        placement(adapter_load_seconds=written)


def test_a_request_without_a_slot_is_held_and_placed_when_one_is_free() -> None:
    fleet, algorithm = fleet_of(1), placement()
    first = fleet.ledger.reserve(state_of(fleet, 1), "a1")
    occupy(fleet, 1, "a2")

    hold = ask(algorithm, fleet, "a3")
    assert isinstance(hold, Hold)
    assert (hold.reason, hold.wakes_on, hold.closed) == ("no-slot", WakesOn.FREE_SLOT, None)
    assert hold.ask_again == CROWDED_PATIENCE_SECONDS
    first.release()
    assert pod_of(ask(algorithm, fleet, "a3")) is state_of(fleet, 1)


def test_when_its_time_is_up_it_is_routed_without_a_slot() -> None:
    fleet = fleet_of(2)
    occupy(fleet, 1, "a1", "a2", "a2")
    occupy(fleet, 2, "a3", "a4")
    answer = ask(placement(), fleet, "a5", may_hold=False)
    assert pod_of(answer) is state_of(fleet, 2)
    assert isinstance(answer, Pick)
    assert answer.reason == "no-slot-in-time"


def test_a_held_adapter_has_a_slot_freed_after_a_while() -> None:
    router = Router(fleet_of(1))
    pod = state_of(router.fleet, 1)
    occupy(router.fleet, 1, "a1", "a1")
    rare = router.routed("a2")
    router.held("a3")
    router.routed("a2").reservation.release()

    router.clock.advance(PATIENCE_SECONDS)
    # The slot with the fewest requests accepts no more requests. The other one does.
    router.held("a2")
    assert router.routed("a1").reason == "joined"
    rare.reservation.release()
    assert router.late_pod("a3") is pod
    assert router.routed("a1").reason == "joined"


def test_requests_that_left_close_no_slot() -> None:
    router = Router(fleet_of(1))
    occupy(router.fleet, 1, "a1", "a1", "a2")
    leaves = router.held("a3")
    router.clock.advance(PATIENCE_SECONDS)
    router.held("a2")

    leaves.cancel()
    assert router.late_names == ["a2"]


def test_no_more_slots_are_closed_than_there_are() -> None:
    router = Router(fleet_of(1), overload=Overload(closed_slots_share=1.0))
    occupy(router.fleet, 1, "a1", "a2")
    for number in range(3, 9):
        router.held(f"a{number}")
    router.clock.advance(PATIENCE_SECONDS)

    shares = router.director.held_adapters()
    closed = [share.closed for share in shares.values() if share.closed is not None]
    assert sorted(closed) == [("pod-1", "a1"), ("pod-1", "a2")]


def test_another_slot_is_closed_when_another_request_took_the_first() -> None:
    router = Router(fleet_of(1))
    occupy(router.fleet, 1, "a1", "a1")
    rare = router.routed("a2")
    router.held("a3")
    router.clock.advance(PATIENCE_SECONDS - 1)
    router.held("a4")
    router.clock.advance(2)
    rare.reservation.release()
    assert router.late_names == ["a3"]

    router.clock.advance(PATIENCE_SECONDS)
    assert router.director.held_adapters()["a4"].closed in {("pod-1", "a1"), ("pod-1", "a3")}


def test_unknown_slots_are_room() -> None:
    fleet = fleet_of(1, slots=None)
    occupy(fleet, 1, "a1", "a2", "a3")
    assert isinstance(ask(placement(), fleet, "a4"), Pick)


def test_others_adapters_take_slots_while_the_scrape_is_fresh() -> None:
    fleet = fleet_of(1)
    state = state_of(fleet, 1)
    fleet.put_metrics(state, replace(make_metrics(("x", "y"), max_lora=2), running=9.0))

    assert isinstance(ask(placement(), fleet, "a1", now=1.0), Hold)
    assert isinstance(ask(placement(), fleet, "x", now=1.0), Pick)
    fleet.put_scrape_failure(state, 100.0)
    assert isinstance(ask(placement(), fleet, "a1", now=100.0), Pick)


def test_a_deferred_request_of_an_unknown_adapter_leaves_no_room() -> None:
    fleet = fleet_of(1)
    waits = replace(make_metrics(("x",), max_lora=2), running=2.0, waiting=1.0, deferred=1.0)
    fleet.put_metrics(state_of(fleet, 1), waits)
    assert isinstance(ask(placement(), fleet, "a1"), Hold)


def test_a_deferred_request_that_cannot_wait_for_a_slot_takes_no_room() -> None:
    """It waits for something else, such as a transfer of KV blocks."""
    fleet = fleet_of(1)
    waits = replace(make_metrics(("x",), max_lora=2), running=1.0, waiting=1.0, deferred=1.0)
    fleet.put_metrics(state_of(fleet, 1), waits)
    assert isinstance(ask(placement(), fleet, "a1"), Pick)


def test_a_pod_that_leaves_moves_only_its_own_adapters() -> None:
    names = tuple(f"adapter-{number}" for number in range(400))
    fleet = Fleet()
    fleet.replace(make_pod(number) for number in range(1, 9))
    algorithm = placement()
    before = {name: pod_of(ask(algorithm, fleet, name)).pod.name for name in names}
    fleet.remove("pod-3")
    after = {name: pod_of(ask(algorithm, fleet, name)).pod.name for name in names}

    moved = sum(before[name] != after[name] for name in names)
    assert moved == sum(home == "pod-3" for home in before.values())
    assert moved <= 1.3 * len(names) / 8

    fleet.upsert(make_pod(3))
    fleet.upsert(make_pod(9))
    grown = {name: pod_of(ask(algorithm, fleet, name)).pod.name for name in names}
    came = sum(before[name] != grown[name] for name in names)
    assert came == sum(home == "pod-9" for home in grown.values())
    assert came <= 1.3 * len(names) / 9


def simulated(name: str, algorithm: object, seed: int) -> Summary:
    scenario = shipped_scenario(name)
    fleet = replace(scenario.fleet(45.0), overload=Overload())
    simulation = FleetSimulation(fleet, algorithm, seed)  # type: ignore[arg-type]
    trace = make_trace(scenario.workload, rate=scenario.rate, seconds=45.0, seed=seed)
    return summarise(simulation.run(trace), 45.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_scenarios())
def test_no_request_waits_for_a_slot_on_a_pod(name: str) -> None:
    found = simulated(name, lambda rng: LoraPlacement(AlgorithmOptions(rng=rng)), 11)

    assert found.idle_slot_waits == 0
    assert found.slot_waits == 0
    assert found.refused == 0


class TestSeveralRouters:
    """Two routers over the same pods, which exchange shares."""

    def exchange(self, here: Fleet, there: Fleet, now: float) -> None:
        for _ in range(2):  # The second share acknowledges the first.
            words = [
                (there, here.report_to_peers("here", 0.1, {}, now)),
                (here, there.report_to_peers("there", 0.1, {}, now)),
            ]
            for fleet, share in words:
                fleet.put_peer(share, now)

    def test_a_request_joins_its_adapter_where_another_router_sent_it(self) -> None:
        here, there = fleet_of(2), fleet_of(2)
        occupy(there, 2, "a1")
        self.exchange(here, there, 0.1)
        answer = ask(placement(), here, "a1")
        assert pod_of(answer) is state_of(here, 2)
        assert isinstance(answer, Pick)
        assert answer.reason == "joined"

    def test_two_cold_adapters_at_two_routers_never_take_the_same_last_slot(self) -> None:
        here, there = fleet_of(4), fleet_of(4)
        for number in range(1, 5):
            occupy(here, number, f"a{number}")
        self.exchange(here, there, 0.1)
        first = pod_of(ask(placement(1), here, "a5"))
        second = pod_of(ask(placement(2), there, "a6"))
        assert first.pod.name != second.pod.name

    def test_a_slot_in_another_routers_allotment_is_claimed_and_held_for(self) -> None:
        here, there = fleet_of(1), fleet_of(1)
        occupy(here, 1, "a1")
        self.exchange(here, there, 0.1)
        answers = [ask(placement(), fleet, "a2") for fleet in (here, there)]
        [hold] = [answer for answer in answers if isinstance(answer, Hold)]
        assert hold.wanted is not None
        assert hold.wanted.pod.name == "pod-1"

        at_last = ask(placement(), there if answers[1] is hold else here, "a2", may_hold=False)
        assert isinstance(at_last, Pick)

    def test_a_pod_that_has_the_adapter_is_worth_a_wait_where_others_would_fetch_it_from_a_store(
        self,
    ) -> None:
        here, there = fleet_of(2), fleet_of(2)
        for number in (1, 2):
            occupy(here, number, "a1" if number == 1 else "a3")
        for fleet in (here, there):
            for number in (1, 2):
                fleet.ledger.reserve(state_of(fleet, number), f"idle-{number}").release()
        self.exchange(here, there, 0.1)
        for fleet in (here, there):
            [other] = [pod for pod in fleet if not pod.beliefs.may_take_slot("a2")]
            fleet.ledger.reserve(other, "a2").release()
            answer = ask(placement(), fleet, "a2")
            assert isinstance(answer, Hold)
            assert answer.wanted is other

    def test_of_two_pods_on_which_it_was_placed_at_once_one_is_left_to_drain(self) -> None:
        here, there = fleet_of(2), fleet_of(2)
        occupy(here, 1, "a1", "a1")
        occupy(there, 2, "a1")
        assert pod_of(ask(placement(), here, "a1")) is state_of(here, 1)
        self.exchange(here, there, 0.1)
        # Both routers see both pods and prefer the one with more of the adapter's requests ...
        for fleet in (here, there):
            assert pod_of(ask(placement(), fleet, "a1")) is state_of(fleet, 1)
        # ... until it has too many other requests.
        for _ in range(3):
            there.ledger.reserve(state_of(there, 1), None)
        self.exchange(here, there, 0.2)
        for fleet in (here, there):
            assert pod_of(ask(placement(), fleet, "a1")) is state_of(fleet, 2)

    def test_a_copy_that_drains_is_joined_before_the_adapter_takes_a_further_slot(self) -> None:
        here, there = fleet_of(3, slots=4), fleet_of(3, slots=4)
        occupy(here, 1, *["a1"] * 12)
        occupy(there, 2, "a1")
        # On the third pod it is loaded, so that nothing but a slot has to be paid there.
        for fleet in (here, there):
            fleet.ledger.reserve(state_of(fleet, 3), "a1").release()
        self.exchange(here, there, 0.1)
        # The first pod would be preferred, so that the other copy drains, but it is so busy that a
        # further slot would be cheaper.
        for fleet in (here, there):
            answer = ask(placement(), fleet, "a1")
            assert pod_of(answer) is state_of(fleet, 2)
            assert isinstance(answer, Pick)
            assert answer.reason == "joined"

    def test_the_slot_that_another_router_closes_is_joined_no_more(self) -> None:
        here, there = fleet_of(1), fleet_of(1)
        occupy(here, 1, "a1", "a1")
        occupy(there, 1, "a2")
        self.exchange(here, there, 0.1)
        router = Router(here)
        router.held("a3")
        router.clock.advance(PATIENCE_SECONDS)
        # Of the requests of both routers, the fewest are for the adapter of the other router.
        assert router.director.held_adapters()["a3"].closed == ("pod-1", "a2")

        held = {"a3": HeldShare(6.0, closed=("pod-1", "a2"))}
        there.put_peer(here.report_to_peers("here", 0.1, held, 0.2), 0.2)
        assert isinstance(ask(placement(), there, "a2"), Hold)


@pytest.mark.parametrize("pods", [4, 40])
def test_while_requests_wait_for_a_slot_others_wait_too_but_for_those_that_can_join(
    pods: int,
) -> None:
    router = Router(fleet_of(pods, slots=1))
    held = [router.fleet.ledger.reserve(state, "a1") for state in router.fleet]
    for adapter in ("a2", "a3", "a2"):
        router.held(adapter)
    router.routed("a1").reservation.release()

    held[2].release()
    assert router.late_names == ["a2", "a2"]
    held[3].release()
    assert router.late_pod("a3") is state_of(router.fleet, 4)


@pytest.mark.parametrize("written", ["much", "-1", "101"])
def test_a_weight_that_makes_no_sense_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=f"^prefix_weight={written}: must be a number, from 0 to"):
        placement(prefix_weight=written)


class Chats:
    """A fleet of pods with free slots, and prompts that begin alike."""

    def __init__(self, pods: int = 2) -> None:
        self.fleet = fleet_of(pods, slots=4)
        self.clock = ManualClock()
        self.fleet.ledger.now = self.clock.now

    def ask(
        self, adapter: str | None, prompt: Prompt, algorithm: LoraPlacement | None = None
    ) -> Pick:
        request = InferenceRequest(adapter or "base", adapter, prompt=prompt)
        candidates = Candidates.of(self.fleet.ready(), prefixes=self.fleet.prefixes)
        answer = (algorithm or placement()).pick(request, candidates, self.clock.now())
        assert isinstance(answer, Pick)
        return answer

    def had(self, number: int, adapter: str | None, prompt: Prompt) -> None:
        """Have a pod process a prompt, and end the request."""
        state = state_of(self.fleet, number)
        self.fleet.ledger.reserve(state, adapter).release()
        self.fleet.prefixes.sent(state, adapter or "base", prompt)


def chat(blocks: int, tokens: int = 1000) -> Prompt:
    ends = range(tokens, tokens * blocks + 1, tokens)
    return Prompt(tokens * blocks, range(blocks), ends)


@pytest.mark.parametrize("adapter", [None, "a1"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_chat_goes_on_where_its_beginning_is(adapter: str | None, number: int) -> None:
    chats = Chats()
    for each in (1, 2):
        chats.had(each, adapter, Prompt(1))
    chats.had(number, adapter, chat(8))
    answer = chats.ask(adapter, chat(9))
    assert answer.pod is state_of(chats.fleet, number)
    assert answer.tokens == 1000


def test_it_does_not_where_so_many_wait_that_computing_it_anew_is_faster() -> None:
    chats = Chats()
    prompt = chat(1, tokens=500)
    chats.had(1, None, prompt)
    # Half a thousand tokens take 50 ms, which is what ten requests cost, times the weight.
    few = int(10 * PREFIX_WEIGHT.usual)
    occupy(chats.fleet, 1, *["a1"] * (few - 1))
    assert chats.ask(None, prompt).pod is state_of(chats.fleet, 1)
    occupy(chats.fleet, 1, "a1", "a1")
    answer = chats.ask(None, prompt)
    assert (answer.pod, answer.tokens) == (state_of(chats.fleet, 2), 500)


def test_a_chat_of_another_adapter_has_nothing_in_common() -> None:
    chats = Chats(1)
    chats.had(1, "a1", chat(8))
    assert chats.ask("a2", chat(8)).tokens == 8000


def test_a_prefix_weight_of_0_leaves_it_out() -> None:
    chats = Chats()
    chats.had(1, None, chat(8))
    occupy(chats.fleet, 1, "a1")
    assert chats.ask(None, chat(9), placement(prefix_weight="0")).pod is state_of(chats.fleet, 2)


def test_prompts_on_their_way_are_load_until_they_are_processed() -> None:
    chats = Chats()
    state = state_of(chats.fleet, 1)
    chats.fleet.ledger.reserve(state, None, tokens=30_000)
    occupy(chats.fleet, 2, "a1", "a1", "a1")
    assert chats.ask(None, Prompt(100)).pod is state_of(chats.fleet, 2)
    chats.clock.advance(3.0)
    assert chats.ask(None, Prompt(100)).pod is state


def test_adapters_on_disk_are_not_loaded_on_the_same_pod_one_after_the_other() -> None:
    router = Router(fleet_of(2, slots=4))
    first = router.routed("a1", stream=True).reservation.state
    [other] = (state for state in router.fleet if state is not first)
    router.fleet.ledger.reserve(other, None)
    router.fleet.ledger.reserve(other, None)
    router.clock.advance(0.5)
    assert router.routed("a2", stream=True).reservation.state is other


def test_a_hot_adapter_takes_no_further_slot_because_its_pod_loads_another_one() -> None:
    fleet = fleet_of(2, slots=4)
    occupy(fleet, 1, "a1")
    state_of(fleet, 1).work.begin_load(1.5, 0.0)
    assert pod_of(ask(placement(), fleet, "a1")) is state_of(fleet, 1)


def test_a_pod_whose_kv_cache_is_nearly_full_is_avoided_while_the_scrape_is_fresh() -> None:
    fleet = fleet_of(2)
    occupy(fleet, 2, "a1", "a1", "a1")
    full = replace(make_metrics(max_lora=2), running=0.0, kv_cache_usage=0.95, scraped_at=1.0)
    fleet.put_metrics(state_of(fleet, 1), full)
    assert pod_of(ask(placement(), fleet, None, now=2.0)) is state_of(fleet, 2)
    assert pod_of(ask(placement(), fleet, None, now=100.0)) is state_of(fleet, 1)


def test_a_request_on_a_pod_that_answers_slowly_counts_for_several() -> None:
    fleet = fleet_of(2)
    state_of(fleet, 1).work.slowness = 3.0
    occupy(fleet, 1, "a1")
    occupy(fleet, 2, "a2", "a2")
    assert pod_of(ask(placement(), fleet, None)) is state_of(fleet, 2)
    assert pod_of(ask(placement(speed_weight="0"), fleet, None)) is state_of(fleet, 1)


def test_a_long_prompt_goes_where_few_wait_for_it_and_a_short_one_joins() -> None:
    fleet = fleet_of(2, slots=4)
    for state in fleet:
        state.beliefs.load_seconds = 0.0, 0.08, 0.08
    occupy(fleet, 1, *["a1"] * 6)
    candidates = Candidates.of(fleet.ready())
    for tokens, number in ((100, 1), (10_000, 2)):
        request = InferenceRequest("a1", "a1", prompt=Prompt(tokens))
        assert pod_of(placement().pick(request, candidates, 1.0)) is state_of(fleet, number)


def test_a_long_prompt_does_not_make_the_last_slots_free() -> None:
    fleet = fleet_of(2, slots=2)
    for state in fleet:
        state.beliefs.load_seconds = 0.0, 0.08, 0.08
    occupy(fleet, 1, "a2", "a1")
    occupy(fleet, 2, "a3")
    request = InferenceRequest("a1", "a1", prompt=Prompt(20_000))
    answer = placement().pick(request, Candidates.of(fleet.ready()), 1.0)
    assert isinstance(answer, Pick)
    assert answer.reason == "joined"


def test_an_adapter_weight_of_0_makes_loads_cost_nothing() -> None:
    fleet = fleet_of(2, slots=4)
    occupy(fleet, 1, *["a1"] * 6)
    assert pod_of(ask(placement(), fleet, "a1")) is state_of(fleet, 1)
    assert pod_of(ask(placement(adapter_weight="0"), fleet, "a1")) is state_of(fleet, 2)
