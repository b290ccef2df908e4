"""What fails does not hold up the rest: pods that hang, adapters that no pod can load."""

from functools import partial

from lora_router.adapters.backoff import FEW_PODS
from lora_router.adapters.calls import Call, Outcome
from lora_router.adapters.declared import WantedPods
from lora_router.adapters.outcomes import FIRST_BLOCKED_SECONDS
from lora_router.adapters.pace import MOST_OWED_SECONDS, STALL_SHARE
from lora_router.adapters.steps import _LOOKS
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


def test_a_pod_that_did_not_answer_a_load_in_time_gets_no_other_one_for_a_while() -> None:
    loading = HangingPods(1, hanging=1, declared=5)
    loading.run(TIMEOUT + 0.75 * FIRST_BLOCKED_SECONDS - 1.0)
    assert len(loading.pods.calls) == 1

    loading.run(FIRST_BLOCKED_SECONDS)
    assert len(loading.pods.calls) == 2


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
