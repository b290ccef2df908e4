"""Adapters for which requests wait because no pod has them are loaded fairly, and soon."""

from lora_router.adapters.declared import WantedPods
from lora_router.adapters.demand import Demand
from lora_router.adapters.dispatch import LoaderOptions
from tests.unit.adapters.loading import Loading, adapter, adapters

SECONDS = 0.5
"""How long a load takes."""


def waiting(pods: int, *names: str, options: LoaderOptions | None = None) -> Loading:
    """Return a fleet that knows the adapters ``a0`` to ``a9``, of which requests wait for some.

    Each pod serves a request, so that nothing is loaded but what requests wait for.
    """
    loading = Loading(pods, memory=100, options=options)
    loading.pods.seconds = SECONDS
    loading.run(1.0)
    for state in loading.fleet:
        loading.fleet.ledger.reserve(state, None)
        loading.loader.pods[state].budget.spend(100.0, loading.clock.now())
    loading.declarations.replace("file", adapters(10))
    want(loading, *names)
    return loading


def want(loading: Loading, *names: str) -> None:
    """Let requests for adapters come, one after the other."""
    for name in names:
        waits = {*loading.demand.waiting, name}
        loading.demand = Demand(dict.fromkeys(waits, 1.0), frozenset(waits), float(len(waits)))
        loading.loader.want(name)
        loading.clock.advance(0.01)


def order(loading: Loading) -> list[str]:
    return [call.name for call in loading.pods.calls]


def test_those_that_were_asked_for_first_are_loaded_first() -> None:
    loading = waiting(1, "a7", "a3", "a5", "a1")
    loading.clock.advance(5 * SECONDS)
    assert order(loading) == ["a7", "a3", "a5", "a1"]


def test_names_that_clients_chose_come_after_declared_ones() -> None:
    loading = waiting(1)
    chosen = [adapter(f"chosen{number}", origin="template") for number in range(3)]
    loading.declarations.replace("template", chosen)
    want(loading, "chosen0", "chosen1", "chosen2", "a7", "a3")
    loading.clock.advance(5 * SECONDS)
    assert order(loading) == ["chosen0", "a7", "a3", "chosen1", "chosen2"]


def test_so_are_those_of_several_pods_that_may_not_load_at_the_same_time() -> None:
    loading = waiting(3, "a7", "a3", "a5", options=LoaderOptions(loads_at_once=1))
    busiest = next(pod for pod in loading.loader.pods.values() if "a3" in pod.first)
    for _ in range(5):
        loading.fleet.ledger.reserve(busiest.state, None)
    loading.clock.advance(4 * SECONDS)
    assert order(loading)[:3] == ["a7", "a3", "a5"]


def test_one_that_failed_keeps_its_place_in_the_order() -> None:
    loading = waiting(2, "a7", "a3", "a5", "a1", "a9")
    loading.pods.answer = lambda call: "refused" if call is loading.pods.calls[0] else "done"
    loading.clock.advance(5 * SECONDS)
    assert order(loading).count("a7") == 2
    assert order(loading).index("a7", 1) <= 3


def test_plans_do_not_change_the_order() -> None:
    loading = waiting(1, "a9", "a8", "a7", "a6", "a5")
    loading.clock.advance(SECONDS)
    loading.declarations.add("template", adapter("z"))
    want(loading, "a0")
    loading.clock.advance(6 * SECONDS)
    assert order(loading) == ["a9", "a8", "a7", "a6", "a5", "a0"]


def test_they_are_spread_over_the_pods() -> None:
    loading = waiting(4, *(f"a{number}" for number in range(8)))
    loading.clock.advance(2 * SECONDS + 0.2)
    assert [len(loading.loaded(number)) for number in (1, 2, 3, 4)] == [2, 2, 2, 2]
    assert sorted(order(loading)[:8]) == [f"a{number}" for number in range(8)]


def test_one_goes_to_a_pod_with_a_slot_for_it() -> None:
    loading = Loading(2)
    loading.scrape(loading.state(1), slots=1)
    loading.scrape(loading.state(2), slots=1)
    loading.run(1.0)
    loading.declarations.add("template", adapter("hot"))
    loading.run(3.0)
    loading.fleet.ledger.reserve(loading.state(1), "hot")
    for _ in range(3):
        loading.fleet.ledger.reserve(loading.state(2), None)
    loading.declarations.add("template", adapter("a"))
    loading.loader.want("a")
    loading.run(0.2)
    assert "a" in loading.loaded(2)
    assert loading.pods.calls[order(loading).index("a")].state is loading.state(2)


def test_one_with_a_declared_number_of_copies_is_loaded_only_where_it_belongs() -> None:
    loading = waiting(3)
    one = WantedPods(copies=1)
    declared = [adapter(f"a{number}", pods=one) for number in range(9)]
    loading.declarations.replace("file", declared)
    loading.run(0.3)
    belong = sorted(loading.loader.pods[loading.state(1)].wanted)
    assert len(belong) == 3
    want(loading, *belong)
    loading.clock.advance(4 * SECONDS)
    assert loading.loaded(1) == belong
    assert order(loading) == belong


def test_those_of_a_pod_that_leaves_are_loaded_elsewhere() -> None:
    loading = waiting(2, "a0", "a1", "a2", "a3")
    gone = loading.loader.pods[loading.state(1)]
    assert len(gone.first) == 2
    loading.fleet.remove("pod-1")
    loading.clock.advance(5 * SECONDS)
    assert set(loading.loaded(2)) == {"a0", "a1", "a2", "a3"}


def test_those_of_a_pod_that_takes_no_loads_are_loaded_elsewhere() -> None:
    loading = waiting(2, "a0", "a1", "a2", "a3")
    loading.pods.answer = lambda call: "cannot-load" if call.state.pod.name == "pod-1" else "done"
    loading.clock.advance(5 * SECONDS)
    assert set(loading.loaded(2)) == {"a0", "a1", "a2", "a3"}
    assert len(order(loading)) == 5, "one was tried in vain"


def test_one_whose_requests_went_away_is_not_loaded_before_others() -> None:
    loading = waiting(1, "a7", "a3", "a5")
    loading.demand = Demand({"a7": 1.0, "a5": 1.0}, frozenset({"a7", "a5"}), 2.0)
    loading.declarations.add("template", adapter("z"))
    loading.run(0.3)
    assert list(loading.loader.pods[loading.state(1)].first) == ["a7", "a5"]
