"""The loader brings the fleet to where adapters belong."""

from collections.abc import Generator, Mapping, Sequence

import pytest

from lora_router.adapters.calls import Call, Outcome
from lora_router.adapters.declared import DeclaredAdapter, WantedPods
from lora_router.adapters.demand import Demand
from lora_router.adapters.dispatch import LoaderOptions
from lora_router.adapters.outcomes import NOT_LISTED
from lora_router.adapters.planner import Planner
from lora_router.adapters.planning import Plan
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.pod_state import PodState
from tests.fleet import make_pod
from tests.unit.adapters.loading import Loading, adapter, adapters

ONE_COPY = WantedPods(copies=1)


def test_declared_adapters_are_loaded_from_nothing() -> None:
    loading = Loading(2, memory=8, declared=adapters(8))

    loading.run(3.0)

    assert loading.everywhere() == {f"a{number}" for number in range(8)}
    loads = loading.loader.tally.calls["load", "done"]
    assert loads == loading.loader.tally.load_times.count == len(loading.pods.calls)
    assert loading.loader.surveys.last.loaded == 8


def test_a_pod_loads_one_adapter_at_a_time_and_the_fleet_so_many_as_allowed() -> None:
    options = LoaderOptions(loads_at_once=2)
    loading = Loading(4, memory=8, declared=adapters(16), options=options)

    loading.run(3.0)

    assert loading.pods.most_running == 2
    assert len(loading.everywhere()) == 16


def test_an_adapter_that_is_declared_later_is_loaded_at_once() -> None:
    loading = Loading(2, declared=adapters(1))
    loading.run(2.0)

    loading.declarations.replace("file", adapters(2))
    loading.run(0.6)

    assert "a1" in loading.everywhere()


def test_adapters_that_nobody_declared_are_left_alone_and_count_in_memory() -> None:
    loading = Loading(1, memory=3, declared=adapters(4), listed=("by-hand", "module"))

    loading.run(3.0)

    assert len(loading.loaded(1)) == 3
    assert {"by-hand", "module"} <= set(loading.loaded(1))
    assert not any(call.action == "unload" for call in loading.pods.calls)


def test_the_least_asked_adapter_makes_room_when_memory_is_full() -> None:
    first, second = adapter("old"), adapter("new")
    loading = Loading(1, memory=1, declared=[first])
    loading.run(1.0)
    assert loading.loaded(1) == ["old"]

    loading.declarations.replace("file", [first, second])
    loading.demand = Demand({"new": 5.0})
    loading.run(3.0)

    assert loading.loaded(1) == ["new"]
    assert [call.action for call in loading.pods.calls] == ["load", "unload", "load"]


def test_an_adapter_with_requests_is_not_unloaded_for_another() -> None:
    first, second = adapter("old"), adapter("new")
    loading = Loading(1, memory=1, declared=[first])
    loading.run(1.0)
    running = loading.fleet.ledger.reserve(loading.state(1), "old")
    loading.declarations.replace("file", [first, second])
    loading.demand = Demand({"new": 5.0})

    loading.run(5.0)
    assert loading.loaded(1) == ["old"]
    assert loading.loader.pods[loading.state(1)].put_off == "memory"

    running.release()
    loading.run(3.0)
    assert loading.loaded(1) == ["new"]


def test_an_adapter_for_which_requests_are_held_is_not_unloaded() -> None:
    first, second = adapter("old"), adapter("new")
    loading = Loading(1, memory=1, declared=[first])
    loading.run(1.0)
    loading.held.add("old")
    loading.declarations.replace("file", [first, second])
    loading.demand = Demand({"new": 5.0})

    loading.run(5.0)

    assert loading.loaded(1) == ["old"]


def test_a_request_that_comes_while_an_adapter_is_withdrawn_keeps_it() -> None:
    first, second = adapter("old"), adapter("new")
    loading = Loading(1, memory=1, declared=[first], options=LoaderOptions(grace_seconds=1.0))
    loading.run(1.0)
    loading.declarations.replace("file", [first, second])
    loading.demand = Demand({"new": 5.0})
    loading.run(0.5)
    assert "old" not in loading.state(1).adapters, "requests go elsewhere"

    # It was decided before.
    loading.fleet.ledger.reserve(loading.state(1), "old")
    loading.run(1.0)

    assert "old" in loading.state(1).adapters
    assert not any(call.action == "unload" for call in loading.pods.calls)


def test_a_pinned_adapter_stays() -> None:
    first, second = adapter("old", pinned=True), adapter("new")
    loading = Loading(1, memory=1, declared=[first])
    loading.run(1.0)

    loading.declarations.replace("file", [first, second])
    loading.demand = Demand({"new": 5.0})
    loading.run(5.0)

    assert loading.loaded(1) == ["old"]


def test_an_adapter_that_is_no_longer_declared_is_unloaded() -> None:
    loading = Loading(2, declared=adapters(3))
    loading.run(2.0)

    loading.declarations.replace("file", adapters(2))
    loading.run(2.0)

    assert loading.everywhere() == {"a0", "a1"}


def test_an_unload_that_fails_is_tried_again_later_and_later() -> None:
    loading = Loading(1, declared=adapters(1))
    loading.run(1.0)
    loading.pods.calls.clear()
    loading.pods.answer = lambda _: "refused"

    loading.declarations.replace("file", [])
    loading.run(60.0)

    assert 4 <= len(loading.pods.calls) <= 8, "after 1, 2, 4 s and so on"
    assert "a0" in loading.state(1).adapters, "it serves meanwhile"


def test_an_older_version_is_unloaded_after_its_last_request() -> None:
    loading = Loading(1, declared=[adapter("a", version="1")])
    loading.run(1.0)
    running = loading.fleet.ledger.reserve(loading.state(1), "a@1")

    loading.declarations.replace("file", [adapter("a", version="2", source="/lora/new")])
    loading.run(3.0)
    assert loading.loaded(1) == ["a@1", "a@2"]

    running.release()
    loading.run(3.0)
    assert loading.loaded(1) == ["a@2"]


def test_an_older_version_stays_while_it_has_a_share_of_the_requests() -> None:
    loading = Loading(1, declared=[adapter("a", version="1")])
    loading.run(1.0)

    loading.declarations.replace("file", [adapter("a", version="2", share=10)])
    loading.run(5.0)

    assert loading.loaded(1) == ["a@1", "a@2"]


def test_a_changed_source_replaces_the_adapter_in_place() -> None:
    options = LoaderOptions(in_place=True)
    loading = Loading(1, declared=[adapter("a")], options=options)
    loading.run(1.0)

    loading.declarations.replace("file", [adapter("a", source="/lora/new")])
    loading.run(2.0)

    assert [(call.source, call.in_place) for call in loading.pods.calls] == [
        ("/lora/a", False),
        ("/lora/new", True),
    ]


def test_a_pod_that_says_that_it_loaded_an_adapter_and_does_not_list_it_fails_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loading = Loading(1, memory=4, declared=adapters(2))
    state, pods = loading.state(1), loading.pods

    def read_the_list() -> None:
        """What the pod lists, which is never a0."""
        pods.listed[state].pop("a0", None)
        pods.show(state)
        loading.loader.list_read(state, loading.clock.now())

    caplog.set_level("INFO")
    for _ in range(60):
        loading.run(0.5)
        read_the_list()
    tries = [call for call in pods.calls if call.name == "a0"]
    assert 4 <= len(tries) <= 7, "the pauses double"
    assert [call.is_doubted for call in tries[:3]] == [False, True, True]
    assert loading.loaded(1) == ["a1"]
    failure = loading.loader.failures.get(state, "a0")
    assert failure is not None
    assert failure.reason == NOT_LISTED
    lines = [each.getMessage() for each in caplog.records if "adapter a0" in each.getMessage()]
    assert len(lines) == 2, "one load, one failure"


def test_a_list_that_was_asked_for_before_a_load_says_nothing_about_it() -> None:
    loading = Loading(1, memory=4, declared=adapters(1))
    asked_at = loading.clock.now()
    loading.run(1.0)
    loading.loader.list_read(loading.state(1), asked_at)
    assert loading.loader.pods[loading.state(1)].unproven
    loading.loader.list_read(loading.state(1), loading.clock.now())
    assert not loading.loader.pods[loading.state(1)].unproven
    assert len(loading.loader.failures) == 0


def test_an_adapter_that_is_declared_again_while_it_leaves_stays() -> None:
    loading = Loading(2, declared=adapters(2))
    loading.run(2.0)
    loading.pods.calls.clear()
    loading.declarations.replace("file", adapters(1))
    loading.run(0.2)
    assert all(pod.leaving is not None for pod in loading.loader.pods.values())
    loading.declarations.replace("file", adapters(2))
    loading.run(0.05)
    assert all("a1" in state.adapters for state in loading.fleet)
    loading.run(5.0)
    assert not loading.pods.calls


def test_a_load_that_fails_is_tried_again_and_delays_no_other() -> None:
    loading = Loading(1, memory=4, declared=adapters(3))
    loading.pods.answer = lambda call: "refused" if call.name == "a0" else "done"

    loading.run(1.0)

    assert loading.loaded(1) == ["a1", "a2"]
    failure = loading.loader.failures.get(loading.state(1), "a0")
    assert failure is not None
    assert (failure.reason, failure.count) == ("it is refused", 1)

    loading.run(20.0)
    tries = sum(call.name == "a0" for call in loading.pods.calls)
    assert 3 <= tries <= 6, "the pauses double"

    loading.pods.answer = lambda _: "done"
    loading.run(60.0)
    assert loading.loaded(1) == ["a0", "a1", "a2"]
    assert len(loading.loader.failures) == 0


def test_a_pod_that_takes_no_loads_is_left_alone_for_long() -> None:
    loading = Loading(2, memory=8, declared=adapters(4))
    deaf = loading.state(1)
    loading.pods.answer = lambda call: "cannot-load" if call.state is deaf else "done"

    loading.run(20.0)

    assert len(loading.loaded(2)) == 4
    assert sum(call.state is deaf for call in loading.pods.calls) == 1
    assert loading.loader.pods[deaf].blocked_reason == "it is cannot-load"


@pytest.mark.parametrize("outcome", ["timeout", "unreachable", "already"])
def test_the_list_is_read_before_the_next_call_if_it_is_unknown_what_the_pod_did(
    outcome: Outcome,
) -> None:
    loading = Loading(1, declared=adapters(2))
    state = loading.state(1)
    loading.pods.answer = lambda _: outcome
    loading.run(30.0)
    assert len(loading.pods.calls) == 1
    assert loading.pods.read == [state]

    # It had loaded it.
    loading.pods.answer = lambda _: "done"
    loading.pods.listed[state][loading.pods.calls[0].name] = ""
    loading.pods.show(state)
    loading.loader.list_read(state, loading.clock.now())
    loading.run(2.0)

    assert loading.loaded(1) == ["a0", "a1"]
    assert len(loading.pods.calls) == 2
    assert loading.loader.failures.get(state, "a0") is None or outcome != "already"


def test_a_list_that_was_asked_for_before_the_call_ended_does_not_count() -> None:
    loading = Loading(1, declared=adapters(1))
    loading.pods.answer = lambda _: "timeout"
    asked_at = loading.clock.now()
    loading.run(1.0)

    loading.loader.list_read(loading.state(1), asked_at)
    loading.run(5.0)

    assert len(loading.pods.calls) == 1


def test_loads_stall_a_pod_that_serves_for_a_small_share_of_its_time() -> None:
    loading = Loading(1, memory=100, declared=adapters(50))
    loading.pods.seconds = 0.5
    loading.fleet.ledger.reserve(loading.state(1), None)

    loading.run(60.0)

    # 1 s is saved up, and 5 % of 60 s are 3 s.
    assert 7 <= len(loading.pods.calls) <= 10


def test_an_idle_pod_loads_without_pauses() -> None:
    loading = Loading(1, memory=100, declared=adapters(50))
    loading.pods.seconds = 0.5

    loading.run(30.0)

    assert len(loading.loaded(1)) == 50


def test_an_adapter_for_which_requests_wait_is_loaded_first_and_at_once() -> None:
    loading = Loading(1, memory=100, declared=adapters(50))
    loading.pods.seconds = 0.5
    loading.fleet.ledger.reserve(loading.state(1), None)
    loading.run(10.0)
    last = next(f"a{number}" for number in range(50) if f"a{number}" not in loading.everywhere())

    loading.loader.want(last)
    loading.run(1.1)

    assert last in loading.everywhere()


def test_it_is_loaded_before_what_else_belongs_on_an_idle_pod() -> None:
    loading = Loading(1, memory=100, declared=adapters(50))
    loading.pods.seconds = 0.5
    loading.run(2.0)
    last = next(reversed(loading.loader.pods[loading.state(1)].missing))

    loading.loader.want(last)
    loading.run(1.1)

    assert last in loading.everywhere()


def test_pods_without_requests_load_first() -> None:
    options = LoaderOptions(loads_at_once=1)
    loading = Loading(2, memory=100, declared=adapters(10), options=options)
    loading.fleet.ledger.reserve(loading.state(1), None)

    loading.run(0.35)

    assert {call.state for call in loading.pods.calls} == {loading.state(2)}


def test_a_new_pod_is_loaded() -> None:
    everywhere = [adapter("a", pods=WantedPods(everywhere=True))]
    loading = Loading(1, declared=everywhere)
    loading.run(1.0)

    loading.join(2)
    loading.run(1.0)

    assert loading.loaded(2) == ["a"]


def test_a_pod_whose_server_restarted_is_loaded_again_and_gets_no_requests_until_then() -> None:
    loading = Loading(1, declared=adapters(3))
    loading.run(2.0)
    state = loading.state(1)
    loading.pods.listed[state] = {}

    loading.scrape(state, started_at=2.0)
    loading.run(0.1)
    assert not state.adapters
    assert loading.pods.read == [state]

    loading.loader.list_read(state, loading.clock.now())
    loading.run(2.0)
    assert loading.loaded(1) == ["a0", "a1", "a2"]


def test_another_router_that_loads_leaves_this_one_nothing_to_do() -> None:
    is_loader = False
    loading = Loading(1, declared=adapters(3), is_loader=lambda: is_loader)
    loading.run(5.0)
    assert not loading.pods.calls

    is_loader = True
    loading.run(0.5)
    assert loading.loader.loads
    is_loader = False
    loading.run(0.5)
    calls = len(loading.pods.calls)
    loading.run(5.0)
    assert len(loading.pods.calls) == calls


def test_a_router_that_ceases_to_load_lets_withdrawn_adapters_serve() -> None:
    options = LoaderOptions(grace_seconds=10.0)
    loading = Loading(1, declared=adapters(2), options=options)
    loading.run(2.0)
    loading.declarations.replace("file", adapters(1))
    loading.run(1.0)
    assert "a1" not in loading.state(1).adapters

    loading.loader.stop()

    assert "a1" in loading.state(1).adapters


def test_pods_without_a_known_size_of_host_memory_get_one_adapter() -> None:
    loading = Loading(1, memory=None, declared=adapters(3))
    state = loading.state(1)
    state.beliefs.slots = None
    state.beliefs.memory.resize(None, {}, set(), set())

    loading.run(3.0)

    assert len(loading.loaded(1)) == 1


def test_pods_that_cannot_be_loaded_are_not_called() -> None:
    loading = Loading(1, declared=adapters(1))
    other = make_pod(2, engine="tgi")
    named = make_pod(3, models=("base",))
    for pod in (other, named):
        loading.fleet.upsert(pod)
    state = loading.state(2)
    loading.fleet.put_models(state, [ServedModel("base")])

    loading.run(3.0)

    assert {call.state for call in loading.pods.calls} == {loading.state(1)}


def test_a_pod_that_leaves_during_a_load_does_no_harm() -> None:
    loading = Loading(2, declared=adapters(2))
    loading.pods.seconds = 1.0
    loading.run(0.5)
    for call in tuple(loading.pods.open):
        loading.fleet.remove(call.state.pod.name)
    loading.join(3)

    loading.run(5.0)

    assert loading.loaded(3) == ["a0", "a1"]


def test_every_call_names_the_source_and_the_base_model() -> None:
    loading = Loading(1, declared=[adapter("a", version="7")])

    loading.run(1.0)

    assert loading.pods.calls == [
        Call(loading.state(1), "load", "a@7", "base", "/lora/a", in_place=False)
    ]


def test_an_adapter_for_which_requests_wait_goes_elsewhere_if_a_pod_cannot_load_it() -> None:
    loading = Loading(2, declared=[adapter("a", pods=ONE_COPY)])
    first = loading.state(1)
    loading.pods.answer = lambda call: "refused" if call.state is first else "done"
    loading.demand = Demand(waiting=frozenset({"a"}))
    loading.loader.want("a")

    loading.run(1.5)

    assert loading.loaded(2) == ["a"]
    assert loading.waits.served == ["a"]


def test_requests_are_refused_if_no_pod_can_load_their_adapter() -> None:
    loading = Loading(2, declared=adapters(1))
    loading.pods.answer = lambda _: "refused"
    loading.loader.want("a0")
    loading.demand = Demand(waiting=frozenset({"a0"}))

    loading.run(3.0)

    assert set(loading.waits.refused) == {("a0", "no pod can load it")}


def test_a_request_makes_pods_try_again_whose_pause_is_over() -> None:
    loading = Loading(2, declared=adapters(1))
    loading.pods.answer = lambda _: "refused"
    loading.run(1.0)
    for state in loading.loader.pods:
        failure = loading.loader.failures.get(state, "a0")
        assert failure is not None
        failure.next_at = loading.clock.now() - 1.0
    tries = len(loading.pods.calls)
    loading.loader.want("a0")
    loading.demand = Demand(waiting=frozenset({"a0"}))
    loading.clock.advance(0.05)
    assert len(loading.pods.calls) > tries
    assert not loading.waits.refused, "it is being tried"
    loading.run(1.0)
    assert set(loading.waits.refused) == {("a0", "no pod can load it")}


def test_an_adapter_for_which_requests_wait_takes_the_place_of_another() -> None:
    loading = Loading(1, memory=2, declared=adapters(2))
    loading.run(2.0)
    loading.declarations.replace("file", adapters(3))
    loading.run(2.0)
    assert "a2" not in loading.everywhere()

    loading.demand = Demand(waiting=frozenset({"a2"}))
    loading.loader.want("a2")
    loading.run(1.5)

    assert "a2" in loading.everywhere()
    assert len(loading.loaded(1)) == 2


def test_where_another_router_loads_lists_are_read_while_requests_wait() -> None:
    loading = Loading(1, declared=adapters(1), is_loader=lambda: False)
    loading.loader.want("a0")
    loading.loader.want("unknown")
    loading.run(1.0)
    assert loading.looks > 1

    state = loading.state(1)
    loading.pods.listed[state]["a0"] = ""
    loading.pods.show(state)
    before = loading.looks
    loading.run(1.0)

    assert loading.looks == before


def test_an_adapter_is_loaded_where_the_requests_that_wait_for_it_may_go() -> None:
    loading = Loading(3)
    loading.run(1.0)
    loading.waits.barred = {"pod-1", "pod-2"}
    loading.declarations.add("template", adapter("a"))
    loading.loader.want("a")
    loading.run(0.2)
    assert loading.loaded(3) == ["a"]


def test_an_adapter_for_which_requests_wait_is_loaded_where_slots_are_least_asked_for() -> None:
    class NoPlanner(Planner):
        def plan(
            self,
            declared: Mapping[str, DeclaredAdapter],
            pods: Sequence[PodState],
            demand: Demand,
            now: float,
        ) -> Generator[None, None, Plan]:
            yield from super().plan(declared, pods, demand, now)
            return Plan()

    loading = Loading(2, planner=NoPlanner())
    loading.scrape(loading.state(2), slots=8)
    loading.run(1.0)
    for number, requests in ((1, 1), (2, 4)):
        for _ in range(requests):
            loading.fleet.ledger.reserve(loading.state(number), None)
    loading.declarations.add("template", adapter("a"))
    loading.loader.want("a")
    loading.run(0.2)
    assert loading.loaded(2) == ["a"]


def test_requests_for_an_adapter_that_no_pod_may_load_are_refused() -> None:
    loading = Loading(2)
    loading.run(1.0)
    loading.waits.barred = {"pod-1", "pod-2"}
    loading.declarations.add("template", adapter("a"))
    loading.loader.want("a")
    loading.run(0.05)
    why = "none of the pods that the request may go to can load it"
    assert loading.waits.refused == [("a", why)]


@pytest.mark.parametrize("is_declared", [True, False])
def test_requests_are_refused_if_all_memory_is_taken_for_good(is_declared: bool) -> None:
    stays = adapter("stays", pinned=True)
    loading = Loading(1, memory=1, declared=[stays] if is_declared else [])
    if not is_declared:
        loading.pods.listed[loading.state(1)] = {"stays": ""}
        loading.pods.show(loading.state(1))
    loading.run(1.0)
    assert loading.loaded(1) == ["stays"]

    loading.declarations.add("template", adapter("a"))
    loading.loader.want("a")
    loading.run(0.05)

    assert loading.waits.refused == [("a", "no pod has room for it")]


def test_requests_are_refused_if_no_pod_allows_loads() -> None:
    loading = Loading(2, declared=adapters(1))
    loading.pods.answer = lambda _call: "cannot-load"
    loading.demand = Demand(waiting=frozenset({"a0"}))
    loading.loader.want("a0")
    loading.run(2.0)
    assert ("a0", "no pod can load it") in loading.waits.refused


def test_a_new_pod_gets_both_versions_while_the_new_one_gets_a_share() -> None:
    everywhere = WantedPods(everywhere=True)
    loading = Loading(1, declared=[adapter("a", version="1", pods=everywhere)])
    loading.run(2.0)
    canary = adapter("a", version="2", share=10, pods=everywhere)
    loading.declarations.replace("file", [canary])
    loading.run(2.0)
    assert loading.loaded(1) == ["a@1", "a@2"]
    loading.join(2)
    loading.run(8.0)
    assert loading.loaded(2) == ["a@1", "a@2"]

    loading.declarations.replace("file", [adapter("a", version="2", pods=everywhere)])
    loading.run(8.0)
    assert loading.everywhere() == {"a@2"}


def test_a_new_adapter_does_not_wait_for_a_plan_that_takes_long() -> None:
    busy = [False]

    class SlowPlanner(Planner):
        def plan(
            self,
            declared: Mapping[str, DeclaredAdapter],
            pods: Sequence[PodState],
            demand: Demand,
            now: float,
        ) -> Generator[None, None, Plan]:
            while busy[0]:
                yield
            return (yield from super().plan(declared, pods, demand, now))

    loading = Loading(2, memory=8, declared=adapters(2), planner=SlowPlanner())
    loading.run(2.0)
    busy[0] = True
    loading.run(6.0)

    loading.declarations.replace("file", adapters(3))
    loading.run(0.5)

    assert "a2" in loading.everywhere()


def test_a_pod_counts_as_busy_while_it_loads() -> None:
    loading = Loading(1, memory=4, declared=adapters(1))
    loading.fleet.ledger.now = loading.clock.now
    loading.pods.seconds = 1.0
    work = loading.state(1).work

    loading.run(0.6)
    assert work.pending_seconds(loading.clock.now()) > 0

    loading.run(2.0)
    assert loading.loaded(1) == ["a0"]
    assert work.pending_seconds(loading.clock.now()) == 0


def test_loads_that_save_much_more_waiting_than_they_cost_do_not_wait_for_the_budget() -> None:
    loading = Loading(1, memory=8, declared=adapters(4))
    loading.fleet.ledger.reserve(loading.state(1), None)
    loading.demand = Demand({f"a{number}": 5.0 for number in range(4)})

    loading.run(10.0)

    assert len(loading.loaded(1)) == 4
