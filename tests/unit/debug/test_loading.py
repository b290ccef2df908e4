"""What the router that loads adapters answers about them, and how it takes orders."""

from collections.abc import Mapping, Sequence

import pytest

from lora_router.adapters.orders import Orders
from lora_router.adapters.sources import AllowedSources
from lora_router.debug.arguments import ArgumentsError
from lora_router.debug.gathering import Gathering, NoAnswerError
from lora_router.debug.loading import Loading as Answers
from lora_router.debug.tables import adapter_cells
from tests.unit.adapters.loading import Loading, adapter, adapters
from tests.unit.debug.debugged import Debugged


def _answers(loading: Loading) -> Answers:
    allowed = AllowedSources(("s3://lora",))
    orders = Orders(loading.declarations, loading.loader, allowed, loading.fleet)
    return Answers(loading.loader, orders, wall=lambda: 1.7e9)


def _gathering(*processes: Answers | Debugged) -> Gathering:
    async def ask(question: bytes) -> Sequence[tuple[str, bytes]]:
        return [
            (
                f"router-{number}",
                await (each.debug if isinstance(each, Debugged) else each).answer(question),
            )
            for number, each in enumerate(processes)
        ]

    return Gathering(ask)


async def test_a_declared_adapter_shows_how_far_it_is_beside_its_traffic() -> None:
    loading = Loading(2, declared=adapters(2))
    loading.pods.answer = lambda call: "refused" if call.name == "a1" else "done"
    loading.run(20.0)
    router = Debugged(loading.fleet)
    router.record("a0", adapter="a0", base_model="base", place="running")

    page = await _gathering(router, _answers(loading)).adapters()

    loaded, failing = sorted(page.adapters, key=lambda row: row.name)
    assert (loaded.name, loaded.state, loaded.declared_by) == ("a0", "loaded", "file")
    assert (loaded.listed, loaded.wanted, loaded.source) == (2, 2, "/lora/a0")
    assert loaded.requests == 1
    assert (failing.name, failing.state, failing.listed) == ("a1", "failing", 0)
    assert {(each.pod, each.reason) for each in failing.failing} == {
        ("pod-1", "it is refused"),
        ("pod-2", "it is refused"),
    }


async def test_an_adapter_without_a_place_says_why_on_pages_and_in_tables() -> None:
    loading = Loading(1, declared=[adapter("a0", base_model="mistral")])
    loading.run(1.0)

    page = await _gathering(Debugged(loading.fleet), _answers(loading)).adapters()

    (row,) = page.adapters
    assert (row.state, row.unplaced_because) == ("unplaced", "no ready pod serves its base model")
    assert adapter_cells(row)[-1] == "unplaced: no ready pod serves its base model"


async def test_a_process_that_serves_and_loads_answers_both() -> None:
    loading = Loading(1, declared=adapters(1))
    loading.run(1.0)
    router = Debugged(loading.fleet)
    router.debug.loading = _answers(loading)

    page = await _gathering(router).adapters()

    assert [(row.name, row.state, row.listed) for row in page.adapters] == [("a0", "loaded", 1)]


async def test_what_is_to_be_done_is_bounded() -> None:
    loading = Loading(1, memory=8, declared=adapters(8))
    loading.pods.seconds = 60.0
    loading.run(1.0)

    page = await _gathering(_answers(loading)).steps({"limit": "3"})

    assert [(step.action, step.pod, step.reason) for step in page.steps] == [
        ("load", "pod-1", page.steps[0].reason)
    ] * 3
    assert page.more == 5


async def test_the_router_that_loads_obeys_and_the_others_do_not() -> None:
    loading, idle = Loading(1), Loading(1, is_loader=lambda: False)
    loading.run(1.0)
    idle.run(1.0)
    gathering = _gathering(Debugged(), _answers(idle), _answers(loading))

    page = await gathering.order({"action": "load", "name": "sql", "source": "s3://lora/sql"})

    assert page.router == "router-2"
    assert "sql is declared" in page.message
    assert loading.declarations.get("sql") is not None
    assert idle.declarations.get("sql") is None
    loading.run(1.0)
    assert loading.everywhere() == {"sql"}
    await gathering.order({"action": "unload", "name": "sql"})
    loading.run(2.0)
    assert loading.everywhere() == set()
    assert (await gathering.order({"action": "sync"})).message


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"action": "drop", "name": "a"}, "action='drop': must be one of load, unload, sync"),
        ({"action": "load"}, "name: the name of an adapter is missing"),
        ({"action": "load", "name": "a", "copies": "0"}, "copies=0: must be a whole number"),
        ({"action": "load", "name": "a", "sauce": "b"}, "unknown parameter 'sauce'"),
        (
            {"action": "load", "name": "a", "source": "/etc/a"},
            "source='/etc/a': must begin with a prefix",
        ),
        ({"action": "unload", "name": "a"}, "no pod lists an adapter"),
    ],
)
async def test_an_order_that_cannot_be_obeyed_says_why(order: Mapping[str, str], said: str) -> None:
    loading = Loading(1)
    loading.run(1.0)
    with pytest.raises(ArgumentsError) as raised:
        await _gathering(_answers(loading)).order(order)
    assert said in str(raised.value)


async def test_where_no_router_loads_an_order_says_so() -> None:
    with pytest.raises(NoAnswerError, match="no router loads adapters now"):
        await _gathering(Debugged()).order({"action": "sync"})
