"""The published policies of the simulator: each does what its source says, in a small fleet."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.prompt import Prompt
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.registry import UnknownAlgorithmError, installed
from lora_router.simulator.algorithms import check_known, known_algorithms, make_algorithm
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.policies.dynamo_lora import replica_counts
from lora_router.simulator.policies.sent_requests import ActivePrompts, SentRequests
from lora_router.simulator.policies.table import POLICIES
from tests.fleet import make_metrics, state_of
from tests.unit.routing.choices import in_flight
from tests.unit.routing.prompts import asks, has_seen
from tests.unit.simulator.policies.fleets import ADAPTERS, ask, candidates, fleet_of, policy, send

PAGE = (Path(__file__).parents[4] / "docs" / "policies.md").read_text()


def sql(*chunks: int) -> InferenceRequest:
    return asks(*(chunks or (1,)))


def used(fleet: Fleet, number: int, *adapters: str) -> None:
    """Let requests for adapters begin and end on a pod."""
    for adapter in adapters:
        fleet.ledger.reserve(state_of(fleet, number), adapter).release()


class TestTheTable:
    def test_the_documentation_has_a_row_for_each_policy(self) -> None:
        for name, found in POLICIES.items():
            assert f"| `{name}` | {found.about} | {found.source} |" in PAGE

    def test_it_has_a_row_for_each_published_algorithm_that_serves(self) -> None:
        ours = {"lora-placement", "random"}
        for name in installed():
            assert name in ours or f"`{name}`" in PAGE

    @pytest.mark.slow
    def test_each_policy_has_the_name_of_its_row_and_none_hides_an_installed_one(self) -> None:
        assert not POLICIES.keys() & installed().keys()
        for name in POLICIES:
            assert policy(name).name == name

    def test_an_unknown_name_is_refused_with_those_that_exist(self) -> None:
        with pytest.raises(UnknownAlgorithmError, match=r"'best'; known are cost, .*toppings"):
            check_known(["cost", "best"])
        with pytest.raises(UnknownAlgorithmError):
            make_algorithm("best", AlgorithmOptions())


class TestCost:
    def test_a_pod_that_has_the_adapter_in_a_slot_is_cheaper_than_a_load(self) -> None:
        fleet = fleet_of(3)
        used(fleet, 2, "sql-lora")
        in_flight(fleet, 2, None, 20)

        assert ask(policy("cost"), fleet, sql()) == "pod-2"

    def test_a_load_from_host_memory_is_cheaper_than_a_slow_step(self) -> None:
        fleet = fleet_of(2, slots=1)
        used(fleet, 1, "sql-lora")
        used(fleet, 2, "sql-lora", "law-lora")
        in_flight(fleet, 1, None, 200)  # 0.1 s more for each step; a load takes 0.08 s.

        assert ask(policy("cost"), fleet, sql()) == "pod-2"

    def test_a_full_pod_costs_the_wait_for_a_slot(self) -> None:
        fleet = fleet_of(2, slots=1)
        used(fleet, 1, "sql-lora")
        in_flight(fleet, 1, "law-lora")

        assert ask(policy("cost"), fleet, sql()) == "pod-2"

    def test_without_a_slot_it_queues_where_the_fewest_adapters_wait(self) -> None:
        fleet = fleet_of(2, slots=1)
        for adapter in ("law-lora", "med-lora"):
            in_flight(fleet, 1, adapter)
        in_flight(fleet, 2, "fin-lora")

        assert ask(policy("cost"), fleet, sql()) == "pod-2"

    def test_prompts_that_are_not_processed_yet_are_waited_for(self) -> None:
        fleet = fleet_of(2)
        used(fleet, 1, "sql-lora")
        fleet.ledger.reserve(state_of(fleet, 1), None, tokens=40_000.0)

        assert ask(policy("cost"), fleet, sql()) == "pod-2"
        assert ask(policy("cost"), fleet, sql(), now=1e9) == "pod-1"


class TestHold:
    def test_a_request_without_a_slot_waits_in_the_router(self) -> None:
        fleet = fleet_of(2, slots=1)
        in_flight(fleet, 1, "law-lora")
        in_flight(fleet, 2, "med-lora")

        assert ask(policy("hold"), fleet, sql()) is None
        assert ask(policy("hold"), fleet, asks(1, model="law-lora")) == "pod-1"
        assert ask(policy("hold"), fleet, asks(1, model="base")) in {"pod-1", "pod-2"}

    def test_a_request_that_may_not_wait_goes_where_the_wait_is_least(self) -> None:
        fleet = fleet_of(2, slots=1)
        for adapter in ("law-lora", "med-lora"):
            in_flight(fleet, 1, adapter)
        in_flight(fleet, 2, "fin-lora")

        late = InferenceRequest("sql-lora", "sql-lora", may_hold=False)
        assert ask(policy("hold"), fleet, late) == "pod-2"


class TestToppings:
    def test_a_load_costs_as_much_as_the_requests_that_it_delays(self) -> None:
        fleet = fleet_of(2)
        used(fleet, 2, "sql-lora")
        in_flight(fleet, 1, None, 4)
        in_flight(fleet, 2, None, 30)  # 31 * 0.5 ms against 5 * (0.5 ms + 1.5 s / 200).

        assert ask(policy("toppings"), fleet, sql()) == "pod-2"
        in_flight(fleet, 2, None, 60)
        assert ask(policy("toppings"), fleet, sql()) == "pod-1"

    def test_of_these_the_one_where_the_request_delays_the_fewest_others_is_picked(self) -> None:
        fleet = fleet_of(3)
        for number, requests in ((1, 9), (2, 3), (3, 6)):
            used(fleet, number, "sql-lora")
            in_flight(fleet, number, None, requests)

        assert ask(policy("toppings"), fleet, sql()) == "pod-2"

    def test_a_pod_that_would_miss_the_objective_is_avoided(self) -> None:
        fleet = fleet_of(2, slots=1)
        used(fleet, 1, "sql-lora")
        used(fleet, 2, "sql-lora", "law-lora")
        in_flight(fleet, 1, None, 60)  # A step of 20 ms + 0.5 ms a request is above 50 ms.
        in_flight(fleet, 2, None, 59)

        slow = EngineOptions(host_load_seconds=1.0)
        assert ask(policy("toppings", slow), fleet, sql()) == "pod-2"
        in_flight(fleet, 2, None, 1)
        assert ask(policy("toppings", slow), fleet, sql()) == "pod-1"

    def test_pods_without_room_are_considered_only_if_no_pod_has_room(self) -> None:
        fleet = fleet_of(2, slots=1)
        used(fleet, 1, "sql-lora")
        in_flight(fleet, 1, "law-lora")

        assert ask(policy("toppings"), fleet, sql()) == "pod-2"

        for _ in range(2):
            in_flight(fleet, 2, "med-lora")
        assert ask(policy("toppings"), fleet, sql()) == "pod-1"


class TestDynamoKv:
    def test_cached_blocks_are_not_computed_again(self) -> None:
        fleet = fleet_of(3)
        has_seen(fleet, 3, 1, 2)

        assert ask(policy("dynamo-kv"), fleet, sql(1, 2, 3)) == "pod-3"

    def test_blocks_in_use_and_prompts_on_their_way_count(self) -> None:
        fleet, dynamo = fleet_of(2), policy("dynamo-kv")
        first = send(dynamo, fleet, sql(*range(10)))

        assert {send(dynamo, fleet, sql(20 + number)) for number in range(5)} != {first}
        assert ask(dynamo, fleet, sql(99)) != first

    def test_blocks_that_several_prompts_begin_with_count_once(self) -> None:
        fleet, active = fleet_of(1), ActivePrompts()
        pod = state_of(fleet, 1)
        first, second = sql(1, 2, 4, 5), sql(1, 2, 3, 6)
        assert first.prompt is not None
        tokens = first.prompt.tokens
        chunk = first.prompt.ends[0]
        assert tokens == 4 * chunk

        assert active.tokens_with(pod, first, tokens) == 4 * chunk
        active.add(pod, first, tokens)
        reservation = fleet.ledger.reserve(pod, "sql-lora")
        assert active.tokens_with(pod, second, tokens) == 6 * chunk
        assert active.tokens_with(pod, first, tokens + 7) == 4 * chunk + 7
        # Another model has none of it.
        other = asks(1, 2, 3, 6, model="law-lora")
        assert active.tokens_with(pod, other, tokens) == 8 * chunk

        active.add(pod, second, tokens)
        other_reservation = fleet.ledger.reserve(pod, "sql-lora")
        reservation.release()
        assert active.tokens_with(pod, sql(9), chunk) == 5 * chunk
        other_reservation.release()
        assert active.tokens_with(pod, sql(9), chunk) == chunk

    def test_a_system_prompt_that_is_in_use_does_not_make_a_worker_cost_more(self) -> None:
        fleet, dynamo = fleet_of(2), policy("dynamo-kv")
        beginning = range(10)
        for number in (1, 2):
            has_seen(fleet, number, *beginning)
        in_use = send(dynamo, fleet, sql(*beginning, 100))
        # Another prompt as long costs more than one more with the beginning that is there.
        assert send(dynamo, fleet, sql(*range(200, 211))) != in_use

        assert ask(dynamo, fleet, sql(*beginning, 101), now=60.0) == in_use

    def test_blocks_are_free_again_when_the_requests_have_ended(self) -> None:
        fleet, dynamo = fleet_of(2), policy("dynamo-kv")
        state = state_of(fleet, 1)
        has_seen(fleet, 1, 0, 1)
        assert ask(dynamo, fleet, sql(0, 1, 2)) == "pod-1"
        fleet.ledger.reserve(state, "sql-lora").release()

        # Its blocks would cost more than those that are cached save.
        assert ask(dynamo, fleet, sql(0, 1, 3), now=60.0) == "pod-1"


class TestDynamoLora:
    def test_the_shares_of_the_arrivals_decide_the_replicas(self) -> None:
        assert replica_counts({"a": 60, "b": 30, "c": 10}, slots=10, workers=8) == {
            "a": 6, "b": 3, "c": 1,
        }  # fmt: skip

    def test_an_adapter_has_at_least_one_replica_and_at_most_one_on_each_worker(self) -> None:
        assert replica_counts({"a": 99, "b": 1}, slots=16, workers=4) == {"a": 4, "b": 1}

    def test_replicas_beyond_the_slots_are_scaled_down(self) -> None:
        assert replica_counts({"a": 50, "b": 50}, slots=2, workers=10) == {"a": 1, "b": 1}
        assert sum(replica_counts({"a": 34, "b": 33, "c": 33}, slots=4, workers=4).values()) == 4

    def test_with_more_adapters_than_slots_those_with_the_most_load_have_replicas(self) -> None:
        assert replica_counts({"a": 1, "b": 3, "c": 2}, slots=2, workers=2) == {"b": 1, "c": 1}

    def test_a_rare_adapter_stays_on_its_worker(self) -> None:
        fleet, dynamo = fleet_of(8), policy("dynamo-lora")
        for number in range(200):
            send(dynamo, fleet, asks(number, model="law-lora"), now=number * 0.1)
        rare = {send(dynamo, fleet, sql(number), now=20.0 + 4 * number) for number in range(6)}

        assert len(rare) <= 2  # The first request comes before the first allocation.

    def test_a_popular_adapter_uses_the_workers_on_which_it_is_loaded(self) -> None:
        fleet, dynamo = fleet_of(4), policy("dynamo-lora")
        for number in (1, 2, 3):
            used(fleet, number, "sql-lora")

        found = {send(dynamo, fleet, sql(number), now=number * 0.1) for number in range(200)}

        assert found == {"pod-1", "pod-2", "pod-3"}


class TestStickySessions:
    def test_a_session_stays_and_sessions_of_an_adapter_use_two_pods(self) -> None:
        fleet, sticky = fleet_of(8), policy("sticky-sessions")
        homes: dict[int, set[str | None]] = {session: set() for session in range(40)}
        for turn in range(1, 5):
            for session, pods in homes.items():
                beginning = [1000 + session * 10 + number for number in range(turn + 1)]
                pods.add(send(sticky, fleet, sql(*beginning)))

        assert all(len(pods) == 1 for pods in homes.values())
        assert len(set().union(*homes.values())) == 2

    def test_a_common_system_prompt_makes_no_session(self) -> None:
        fleet, sticky = fleet_of(8), policy("sticky-sessions")
        pods = [send(sticky, fleet, sql(1, 10 + n, 50 + n, 90 + n)) for n in range(20)]

        assert sorted(pods.count(name) for name in set(pods)) == [10, 10]


class TestLMetric:
    def test_cached_tokens_and_few_requests_are_worth_as_much(self) -> None:
        fleet, metric = fleet_of(2), policy("l-metric-local")
        has_seen(fleet, 1, 1, 2, 3)  # It lacks 1 chunk of 4.
        in_flight(fleet, 1, None, 2)

        assert ask(metric, fleet, sql(1, 2, 3, 4)) == "pod-1"  # 1 * 3 against 4 * 1.
        in_flight(fleet, 1, None, 2)
        assert ask(policy("l-metric-local"), fleet, sql(1, 2, 3, 4)) == "pod-2"  # 1 * 5.

    def test_tokens_that_other_requests_lacked_count_until_they_end(self) -> None:
        fleet, metric = fleet_of(2), policy("l-metric-local")
        first = send(metric, fleet, sql(*range(8)))

        assert send(metric, fleet, sql(20)) != first
        assert send(metric, fleet, sql(21)) != first


class TestPreble:
    def test_a_prompt_of_which_more_than_half_is_known_goes_where_it_was(self) -> None:
        fleet, preble = fleet_of(4), policy("prefix-cache-preble")
        home = send(preble, fleet, sql(1, 2, 3))
        for number in range(10):
            send(preble, fleet, sql(100 + number))

        assert send(preble, fleet, sql(1, 2, 3, 4)) == home

    def test_other_prompts_go_where_recent_ones_cost_the_least(self) -> None:
        fleet, preble = fleet_of(3), policy("prefix-cache-preble")
        pods = [send(preble, fleet, sql(10 * number)) for number in range(9)]

        assert sorted(pods.count(name) for name in set(pods)) == [3, 3, 3]

    @pytest.mark.parametrize("prompt", [None, Prompt(40.0)], ids=["no name", "below one chunk"])
    def test_prompts_without_chunks_go_there_too(self, prompt: Prompt | None) -> None:
        fleet, preble = fleet_of(4), policy("prefix-cache-preble")
        asked = InferenceRequest("sql-lora", "sql-lora", size=160, prompt=prompt)
        pods = [send(preble, fleet, asked, now=0.01 * number) for number in range(16)]

        assert sorted(pods.count(name) for name in set(pods)) == [4, 4, 4, 4]

    def test_another_model_has_none_of_it(self) -> None:
        fleet, preble = fleet_of(2), policy("prefix-cache-preble")
        home = send(preble, fleet, sql(1, 2, 3))

        assert send(preble, fleet, asks(1, 2, 3, 4, model="law-lora")) != home

    def test_in_an_imbalanced_fleet_only_the_least_loaded_pods_are_considered(self) -> None:
        fleet, preble = fleet_of(2), policy("prefix-cache-preble")
        home = send(preble, fleet, sql(1, 2, 3))
        assert home is not None
        in_flight(fleet, int(home.removeprefix("pod-")), None, 17)

        assert ask(preble, fleet, sql(1, 2, 3, 4)) != home

    def test_what_is_old_is_forgotten(self) -> None:
        fleet, preble = fleet_of(2), policy("prefix-cache-preble")
        send(preble, fleet, sql(1, 2, 3))

        answer = preble.pick(sql(1, 2, 3, 4), candidates(fleet), 301.0)

        assert isinstance(answer, Pick)
        assert answer.reason == "least-cost"


class TestLlmdDefault:
    def test_adapters_do_not_matter(self) -> None:
        fleet, default = fleet_of(2), policy("llm-d-default")
        fleet.put_metrics(state_of(fleet, 1), make_metrics(["sql-lora"]))

        assert {ask(default, fleet, sql()) for _ in range(50)} == {"pod-1", "pod-2"}

    def test_the_kv_cache_does(self) -> None:
        fleet = fleet_of(2)
        full = replace(make_metrics(), kv_cache_usage=0.9)
        fleet.put_metrics(state_of(fleet, 1), full)

        assert ask(policy("llm-d-default"), fleet, sql()) == "pod-2"


def test_sent_requests_are_forgotten_in_the_order_in_which_they_were_sent() -> None:
    fleet, sent = fleet_of(1), SentRequests()
    pod = state_of(fleet, 1)
    reservations = []
    for size in (10.0, 20.0, 40.0):
        sent.add(pod, "sql-lora", size)
        reservations.append(fleet.ledger.reserve(pod, "sql-lora"))
    sent.add(pod, None, 5.0)
    other = fleet.ledger.reserve(pod, None)
    assert sent.size_on(pod) == 75.0

    reservations[2].release()
    assert sent.size_on(pod) == 65.0

    for reservation in (*reservations[:2], other):
        reservation.release()
    assert sent.size_on(pod) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("name", [*sorted(POLICIES), "prefix-cache", "weighted-scores"])
@pytest.mark.parametrize("seed", range(4))
def test_a_pick_is_always_a_candidate_and_the_same_seed_picks_the_same(
    name: str, seed: int
) -> None:
    def run() -> list[str | None]:
        rng = random.Random(seed)
        fleet = fleet_of(rng.randint(1, 6), slots=rng.randint(1, 3))
        algorithm, open_requests, found = policy(name), [], []
        for number in range(40):
            model = rng.choice(("base", *ADAPTERS))
            chunks = [rng.randint(1, 2) for _ in range(rng.randint(1, 4))]
            request = asks(*chunks, model=model)
            pod = ask(algorithm, fleet, request, now=number * 0.5)  # It checks the membership.
            found.append(pod)
            if pod is not None:
                state = state_of(fleet, int(pod.removeprefix("pod-")))
                open_requests.append(fleet.ledger.reserve(state, request.adapter))
                assert request.prompt is not None
                fleet.prefixes.sent(state, model, request.prompt)
            if open_requests and rng.random() < 0.5:
                open_requests.pop(rng.randrange(len(open_requests))).release()
        return found

    assert run() == run()


def test_all_of_them_can_be_simulated_beside_the_installed_ones() -> None:
    assert {*POLICIES, *installed()} == set(known_algorithms())
