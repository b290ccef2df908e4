"""Copies that a changed declaration excludes are unloaded, once the adapter is where it belongs."""

import pytest

from lora_router.adapters.calls import Call, Outcome
from lora_router.adapters.declared import DeclaredAdapter, WantedPods
from lora_router.adapters.planner import Planner
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.pod_state import PodState
from lora_router.routing.selector import parse_selector
from tests.fleet import make_pod
from tests.unit.adapters.loading import Loading, adapter


def sql(**changes: object) -> DeclaredAdapter:
    return adapter("sql", **changes)


def on(selector: str, **changes: object) -> DeclaredAdapter:
    return sql(pods=WantedPods(everywhere=True, selector=parse_selector(selector)), **changes)


def copies(count: int) -> DeclaredAdapter:
    return sql(pods=WantedPods(copies=count))


class Pods(Loading):
    """Three pods with the labels ``pod=1`` and so on, and one declared adapter."""

    def __init__(self, declared: DeclaredAdapter, **options: object) -> None:
        super().__init__(3, declared=[declared], **options)  # type: ignore[arg-type]
        for number in (1, 2, 3):
            self.label(number, str(number))
        self.run(6.0)
        self.pods.calls.clear()

    def label(self, number: int, value: str) -> None:
        pod = self.state(number).pod
        self.fleet.upsert(make_pod(number, lora=pod.lora, labels={"pod": value}))

    def declare(self, declared: DeclaredAdapter, seconds: float = 6.0) -> None:
        self.declarations.replace("file", [declared])
        self.run(seconds)

    def having(self) -> list[int]:
        return [number for number in (1, 2, 3) if "sql" in self.loaded(number)]

    def names_on(self, *states: PodState) -> list[str]:
        return [name for state in states for name in self.pods.names(state)]

    def done(self) -> list[tuple[str, str]]:
        return [(call.action, call.state.pod.name) for call in self.pods.calls]


def test_of_a_declaration_with_fewer_copies_the_others_are_unloaded() -> None:
    pods = Pods(copies(3))
    assert pods.having() == [1, 2, 3]

    pods.declare(copies(1))

    assert len(pods.having()) == 1
    pods.run(60.0)
    assert [action for action, _ in pods.done()] == ["unload", "unload"], "and nothing else"


def test_a_copy_moves_to_the_pods_of_a_new_selector_and_is_loaded_there_first() -> None:
    pods = Pods(on("pod=1"))
    pods.declare(on("pod=2"))
    assert pods.done() == [("load", "pod-2"), ("unload", "pod-1")]
    assert pods.having() == [2]


def test_a_copy_on_a_pod_that_lost_its_label_is_unloaded() -> None:
    pods = Pods(on("pod in (1, 2)"))
    pods.label(1, "none")
    pods.run(6.0)
    assert pods.having() == [2]


def test_a_copy_on_pods_of_another_base_model_is_unloaded_once_those_of_the_new_one_have_it() -> (
    None
):
    pods = Pods(sql())
    assert pods.having() == [1, 2, 3]
    other = pods.state(3)
    pods.fleet.put_models(other, [ServedModel("other"), ServedModel("sql", "other")])

    pods.declare(sql(base_model="other"))

    assert pods.having() == [3]


def test_an_adapter_that_belongs_on_no_pod_stays_where_it_is() -> None:
    pods = Pods(on("pod=1"))
    pods.declare(on("pod=nobody"))
    pods.declare(sql(base_model="nowhere"))
    assert pods.having() == [1]
    assert not pods.done()


def test_it_stays_while_it_cannot_be_loaded_where_it_belongs() -> None:
    pods = Pods(on("pod=1"))
    pods.pods.answer = lambda _: "refused"
    pods.declare(on("pod=2"), 60.0)
    assert pods.having() == [1]
    assert set(pods.done()) == {("load", "pod-2")}

    pods.pods.answer = lambda _: "done"
    pods.run(300.0)
    assert pods.having() == [2]


@pytest.mark.parametrize(
    ("declared", "left"),
    [(copies(1), 1), (copies(2), 2), (on("pod=2"), 1), (sql(), 3)],
)
def test_it_does_not_matter_who_loaded_a_declared_adapter(
    declared: DeclaredAdapter, left: int
) -> None:
    """A router before this one did, the pods' command lines, or somebody by hand."""
    pods = Pods(adapter("other"), listed=("sql", "by-hand"))
    assert pods.having() == [1, 2, 3]

    pods.declare(declared)

    assert len(pods.having()) == left
    pods.run(600.0)
    assert len(pods.having()) == left
    assert all("by-hand" in pods.loaded(number) for number in (1, 2, 3))


def test_a_router_that_is_started_unloads_what_is_on_pods_of_another_base_model() -> None:
    pods = Pods(adapter("x"), listed=("sql",))
    other = pods.state(3)
    pods.fleet.put_models(other, [ServedModel("other"), ServedModel("sql", "other")])
    pods.declare(sql(base_model="other"))
    assert pods.having() == [3]


def test_nothing_is_misplaced_on_a_pod_of_which_no_plan_knows() -> None:
    """The pages of some pods are read later than those of others."""
    pods = Pods(copies(1))
    [has] = pods.having()
    before = pods.state(has)
    pods.fleet.upsert(make_pod(4))
    new = pods.state(4)
    pods.pods.listed[new] = {"sql": ""}
    pods.pods.show(new)
    pods.run(60.0)
    assert pods.names_on(before, new) == ["sql", "sql"]

    pods.scrape(new)
    pods.run(10.0)

    assert len(pods.names_on(before, new)) == 1


def test_further_copies_of_an_adapter_without_a_number_stay() -> None:
    pods = Pods(sql(pods=WantedPods(everywhere=True)))
    pods.declare(sql())
    assert pods.having() == [1, 2, 3]


def test_what_has_requests_is_unloaded_when_they_have_ended_and_gets_no_new_ones() -> None:
    pods = Pods(on("pod=1"))
    state = pods.state(1)
    reservation = pods.fleet.ledger.reserve(state, "sql")

    pods.declare(on("pod=2"))

    assert pods.having() == [1, 2]
    assert "sql" not in state.adapters, "no new ones"
    reservation.release()
    pods.run(2.0)
    assert pods.having() == [2]


def test_a_busy_copy_delays_no_load() -> None:
    pods = Pods(on("pod=1"))
    pods.fleet.ledger.reserve(pods.state(1), "sql")
    pods.declare(on("pod=2"))

    new = adapter("new", pods=WantedPods(everywhere=True))
    pods.declarations.replace("file", [on("pod=2"), new])
    pods.run(6.0)

    assert pods.loaded(1) == ["new", "sql"]


def test_a_copy_that_is_declared_again_while_it_leaves_serves_again() -> None:
    pods = Pods(on("pod=1"))
    reservation = pods.fleet.ledger.reserve(pods.state(1), "sql")
    pods.declare(on("pod=2"))
    assert "sql" not in pods.state(1).adapters

    pods.declare(on("pod in (1, 2)"))
    reservation.release()
    pods.run(6.0)

    assert "sql" in pods.state(1).adapters
    assert pods.having() == [1, 2]


def test_a_copy_is_not_unloaded_while_requests_wait_for_the_adapter() -> None:
    pods = Pods(on("pod=1"))
    pods.held.add("sql")
    pods.declare(on("pod=2"))
    assert pods.having() == [1, 2]
    pods.held.clear()
    pods.run(3.0)
    assert pods.having() == [2]


def test_an_unload_that_fails_is_tried_again() -> None:
    pods = Pods(on("pod=1"))
    refused: list[Call] = []

    def answer(call: Call) -> Outcome:
        if call.action == "unload" and not refused:
            refused.append(call)
            return "refused"
        return "done"

    pods.pods.answer = answer
    pods.declare(on("pod=2"), 30.0)
    assert refused
    assert pods.having() == [2]


@pytest.mark.parametrize("count", [1, 2])
def test_a_large_plan_that_is_renewed_knows_it_too(count: int) -> None:
    pods = Pods(copies(3), planner=Planner(few_steps=0))
    pods.declare(copies(count))
    assert len(pods.having()) == count
    assert not any(action == "load" for action, _ in pods.done())
