"""What changes while pods load, and while another router loads, is not overlooked."""

from dataclasses import replace

from lora_router.adapters.declared import DeclaredAdapter, WantedPods
from lora_router.adapters.dispatch import LoaderOptions
from lora_router.adapters.planner import Planner
from tests.unit.adapters.loading import Loading, adapter, adapters

EVERYWHERE = WantedPods(everywhere=True)


def test_what_is_declared_no_longer_is_not_loaded_although_the_pod_was_busy() -> None:
    loading = Loading(1, memory=200, declared=adapters(60))
    loading.pods.seconds = 2.0
    loading.run(3.0)

    loading.declarations.replace("file", [*adapters(5), adapter("urgent", pods=EVERYWHERE)])
    loading.run(12.0)

    assert loading.loaded(1) == ["a0", "a1", "a2", "a3", "a4", "urgent"]


def test_a_changed_source_is_loaded_from_the_new_place_although_the_pod_was_busy() -> None:
    loading = Loading(1, memory=200, declared=adapters(3))
    loading.pods.seconds = 2.0
    loading.run(1.0)
    waiting = "a2" if loading.pods.open[0].name != "a2" else "a1"

    changed = [replace(each, source="/new") for each in adapters(3) if each.name == waiting]
    kept = [each for each in adapters(3) if each.name != waiting]
    loading.declarations.replace("file", [*kept, *changed])
    loading.run(8.0)

    loads = [call for call in loading.pods.calls if call.name.startswith(waiting)]
    assert [call.source for call in loads] == ["/new"]


def test_a_router_that_loads_again_goes_on_where_it_stopped() -> None:
    is_loader = True
    loading = Loading(
        2,
        memory=200,
        declared=adapters(40),
        is_loader=lambda: is_loader,
        planner=Planner(few_steps=0),  # As of a large fleet.
    )
    loading.pods.seconds = 1.0
    loading.run(5.0)
    is_loader = False
    loading.run(3.0)
    before = len(loading.pods.calls)

    is_loader = True
    loading.run(10.0)

    assert len(loading.pods.calls) >= before + 10


def test_requests_that_waited_meanwhile_are_served_before_a_plan_has_been_made() -> None:
    is_loader = False
    loading = Loading(2, memory=200, declared=adapters(5), is_loader=lambda: is_loader)
    loading.run(1.0)
    loading.loader.want("a3")

    is_loader = True
    loading.run(0.3)

    assert loading.pods.calls[0].name == "a3"


def test_a_pod_that_is_unready_for_a_moment_gets_no_second_call_at_the_same_time() -> None:
    loading = Loading(1, memory=50, declared=adapters(5))
    loading.pods.seconds = 60.0
    loading.run(5.0)
    state = loading.state(1)

    loading.fleet.upsert(replace(state.pod, ready=False))
    loading.run(10.0)
    loading.fleet.upsert(replace(state.pod, ready=True))
    loading.pods.show(state)
    loading.scrape(state)
    loading.run(20.0)

    # ``FakePods`` checks that there is one call for each pod.
    assert len(loading.pods.open) == 1
    loading.run(60.0)
    assert len(loading.pods.calls) == 2, "it goes on"


def test_what_is_withdrawn_serves_again_if_the_pod_takes_no_loads_any_more() -> None:
    # The pods file says now what the pod serves.
    loading = Loading(2, declared=adapters(2), options=LoaderOptions(grace_seconds=10.0))
    loading.run(2.0)
    state = loading.state(1)
    listed = set(state.adapters)
    loading.declarations.replace("file", [])
    loading.run(1.0)
    assert set(state.adapters) < listed

    loading.fleet.upsert(replace(state.pod, models=("base", *listed)))
    loading.run(1.0)

    assert not loading.pods.withdrawn[state]


def _resting(*declared: DeclaredAdapter) -> Loading:
    """Return a fleet whose second pod takes no loads for a while, after it should load all."""
    loading = Loading(2, memory=4, declared=[adapter("keep", pods=EVERYWHERE)])
    loading.run(5.0)
    second = loading.state(2)
    loading.pods.answer = lambda call: "cannot-load" if call.state is second else "done"
    loading.declarations.replace("file", [adapter("keep", pods=EVERYWHERE), *declared])
    loading.clock.advance(10.0)
    assert loading.loader.pods[second].blocked_until > loading.clock.now()
    loading.pods.answer = lambda _: "done"
    return loading


def test_a_pod_that_took_no_loads_gets_nothing_that_was_removed_meanwhile() -> None:
    loading = _resting(adapter("gone", pods=EVERYWHERE))
    loading.declarations.replace("file", [adapter("keep", pods=EVERYWHERE)])
    loading.clock.advance(1200.0)
    assert loading.loaded(1) == loading.loaded(2) == ["keep"]
    assert not loading.fleet.serving("gone").pods


def test_a_pod_that_took_no_loads_gets_what_is_declared_since() -> None:
    loading = _resting(adapter("a", version="1", source="/lora/1", pods=EVERYWHERE))
    now = adapter("a", version="1", source="/lora/2", pods=EVERYWHERE)
    loading.declarations.replace("file", [adapter("keep", pods=EVERYWHERE), now])
    loading.clock.advance(1200.0)
    [call] = [call for call in loading.pods.calls if call.name == "a@1"][-1:]
    assert (call.state, call.source) == (loading.state(2), "/lora/2")


def test_a_plan_that_leaves_out_a_pod_takes_away_what_belonged_there() -> None:
    loading = _resting(adapter("a", pods=WantedPods(copies=1)), adapter("b", pods=EVERYWHERE))
    pod = loading.loader.pods[loading.state(2)]
    assert not pod.wanted
    assert not pod.missing
    loading.clock.advance(1200.0)
    assert "b" in loading.loaded(2)
