"""The debug pages: what they say of pods, adapters, held requests, decisions and routers."""

import json

import pytest

from lora_router.debug.gathering import Gathering
from lora_router.debug.rows import PodRow
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.lora_spec import COMMAND_LINE, LoraSpec
from tests.fleet import make_fleet, make_metrics, make_pod, state_of
from tests.unit.debug.debugged import WALL, Debugged, gathering, pages


def slots(router: Debugged, count: int = 2) -> None:
    """Let each pod report its number of slots."""
    for state in router.fleet:
        router.fleet.put_metrics(state, make_metrics(max_lora=count, scraped_at=router.clock.now()))


async def pod(router: Debugged, name: str = "pod-1") -> PodRow:
    page = await gathering(router).pods()
    return next(row for row in page.pods if row.name == name)


async def test_a_pod_is_shown_with_its_slots_and_what_is_in_them() -> None:
    router = Debugged(make_fleet(1, adapters=("sql", "law", "med")))
    slots(router)
    router.routed("med").reservation.release()
    router.routed("sql")
    router.routed("base")
    router.clock.advance(1.5)

    row = await pod(router)

    assert (row.address, row.state, row.health) == ("10.0.0.1:8000", "ready", "healthy")
    assert row.base_models == ["base"]
    assert (row.slots, row.free_slots, row.in_flight) == (2, 1, 2)
    assert [(each.name, each.place, each.in_flight) for each in row.adapters] == [
        ("sql", "running", 1),
        ("med", "slot", 0),
    ]
    assert row.age_seconds == pytest.approx(1.5)


async def test_a_pod_that_is_not_ready_is_shown_too() -> None:
    router = Debugged()
    router.fleet.upsert(make_pod(2, ready=False))

    assert (await pod(router, "pod-2")).state == "not-ready"


async def test_adapters_on_a_pod_are_bounded_and_the_others_are_counted() -> None:
    names = tuple(f"a{number}" for number in range(50))
    router = Debugged(make_fleet(1, adapters=names))
    for name in names:
        router.routed(name)

    row = await pod(router)

    assert len(row.adapters) == 32
    assert row.adapters_more == 18


async def test_requests_of_two_routers_on_a_pod_are_added_up_without_counting_twice() -> None:
    here, there = Debugged(name="a"), Debugged(name="b")
    for router in (here, there):
        state = state_of(router.fleet, 1)
        router.fleet.ledger.reserve(state, "sql-lora")
    there.fleet.ledger.reserve(state_of(there.fleet, 1), "sql-lora")
    here.fleet.put_peer(there.fleet.report_to_peers("b", 0.1, {}, 100.0), 100.0)
    there.fleet.put_peer(here.fleet.report_to_peers("a", 0.1, {}, 100.0), 100.0)

    both = (await gathering(here, there).pods()).pods[0]
    alone = await gathering(here, silent=("b",)).pods()

    assert (both.in_flight, both.adapters[0].in_flight) == (3, 3)
    assert both.others_requests == 0
    # The peer that does not answer has reported its requests.
    assert alone.pods[0].in_flight == 3
    assert alone.unreachable == ["b"]


async def test_a_slot_that_is_emptied_for_a_held_request_is_marked_as_closed() -> None:
    router = Debugged(make_fleet(1, adapters=("sql", "law")))
    slots(router, 1)
    router.routed("sql")
    router.held("law", request_id="waits")
    router.clock.advance(7.0)

    [adapter] = (await pod(router)).adapters
    [held] = (await gathering(router).held()).held

    assert (adapter.name, adapter.closed) == ("sql", True)
    assert (held.request_id, held.adapter, held.router) == ("waits", "law", "router-a")
    assert held.reason == "no-slot"
    assert held.seconds == pytest.approx(7.0)
    assert held.closing is not None
    assert (held.closing.pod, held.closing.adapter) == ("pod-1", "sql")


async def test_held_requests_are_listed_oldest_first_and_the_rest_is_counted() -> None:
    router = Debugged(make_fleet(1, adapters=("sql", "law", "med")))
    slots(router, 1)
    router.routed("sql")
    for number in range(4):
        router.held("law" if number % 2 else "med", request_id=f"r{number}")
        router.clock.advance(0.5)

    page = await gathering(router).held({"limit": "3"})

    assert [row.request_id for row in page.held] == ["r0", "r1", "r2"]
    assert page.more == 1


async def test_adapters_are_listed_busiest_first_with_the_pods_that_have_them() -> None:
    router = Debugged(make_fleet(2, adapters=("sql", "law", "med")))
    slots(router, 1)
    router.routed("sql")
    router.routed("sql")
    router.routed("law")
    router.held("med", request_id="waits")
    router.held("med")

    page = await gathering(router).adapters()

    rows = {row.name: row for row in page.adapters}
    assert [row.name for row in page.adapters] == ["med", "sql", "law"]
    assert (rows["med"].held, rows["med"].running, rows["med"].listed) == (2, [], 2)
    assert (rows["sql"].in_flight, rows["sql"].base_model) == (2, "base")
    assert len(rows["sql"].running) == len(rows["law"].running) == 1


def with_host_memory(size: int, *adapters: str) -> Fleet:
    """Return a fleet of two pods that list some adapters, which nobody has used yet."""
    fleet = Fleet()
    for number in (1, 2):
        spec = LoraSpec(slots=1, host_memory=size, source=COMMAND_LINE, loads_when_listed=True)
        fleet.upsert(make_pod(number, lora=spec))
        models = [ServedModel("base"), *(ServedModel(name, "base") for name in adapters)]
        fleet.put_models(state_of(fleet, number), models)
    return fleet


async def test_after_a_start_the_pods_that_list_an_adapter_have_it_in_memory() -> None:
    asks = gathering(Debugged(with_host_memory(40, *(f"a{number:02}" for number in range(40)))))

    adapters, pods = await asks.adapters(), await asks.pods()

    assert {(*row.listed_on, "|", *row.loaded) for row in adapters.adapters} == {
        ("pod-1", "pod-2", "|", "pod-1", "pod-2")
    }
    for pod in pods.pods:
        assert [each.name for each in pod.adapters] == [f"a{number:02}" for number in range(32)]
        assert {each.place for each in pod.adapters} == {"host-memory"}
        assert pod.adapters_more == 8


async def test_what_was_evicted_is_in_no_memory() -> None:
    router = Debugged(with_host_memory(2, "a", "b", "c"))
    state = state_of(router.fleet, 1)
    for name in ("a", "b", "c"):
        router.fleet.ledger.reserve(state, name).release()

    adapters, pods = await gathering(router).adapters(), await gathering(router).pods()

    rows = {row.name: row for row in adapters.adapters}
    assert (rows["a"].listed_on, rows["a"].loaded) == (["pod-1", "pod-2"], [])
    assert rows["b"].loaded == rows["c"].loaded == ["pod-1", "pod-2"]
    assert [(each.name, each.place) for each in pods.pods[0].adapters] == [
        ("c", "slot"),
        ("b", "host-memory"),
    ]
    assert pods.pods[0].adapters_more == 0


async def test_a_few_requests_have_no_99th_percentile() -> None:
    router = Debugged(make_fleet(1, adapters=("sql",)))

    async def percentiles() -> tuple[bool, bool]:
        [row] = (await gathering(router).adapters()).adapters
        return row.p50_seconds is not None, row.p99_seconds is not None

    assert await percentiles() == (False, False)
    for _ in range(9):
        router.record("r", model="sql", adapter="sql", pod="pod-1", place="slot")
    assert await percentiles() == (True, False)
    router.record("r", model="sql", adapter="sql", pod="pod-1", place="slot")
    assert await percentiles() == (True, True)


def with_lists(*lists: range) -> Fleet:
    """Return a fleet of pods that list the adapters of these numbers."""
    fleet = make_fleet(len(lists), adapters=())
    for number, each in enumerate(lists, 1):
        models = [ServedModel("base"), *(ServedModel(f"a{n:03}", "base") for n in each)]
        fleet.put_models(state_of(fleet, number), models)
    return fleet


async def test_adapters_that_are_left_out_are_counted_once_whatever_lists_they_are_in() -> None:
    router = Debugged(with_lists(range(32), range(16, 48), range(48, 80)))
    page = await gathering(router).adapters({"limit": "10"})
    assert (len(page.adapters), page.more) == (10, 70)


async def test_adapters_of_which_each_process_tells_others_are_counted_once() -> None:
    fleet = with_lists(range(40), range(40, 80))
    parent, worker = Debugged(fleet), Debugged(fleet, name="worker-1")
    for number in range(70, 80):  # Only the worker has requests for these.
        worker.record("r", model=f"a{number:03}", adapter=f"a{number:03}", pod="pod-2")

    page = await gathering(parent, worker).adapters({"limit": "10"})

    assert [row.name for row in page.adapters] == [f"a{number:03}" for number in range(70, 80)]
    assert page.more == 70


@pytest.mark.slow
async def test_a_hundred_thousand_adapters_stay_a_bounded_page() -> None:
    names = [f"a{number}" for number in range(100_000)]
    router = Debugged(make_fleet(1, adapters=names))
    router.routed("a99999")

    page = await gathering(router).adapters({"limit": "10"})

    assert len(page.adapters) == 10
    assert page.adapters[0].name == "a99999"
    assert page.more > 90_000


async def test_decisions_are_listed_newest_first_with_their_router() -> None:
    one, two = Debugged(name="a"), Debugged(name="b")
    one.record("first", model="sql", pod="pod-1")
    two.clock.advance(50.0)
    two.record("second", model="law", pod="pod-2")

    page = await gathering(one, two).decisions()

    assert [(row.request_id, row.router) for row in page.decisions] == [
        ("second", "b"),
        ("first", "a"),
    ]
    assert page.decisions[1].at == WALL
    assert page.decisions[1].first_byte_seconds == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"limit": "1"}, ["cancelled"]),
        ({"model": "sql"}, ["slow", "quick"]),
        ({"pod": "pod-2"}, ["refused-by-pod"]),
        ({"outcome": "cancelled"}, ["cancelled"]),
        ({"abnormal": "true"}, ["cancelled", "refused-by-pod", "slow"]),
        ({"abnormal": "false"}, ["quick"]),
        ({"slow": "true"}, ["slow"]),
        ({"since": str(WALL + 0.05)}, ["cancelled", "refused-by-pod", "slow"]),
    ],
)
async def test_decisions_are_chosen_by_what_a_query_says(
    query: dict[str, str], found: list[str]
) -> None:
    router = Debugged()
    router.record("quick", model="sql")
    router.record("slow", model="sql", takes=9.0)
    router.record("refused-by-pod", model="law", pod="pod-2", status=503)
    router.record("cancelled", outcome="cancelled")

    page = await gathering(router).decisions(query)

    assert [row.request_id for row in page.decisions] == found


async def test_each_process_is_a_row_of_the_page_of_routers() -> None:
    router = Debugged(name="a", peers=("b",))
    router.routed("sql-lora")
    router.clock.advance(3.0)

    page = await gathering(router, silent=("b",)).routers()

    [row] = page.routers
    assert (row.name, row.ready, row.pods, row.in_flight) == ("a", True, 2, 1)
    assert (row.algorithm, row.peers) == ("lora-placement", ["b"])
    assert row.uptime_seconds == pytest.approx(3.0)
    assert page.unreachable == ["b"]


@pytest.mark.parametrize("name", ["routers", "pods", "adapters", "held", "decisions"])
async def test_each_page_is_json_with_all_its_fields(name: str) -> None:
    router = Debugged()
    router.record("r")

    shown = await pages(router).show(name, {})

    page = json.loads(shown.body)
    assert shown.status == 200
    assert {name, "at", "unreachable"} <= page.keys()


@pytest.mark.parametrize(
    ("name", "query", "message"),
    [
        ("pods", {"color": "red"}, "unknown parameter 'color'; there are none"),
        (
            "held",
            {"limit": "0"},
            "limit=0: must be a whole number from 1 to 2048",
        ),
        (
            "held",
            {"limit": "0" * 19 + "19999"},
            f"limit={'0' * 19}19999: must be a whole number from 1 to 2048",
        ),
        ("decisions", {"since": "yesterday"}, "since=yesterday: must be seconds since 1970"),
        ("decisions", {"slow": "yes"}, "slow=yes: must be true or false"),
        (
            "decisions",
            {"outcome": "lost"},
            "outcome=lost: must be one of routed, refused, answered, cancelled",
        ),
        (
            "decisions",
            {"colour": ""},
            "unknown parameter 'colour'; known are limit, since, model, pod, outcome, abnormal, "
            "slow",
        ),
    ],
)
async def test_an_unknown_parameter_or_value_is_an_error_that_names_it(
    name: str, query: dict[str, str], message: str
) -> None:
    shown = await pages(Debugged()).show(name, query)

    assert shown.status == 400
    assert json.loads(shown.body) == {"error": message}


async def test_a_page_that_does_not_exist_is_an_error_that_names_the_others() -> None:
    shown = await pages(Debugged()).show("heap", {})

    assert shown.status == 404
    assert "/debug/pods" in json.loads(shown.body)["error"]


async def test_an_answer_that_cannot_be_read_is_that_of_an_unreachable_process() -> None:
    router = Debugged()

    async def ask(question: bytes) -> list[tuple[str, bytes]]:
        answer = await router.debug.answer(question)
        return [("a", answer), ("b", b"\xc1garbage"), ("c", answer[:-3])]

    page = await Gathering(ask).pods()

    assert len(page.pods) == 2
    assert page.unreachable == ["b", "c"]
