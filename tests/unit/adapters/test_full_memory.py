"""New versions of adapters where the host memory of all pods is full."""

from collections.abc import Collection
from dataclasses import replace
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_router.adapters.calls import Call, Outcome
from lora_router.adapters.declared import DeclaredAdapter, WantedPods
from lora_router.adapters.planner import Planner
from lora_router.adapters.steps import DRAIN_SECONDS, IDLE_SECONDS
from lora_router.fleet.ledger import Reservation
from lora_router.fleet.pod_state import PodState
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.selector import parse_selector
from tests.unit.adapters.declared_router import declared
from tests.unit.adapters.loading import Loading, adapter
from tests.unit.adapters.loading_router import Client, LoadingRouter

EVERYWHERE = {"pods": WantedPods(everywhere=True)}
TWO_COPIES = {"pods": WantedPods(copies=2)}


def versions(names: str, version: str, **fields: object) -> list[DeclaredAdapter]:
    """Return adapters of which the first one has a version, and all others have the first one."""
    return [
        declared(name, version=version if name == names[0] else "1", **fields)  # type: ignore[arg-type]
        for name in names
    ]


def request(router: LoadingRouter, model: str) -> Reservation:
    """Return a request that runs until it is released."""
    outcome = router.director.route(RouteQuery(model), lambda _: None)
    assert isinstance(outcome, Routed)
    return outcome.reservation


@pytest.mark.parametrize("few_steps", [200, 0], ids=["whole-plans", "renewed-plans"])
@pytest.mark.parametrize(
    ("pods", "memory", "names", "fields"),
    [
        (1, 4, "abcd", {}),
        (1, 1, "a", {}),
        (2, 4, "abcdefgh", {}),
        (4, 4, "abcd", EVERYWHERE),
        (4, 2, "abcd", TWO_COPIES),
        (8, 1, "a", EVERYWHERE),
    ],
)
def test_a_new_version_takes_the_place_of_the_old_one_and_no_request_fails(
    pods: int, memory: int, names: str, fields: dict[str, object], few_steps: int
) -> None:
    planner = Planner(few_steps=few_steps)
    router = LoadingRouter(
        *versions(names, "1", **fields), pods=pods, memory=memory, planner=planner
    )
    before = {number: len(router.loaded(number)) for number in range(1, pods + 1)}
    assert set(before.values()) == {memory}, "it is full"
    # Each of these has a request in flight all the time.
    clients = [Client(router, name, 0.7 + 0.1 * number) for number, name in enumerate(names)]
    router.clock.advance(20.0)

    router.declare(*versions(names, "2", **fields))
    router.clock.advance(120.0)

    assert not any(client.refused for client in clients)
    first = clients[0]
    moved_at = first.served.index("a@2")
    assert set(first.served[:moved_at]) == {"a@1"}
    assert set(first.served[moved_at:]) == {"a@2"}
    assert first.longest < 3.0, "until the last request of the old one has ended, and for a load"
    assert not any("a@1" in router.loaded(number) for number in before)
    assert {number: len(router.loaded(number)) for number in before} == before


def test_copies_are_replaced_one_after_the_other_and_those_that_are_left_serve() -> None:
    router = LoadingRouter(*versions("ab", "1", **EVERYWHERE), pods=4, memory=2)
    running = request(router, "a")
    router.declare(*versions("ab", "2", **EVERYWHERE))
    fewest = 4
    for _ in range(300):
        router.clock.advance(0.1)
        serving = [router.fleet.serving(name).pods for name in ("a@1", "a@2")]
        fewest = min(fewest, len({*serving[0], *serving[1]}))
        if fewest < 3 or len(serving[1]) == 4:
            break
    assert fewest == 3
    assert "a@1" in router.pods.names(running.state), "until its last request has ended"
    running.release()
    router.clock.advance(40.0)
    assert len(router.fleet.serving("a@2").pods) == 4


def test_the_last_copy_stays_if_another_pod_has_room_for_the_new_version() -> None:
    router = LoadingRouter(*versions("ab", "1", pods=WantedPods(copies=1)), pods=2, memory=1)
    router.pods.calls.clear()
    router.join(3, memory=1)
    router.declare(*versions("ab", "2", pods=WantedPods(copies=1)))
    client = Client(router, "a", 0.5)
    router.clock.advance(40.0)
    assert [(call.action, call.name) for call in router.pods.calls] == [
        ("load", "a@2"),
        ("unload", "a@1"),
    ]
    assert client.longest == 0.0


def test_a_version_that_no_pod_can_load_takes_one_copy_of_the_old_one_at_most() -> None:
    router = LoadingRouter(*versions("ab", "1", **EVERYWHERE), pods=4, memory=2)

    def answer(call: Call) -> Outcome:
        return "refused" if call.name == "a@2" else "done"

    router.pods.answer = answer
    client = Client(router, "a", 0.5)
    router.declare(*versions("ab", "2", **EVERYWHERE))
    router.clock.advance(600.0)
    assert sum("a@1" in router.loaded(number) for number in (1, 2, 3, 4)) == 3
    assert not client.refused


def test_an_old_version_serves_again_if_its_last_request_does_not_end() -> None:
    router = LoadingRouter(*versions("ab", "1", pinned=True), pods=1, memory=2)
    running = request(router, "a")
    router.declare(*versions("ab", "2", pinned=True))
    router.clock.advance(IDLE_SECONDS - 5.0)
    assert router.fleet.serving("a@1").pods, "it waits for a moment without requests"
    router.clock.advance(DRAIN_SECONDS)
    assert not router.fleet.serving("a@1").pods, "it waits no longer"
    router.clock.advance(DRAIN_SECONDS)
    request(router, "a").release()
    assert router.loaded(1) == ["a@1", "b@1"]

    running.release()
    router.clock.advance(10.0)

    assert router.loaded(1) == ["a@2", "b@1"]


def test_a_router_that_was_started_meanwhile_replaces_it_too() -> None:
    router = LoadingRouter(*versions("ab", "2"), pods=1, memory=2, listed=("a@1", "b@1"))
    client = Client(router, "a", 0.5)
    router.clock.advance(60.0)
    assert router.loaded(1) == ["a@2", "b@1"]
    assert not client.refused


def test_an_old_version_makes_room_for_no_other_adapter_while_it_serves() -> None:
    pinned = declared("b", version="1", pinned=True)
    router = LoadingRouter(*versions("a", "1"), pinned, pods=1, memory=2)
    router.declare(*versions("a", "2", pinned=True), pinned, declared("new"))
    router.director.route(RouteQuery("new"), lambda _: None)
    router.clock.advance(60.0)
    assert router.loaded(1) == ["a@2", "b@1"]


def test_a_canary_takes_no_place_of_the_version_that_gets_most_requests() -> None:
    router = LoadingRouter(*versions("ab", "1"), pods=1, memory=2)
    router.declare(*versions("ab", "2", share=10))
    router.clock.advance(120.0)
    assert router.loaded(1) == ["a@1", "b@1"]


def test_the_new_version_is_planned_with_the_requests_of_the_old_one() -> None:
    """A hot adapter gets as many copies as before, and no other one takes its place meanwhile."""
    router = LoadingRouter(*versions("abcd", "1"), pods=4, memory=4)
    clients = [Client(router, "a", 1.0) for _ in range(6)]
    router.clock.advance(60.0)
    router.declare(*versions("abcd", "2"))
    router.clock.advance(6.0)
    loads = router.loader.plan.demand.loads
    assert loads.get("a@2", 0.0) > 4.0
    assert loads.get("b@1", 0.0) == 0.0
    assert not any(client.refused for client in clients)


@pytest.mark.parametrize(
    ("version", "further", "call", "first"),
    [("1", [declared("new")], "new", set()), ("2", [], "a@2", {"a@2"})],
)
def test_only_new_versions_are_planned_first_while_they_are_loaded(
    version: str, further: list[DeclaredAdapter], call: str, first: set[str]
) -> None:
    router = LoadingRouter(*versions("ab", "1"), pods=1, memory=4)
    router.pods.seconds = 20.0
    router.declare(*versions("ab", version), *further)
    router.clock.advance(8.0)
    assert [each.name for each in router.pods.open] == [call]
    assert router.loader.plan.demand.replacing == first


def test_a_third_version_is_loaded_although_two_older_ones_hold_the_full_memory() -> None:
    router = LoadingRouter(versions("a", "1", **TWO_COPIES)[0], pods=2, memory=1)
    client = Client(router, "a", 0.3)
    router.declare(versions("a", "2", **TWO_COPIES)[0])
    router.clock.advance(3.0)
    assert sorted(router.loaded(1) + router.loaded(2)) == ["a@1", "a@2"], "the change is half done"

    router.declare(versions("a", "3", **TWO_COPIES)[0])
    router.clock.advance(60.0)

    assert router.loaded(1) == router.loaded(2) == ["a@3"]
    assert not client.refused
    kinds = [name for name, _ in groupby(client.served)]
    assert kinds == ["a@1", "a@3"], "requests do not go to a version that was given up"


@pytest.mark.parametrize(
    ("listed", "left"),
    [
        pytest.param(("a@1", "a@2"), {"a@1", "a@2"}, id="the last copy of each stays"),
        pytest.param(("a@1", "a@1"), {"a@1", "a@3"}, id="one of two copies makes way"),
    ],
)
def test_an_older_version_for_which_requests_wait_is_not_withdrawn_and_restored_for_ever(
    monkeypatch: pytest.MonkeyPatch, listed: tuple[str, str], left: set[str]
) -> None:
    """Its pods may be full of its requests for as long as the load lasts."""
    loading = Loading(0, memory=1, may_leave=lambda name: name != "a@1")
    for version in ("1", "2", "3"):
        loading.declarations.replace("file", versions("a", version))
    for number, name in enumerate(listed, 1):
        loading.join(number, [name])
    loading.held |= {"a@1", "a@2"}
    withdrawn = 0

    def withdraw(state: PodState, names: Collection[str]) -> None:
        nonlocal withdrawn
        withdrawn += 1
        assert withdrawn < 100, "it withdraws and restores at one and the same time"
        as_before(state, names)

    as_before = loading.pods.withdraw
    monkeypatch.setattr(loading.pods, "withdraw", withdraw)
    loading.run(60.0)

    assert withdrawn <= 2
    assert loading.everywhere() == left


def test_a_canary_is_loaded_in_the_place_of_one_that_was_given_up() -> None:
    router = LoadingRouter(declared("a", version="1"), pods=1, memory=2)
    client = Client(router, "a", 0.3)
    for version in ("2", "3"):
        router.declare(declared("a", version=version, share=50))
        router.clock.advance(60.0)
        assert router.loaded(1) == ["a@1", f"a@{version}"]
        assert router.shares("a") == {"a@1", f"a@{version}"}
    assert not client.refused


def test_a_pinned_adapter_makes_room_where_it_does_not_belong_if_it_is_loaded_elsewhere() -> None:
    only_first = WantedPods(selector=parse_selector("gpu=a"))
    loading = Loading(0, memory=1, declared=[adapter("pinned", pinned=True)])
    for number, gpu in ((1, "a"), (2, "b")):
        state = loading.join(number, ["pinned"])
        loading.fleet.upsert(replace(state.pod, labels={"gpu": gpu}))
    loading.run(5.0)
    loading.declarations.add("template", adapter("a", pods=only_first))
    loading.run(30.0)
    assert loading.loaded(1) == ["a"]
    assert loading.loaded(2) == ["pinned"]


@pytest.mark.slow
@settings(max_examples=8)
@given(st.data())
def test_the_last_of_many_versions_is_the_only_one_in_the_end(data: st.DataObject) -> None:
    """Versions, canaries and other adapters follow each other at any time, while pods fail."""
    pods, memory = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    where: dict[str, object] = data.draw(st.sampled_from(({}, EVERYWHERE, TWO_COPIES)))
    router = LoadingRouter(*versions("a", "1", **where), pods=pods, memory=memory)
    wrong: set[str] = set()
    router.pods.answer = lambda call: "cannot-load" if call.state.pod.name in wrong else "done"
    last = "1"
    for number in range(2, data.draw(st.integers(3, 7))):
        last = data.draw(st.sampled_from((last, str(number))))
        share = data.draw(st.sampled_from((10, 100)))
        others = [declared("b")] if data.draw(st.booleans()) else []
        wrong = data.draw(st.sampled_from((set[str](), {"pod-1"}, {"pod-2"})))
        router.declare(*versions("a", last, share=share, **where), *others)
        Client(router, "a", data.draw(st.sampled_from((0.3, 10.0))))
        router.clock.advance(data.draw(st.sampled_from((0.3, 3.0, 12.0, 40.0))))
    wrong = set()
    router.declare(*versions("a", last, **where))
    router.clock.advance(700.0)
    loaded = [router.loaded(number) for number in range(1, pods + 1)]
    assert router.shares("a") == {f"a@{last}"}
    assert {name for each in loaded for name in each} == {f"a@{last}"}
