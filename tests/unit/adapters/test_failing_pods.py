"""What fails does not hold up the rest: pods that hang, adapters that no pod can load."""

from functools import partial

import pytest

from lora_router.adapters.backoff import FEW_PODS, FIRST_SILENT_SECONDS
from lora_router.adapters.calls import Call, Outcome
from lora_router.adapters.declared import DeclaredAdapter, WantedPods
from lora_router.adapters.demand import Demand
from lora_router.adapters.dispatch import LoaderOptions
from lora_router.adapters.pace import MOST_OWED_SECONDS, STALL_SHARE
from lora_router.adapters.planner import FEW_STEPS, Planner
from lora_router.adapters.steps import _LOOKS
from lora_router.fleet.pod_state import PodState
from tests.unit.adapters.loading import Loading, adapter, adapters

TIMEOUT = 120.0


class HangingPods(Loading):
    """A fleet of which the first pods answer no load before its timeout."""

    def __init__(self, pods: int, hanging: int, declared: int) -> None:
        super().__init__(pods, memory=100, declared=adapters(declared))
        self.hanging = {self.state(number) for number in range(1, hanging + 1)}
        begin = self.pods.start

        def start(call: Call, on_done: object) -> None:
            self.pods.seconds = TIMEOUT if call.state in self.hanging else 0.5
            begin(call, on_done)  # type: ignore[arg-type]

        self.pods.start = start  # type: ignore[method-assign]
        self.pods.answer = self._answer
        self.pods.read_again = self._read_again  # type: ignore[method-assign]

    def _answer(self, call: Call) -> Outcome:
        return "timeout" if call.state in self.hanging else "done"

    def _read_again(self, state: object) -> None:
        """Read a list: that works well while loads hang."""
        now = self.clock.now()
        for each in self.fleet:
            if each is state:
                self.clock.call_later(0.2, partial(self.loader.list_read, each, now + 0.1))


def test_pods_that_hang_in_loads_do_not_hold_up_the_others() -> None:
    loading = HangingPods(16, hanging=8, declared=40)
    loading.run(60.0)
    assert len(loading.everywhere()) >= 20, "all others that belong on pods that are well"

    loading.run(3 * TIMEOUT)
    assert len(loading.everywhere()) == 40, "and then those that belonged on the others"


def test_an_adapter_for_which_requests_wait_is_loaded_although_many_pods_hang() -> None:
    loading = HangingPods(16, hanging=8, declared=40)
    loading.run(5.0)
    assert sum(call.state in loading.hanging for call in loading.pods.open) == 8
    name = next(f"a{number}" for number in range(40) if f"a{number}" not in loading.everywhere())

    loading.loader.want(name)
    loading.run(1.5)

    assert name in loading.everywhere()


def test_a_pod_that_answers_loads_of_two_adapters_in_time_neither_rests_for_a_while() -> None:
    loading = HangingPods(1, hanging=1, declared=5)
    loading.run(2 * TIMEOUT + 0.75 * FIRST_SILENT_SECONDS - 1.0)
    assert len({call.name for call in loading.pods.calls}) == len(loading.pods.calls) == 2

    loading.run(FIRST_SILENT_SECONDS)
    assert len(loading.pods.calls) == 3


def after_a_long_load() -> Loading:
    """Return a pod that serves, and that a load has stalled for 100 s. A further one is due."""
    loading = Loading(1, memory=100, declared=adapters(1))
    loading.fleet.ledger.reserve(loading.state(1), None)
    loading.pods.seconds = 100.0
    loading.run(101.0)
    loading.pods.seconds = 0.1
    loading.declarations.replace("file", adapters(2))
    return loading


def test_one_long_load_delays_the_next_one_of_a_busy_pod_for_minutes_at_most() -> None:
    loading = after_a_long_load()
    loading.run(MOST_OWED_SECONDS / STALL_SHARE + 5.0)

    assert loading.loaded(1) == ["a0", "a1"]


def test_sync_does_not_wait_for_that() -> None:
    loading = after_a_long_load()
    loading.loader.try_now(None)
    loading.run(1.0)

    assert loading.loaded(1) == ["a0", "a1"]


def test_any_number_of_adapters_that_fail_do_not_hide_those_behind_them() -> None:
    bad = [adapter(f"bad{number}") for number in range(_LOOKS + 6)]
    loading = Loading(1, memory=200, declared=[*bad, *adapters(3)])
    loading.pods.answer = lambda call: "refused" if call.name.startswith("bad") else "done"

    loading.run(60.0)

    assert loading.loaded(1) == ["a0", "a1", "a2"]


def called(loading: Loading) -> set[str]:
    """Return the pods that got calls."""
    return {call.state.pod.name for call in loading.pods.calls}


def test_an_adapter_that_some_pods_refuse_is_not_tried_on_all_pods_of_a_large_fleet() -> None:
    loading = Loading(100, memory=100)
    loading.run(1.0)
    loading.pods.answer = lambda _: "refused"
    bogus = adapter("bogus", pods=WantedPods(copies=1))
    loading.declarations.replace("file", [bogus])

    loading.loader.want("bogus")
    loading.run(3.0)

    assert loading.waits.refused, "its requests are not held any longer"
    assert FEW_PODS <= len(called(loading)) <= FEW_PODS + 2
    for _ in range(100):
        loading.loader.want("bogus")
        loading.run(1.0)
    assert len(called(loading)) <= 4 * FEW_PODS, "after 1 s, 2 s, 4 s, and so on"


def test_it_is_loaded_on_a_pod_that_can_load_it_in_the_end() -> None:
    loading = Loading(6, memory=100)
    loading.run(1.0)
    able = loading.state(6)
    loading.pods.answer = lambda call: "done" if call.state is able else "refused"
    loading.declarations.replace("file", [adapter("rare")])

    for _ in range(60):
        loading.loader.want("rare")
        loading.run(1.0)

    assert loading.loaded(6) == ["rare"]


class HangingAdapters(Loading):
    """A fleet whose pods answer no load before its timeout of adapters whose names begin so."""

    def __init__(self, pods: int, declared: list[DeclaredAdapter]) -> None:
        super().__init__(pods, memory=16, declared=declared)
        begin = self.pods.start

        def start(call: Call, on_done: object) -> None:
            self.pods.seconds = TIMEOUT if call.name.startswith("hang") else 0.1
            begin(call, on_done)  # type: ignore[arg-type]

        self.pods.start = start  # type: ignore[method-assign]
        self.pods.answer = lambda call: "timeout" if call.name.startswith("hang") else "done"
        self.pods.read_again = self._read_again  # type: ignore[method-assign]

    def _read_again(self, state: PodState) -> None:
        read_at = self.clock.now() + 0.1
        self.clock.call_later(0.2, partial(self.loader.list_read, state, read_at))


def test_an_adapter_whose_load_hangs_takes_one_pod_at_a_time() -> None:
    loading = HangingAdapters(4, [adapter("hang"), adapter("a")])
    loading.run(1.0)
    assert [call.name for call in loading.pods.open] == ["hang"]

    loading.declarations.add("template", adapter("new"))
    loading.run(1.0)
    assert "new" in loading.everywhere(), "others are loaded meanwhile"

    for _ in range(60):
        loading.run(10.0)
        assert sum(call.name == "hang" for call in loading.pods.open) <= 1


def test_a_pod_goes_on_with_other_adapters_after_one_load_without_an_answer() -> None:
    loading = HangingAdapters(1, [adapter("hang")])
    loading.run(TIMEOUT + 0.5)
    loading.declarations.add("template", adapter("a"))

    loading.run(1.0)

    assert loading.loaded(1) == ["a"]


def test_a_load_without_an_answer_is_tried_again_after_longer_pauses_than_others() -> None:
    loading = HangingAdapters(1, [adapter("hang")])
    loading.run(TIMEOUT + 0.75 * FIRST_SILENT_SECONDS - 1.0)
    assert len(loading.pods.calls) == 1


def test_loads_without_an_answer_count_as_refusals() -> None:
    loading = HangingAdapters(20, [])
    loading.run(1.0)
    loading.declarations.replace("file", [adapter("hang", origin="template")])
    for _ in range(100):
        loading.loader.want("hang")
        loading.run(10.0)
    assert len(called(loading)) <= FEW_PODS + 4, "after 30 s, 60 s, and so on"
    assert loading.waits.refused


def test_after_the_first_load_of_an_adapter_the_others_follow_at_once() -> None:
    loading = Loading(4, declared=[adapter("a", pods=WantedPods(everywhere=True))])
    loading.run(0.15)
    assert len(loading.pods.calls) - len(loading.pods.open) == 1
    loading.run(0.15)
    assert [loading.loaded(number) for number in (1, 2, 3, 4)] == [["a"]] * 4


def test_a_source_that_changes_in_place_is_loaded_on_one_pod_first() -> None:
    everywhere = WantedPods(everywhere=True)
    options = LoaderOptions(in_place=True)
    loading = Loading(4, declared=[adapter("a", pods=everywhere)], options=options)
    loading.run(2.0)
    loading.pods.seconds = 2.0
    loading.declarations.replace("file", [adapter("a", source="/lora/other", pods=everywhere)])
    loading.run(1.0)
    assert len(loading.pods.open) == 1

    loading.run(4.0)
    assert {loading.pods.listed[state]["a"] for state in loading.fleet} == {"/lora/other"}


def test_a_second_pod_tries_what_requests_wait_for_if_the_first_one_takes_long() -> None:
    loading = HangingPods(4, hanging=1, declared=0)
    loading.run(1.0)
    loading.declarations.replace("file", adapters(1))
    for number in (2, 3, 4):
        loading.fleet.ledger.reserve(loading.state(number), None)  # So that pod-1 comes first.
    loading.demand = Demand({}, frozenset({"a0"}), 1.0)
    loading.loader.want("a0")
    loading.run(1.0)
    assert called(loading) == {"pod-1"}

    loading.run(6.0)

    assert loading.everywhere() == {"a0"}


def test_names_that_clients_chose_are_not_tried_on_a_second_pod_meanwhile() -> None:
    loading = HangingAdapters(4, [])
    loading.run(1.0)
    loading.declarations.replace("template", [adapter("hang", origin="template")])
    loading.loader.want("hang")
    loading.run(TIMEOUT - 5.0)
    assert len(loading.pods.calls) == 1


def test_what_requests_wait_for_moves_away_from_a_pod_that_hangs() -> None:
    loading = HangingAdapters(2, [])
    loading.run(1.0)
    chosen = [adapter(f"ok{number}", origin="template") for number in range(6)]
    loading.declarations.replace("template", [adapter("hang", origin="template"), *chosen])
    for name in ("hang", *(each.name for each in chosen)):
        waits = {*loading.demand.waiting, name}
        loading.demand = Demand({}, frozenset(waits), float(len(waits)))
        loading.loader.want(name)
        loading.clock.advance(0.001)

    loading.run(8.0)

    assert loading.everywhere() == {each.name for each in chosen}
    assert len(loading.pods.open) == 1


def bad_and_good(call: Call) -> Outcome:
    """Refuse adapters that are bad."""
    return "refused" if call.name.startswith("bad") else "done"


def test_adapters_that_cannot_be_loaded_keep_no_others_out_of_memory() -> None:
    bad = [adapter(f"bad{number}") for number in range(8)]
    good = [adapter(f"good{number}") for number in range(6)]
    loading = Loading(2, memory=4, declared=[*bad, *good])
    loading.pods.answer = bad_and_good

    loading.run(12.0)

    assert loading.everywhere() == {each.name for each in good}


@pytest.mark.parametrize("few_steps", [0, FEW_STEPS])
def test_adapters_that_cannot_be_loaded_push_out_no_copies_for_long(few_steps: int) -> None:
    twice = [adapter(f"good{number}", pods=WantedPods(copies=2)) for number in range(2)]
    good = [*twice, adapter("good2"), adapter("good3")]
    loading = Loading(2, memory=4, declared=good, planner=Planner(few_steps=few_steps))
    loading.pods.answer = bad_and_good
    loading.run(10.0)
    bad = [adapter(f"bad{number}") for number in range(4)]
    loading.declarations.replace("file", [*good, *bad])
    full = 0
    for _ in range(120):
        loading.run(1.0)
        full += all(each.name in loading.loaded(number) for number in (1, 2) for each in twice)
    assert full > 0.8 * 120
    assert sum(call.action == "unload" for call in loading.pods.calls) <= 4 * 4
