"""The debug pages for people, on terminals of any width."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console, RenderableType

from lora_router.debug.pages import (
    AdaptersPage,
    DecisionsPage,
    HeldPage,
    Page,
    PodsPage,
    RoutersPage,
)
from lora_router.debug.rows import (
    AdapterOnPod,
    AdapterRow,
    CandidateRow,
    DecisionRow,
    HeldRow,
    PodRow,
    RouterRow,
)
from lora_router.debug.tables import (
    adapters_table,
    candidates_table,
    held_table,
    notes,
    pods_table,
    routers_table,
)
from lora_router.debug.top_view import Pages, top_view
from tests.fleet import make_fleet, make_pod, state_of
from tests.parameters import mostly_slow
from tests.unit.debug.debugged import Debugged, gathering
from tests.unit.debug.test_pages import slots

WIDTHS = [50, 80, 120, 200]
LONG = "customer-42-contracts-[2026]-lora-r16"
ID = "9f1c2e9a-5b1c-4a53-8fb2-1d50a9b1ac77"


def lines_of(what: RenderableType, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(what)
    return [line.rstrip() for line in capture.get().splitlines()]


def busy_router() -> Debugged:
    """A router that holds a request, because an adapter with a long name has the last slot."""
    router = Debugged(make_fleet(3, adapters=("sql", LONG, "law")), name="router-7c9d8b6f5-x2v4q")
    router.fleet.upsert(make_pod(3, ready=False))
    slots(router, 1)
    router.fleet.ledger.reserve(state_of(router.fleet, 1), "sql")
    router.fleet.ledger.reserve(state_of(router.fleet, 2), LONG)
    router.record("slow-one", takes=6.0, model="sql", adapter="sql", pod="pod-1", place="slot")
    for _ in range(8):
        router.record("warm-one", model="sql", adapter="sql", pod="pod-1", place="slot")
    router.record("cold-one", model="sql", adapter="sql", pod="pod-2", place="nowhere")
    router.held("law", request_id=ID)
    router.clock.advance(7.0)
    return router


async def pages_of(router: Debugged) -> Pages:
    asks = gathering(router, silent=("router-b",))
    return Pages(
        await asks.routers(),
        await asks.pods(),
        await asks.adapters(),
        await asks.held(),
        await asks.decisions({"abnormal": "true"}),
    )


TABLES: list[Callable[[Pages, int], RenderableType]] = [
    lambda pages, width: pods_table(pages.pods, width),
    lambda pages, width: adapters_table(pages.adapters, width),
    lambda pages, width: held_table(pages.held, width),
    lambda pages, width: routers_table(pages.routers, width),
]


@pytest.mark.parametrize("width", mostly_slow(WIDTHS))
@pytest.mark.parametrize("table", TABLES)
async def test_each_table_fits_into_the_width_and_cuts_no_name(
    table: Callable[[Pages, int], RenderableType], width: int
) -> None:
    pages = await pages_of(busy_router())

    lines = lines_of(table(pages, width), width)
    wide = lines_of(table(pages, 1000), 1000)

    assert all(len(line) <= width for line in lines)
    names = {word for line in wide[1:] for word in line.split()}
    told = "".join("".join(lines).split())
    assert [name for name in names if name not in told] == []


HOSTILE = "\x1b[31mred\x1b[0m\n\u202egpj\x9b2J\ud800"
"""Text that a terminal would obey, that turns the order, ends a line, or cannot be encoded."""


@pytest.mark.parametrize("width", [40, 200])
async def test_names_do_not_move_the_cursor_of_the_terminal(width: int) -> None:
    on_pod = AdapterOnPod(name=HOSTILE, place="running", in_flight=1)
    pod = PodRow(name=HOSTILE, state="ready", adapters=[on_pod], why=HOSTILE, health="ejected")
    adapter = AdapterRow(name=HOSTILE, running=[HOSTILE])
    held = HeldRow(request_id=HOSTILE, model=HOSTILE)
    decision = DecisionRow(request_id=HOSTILE, model=HOSTILE, reason=HOSTILE)
    candidate = CandidateRow(pod=HOSTILE, terms={HOSTILE: 1.0})
    pages = Pages(
        RoutersPage(routers=[RouterRow(name=HOSTILE)], unreachable=[HOSTILE]),
        PodsPage(pods=[pod]),
        AdaptersPage(adapters=[adapter]),
        HeldPage(held=[held]),
        DecisionsPage(decisions=[decision]),
    )

    shown = [
        top_view(pages, width, None),
        candidates_table([candidate], width),
        *(table(pages, width) for table in TABLES),
        *notes(pages.routers),
    ]

    for each in shown:
        lines = lines_of(each, width)
        assert all(line.isprintable() for line in lines), lines
        assert all(len(line) <= width for line in lines), lines
    assert "\\x1b[31mred\\x1b[0m\\n\\u202egpj\\x9b2J\\ud800" in "".join(
        "".join(lines_of(pods_table(pages.pods, 200), 200)).split()
    )


async def test_a_pod_has_one_line_where_it_fits() -> None:
    pages = await pages_of(busy_router())

    lines = lines_of(pods_table(pages.pods, 200), 200)

    assert [" ".join(line.split()) for line in lines] == [
        "pod state slots host memory requests queue cache age adapters",
        "pod-1 ready 1/1 1 (assumed) 1+1 0 - 13.9 s sql x1 (closing)",
        f"pod-2 ready 1/1 1 (assumed) 1+1 0 - 13.9 s {LONG} x1",
        "pod-3 not-ready 0/1 1 (assumed) 0+1 0 - 13.9 s",
    ]


@pytest.mark.parametrize(
    ("size", "source", "shown"),
    [
        (64, "command-line", "64 (command-line)"),
        (None, "label", "unlimited (label)"),
        (None, "assumed", "-"),
        (None, "", "-"),
    ],
)
def test_a_pod_has_the_size_of_its_host_memory_and_where_it_is_known_from(
    size: int | None, source: str, shown: str
) -> None:
    row = PodRow(name="pod-1", state="ready", host_memory=size, host_memory_source=source)
    [_, line] = lines_of(pods_table(PodsPage(pods=[row]), 200), 200)
    assert [cell.strip() for cell in line.split("  ") if cell.strip()][3] == shown


async def test_an_adapter_has_its_hits_and_misses_and_how_long_its_requests_took() -> None:
    pages = await pages_of(busy_router())

    lines = lines_of(adapters_table(pages.adapters, 200), 200)

    row = next(line for line in lines if line.startswith("sql"))
    name, held, running, requests, hits, misses, failed, *times = row.split()
    assert (name, held, running, requests, hits, misses, failed) == (
        *("sql", "0", "1", "10", "9", "1", "0"),
    )
    p50, unit, p99, unit_of_p99, *pods = times
    assert (unit, unit_of_p99, " ".join(pods)) == (
        "ms",
        "s",
        "runs on pod-1; listed by pod-1, pod-2, pod-3; in memory on pod-1",
    )
    assert float(p50) == pytest.approx(100, rel=0.1)
    assert float(p99) == pytest.approx(6.0, rel=0.1)


def told_of(row: AdapterRow) -> str:
    """Return what the table says of where an adapter is."""
    [_, line] = lines_of(adapters_table(AdaptersPage(adapters=[row]), 300), 300)
    return line.rsplit("  ", 1)[-1]


DECLARED = {"declared_by": "file", "state": "loaded", "wanted": 2}
TWO = {"listed": 2, "listed_on": ["pod-1", "pod-2"]}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        # The router has just started: it knows of no use, and all that is listed is in memory.
        (DECLARED | TWO | {"loaded": ["pod-1", "pod-2"]}, "loaded on pod-1, pod-2"),
        (
            DECLARED | TWO | {"running": ["pod-2"], "loaded": ["pod-1"]},
            "runs on pod-2; loaded on pod-1, pod-2",
        ),
        (DECLARED | TWO | {"loaded": ["pod-2"]}, "loaded on pod-1, pod-2; in memory on pod-2"),
        (
            DECLARED
            | {"state": "partly", "listed": 1, "listed_on": ["pod-1"], "loaded": ["pod-1"]},
            "partly: on 1 of 2 pods (pod-1)",
        ),
        (
            DECLARED | {"state": "loading", "loading": ["pod-1"]},
            "loading: on 0 of 2 pods; loading on pod-1",
        ),
        (TWO | {"loaded": ["pod-1", "pod-2"]}, "listed by pod-1, pod-2"),
        (TWO, "listed by pod-1, pod-2; in memory on no pod"),
        ({}, "listed by no pod"),
        # A router of another release names no pods.
        (DECLARED | {"listed": 2, "loaded": ["pod-1"]}, "loaded on 2 pods; in memory on pod-1"),
        (
            {"listed": 100, "listed_on": [f"p{n}" for n in range(32)]}
            | {"loaded": [f"p{n}" for n in range(32)]},
            "listed by p0, p1, p2, p3, p4, p5, p6, p7 and 92 more",
        ),
    ],
)
def test_loaded_on_are_the_pods_that_list_an_adapter(fields: dict[str, Any], told: str) -> None:
    assert told_of(AdapterRow(name="sql", **fields)) == told


@pytest.mark.parametrize("width", [80, 200])
async def test_candidates_are_shown_with_their_terms_or_why_they_are_excluded(width: int) -> None:
    router = Debugged(make_fleet(2, adapters=("sql",)))
    slots(router, 1)
    router.fleet.ledger.reserve(state_of(router.fleet, 1), None)
    router.fleet.ledger.reserve(state_of(router.fleet, 2), "other")

    page = await gathering(router).explain({"model": "sql"})

    lines = lines_of(candidates_table(page.candidates, width), width)
    assert [" ".join(line.split()) for line in lines] == [
        "pod requests free slots adapter cost why",
        "pod-1 2 1 nowhere 302.0 2 requests + 300 adapter-load",
        "pod-2 2 0 nowhere - excluded: no free slot",
    ]


def test_what_is_missing_from_a_table_is_said_below_it() -> None:
    page = Page(unreachable=["router-b"])

    assert [str(note) for note in notes(page, 7)] == [
        "7 more; --limit shows more of them.",
        "No answer from router-b: what they know is missing.",
    ]


@pytest.mark.parametrize("width", mostly_slow(WIDTHS))
@pytest.mark.parametrize("height", [10, 24, 60])
async def test_the_live_picture_fits_into_each_terminal(width: int, height: int) -> None:
    router = busy_router()
    for number in range(50):
        router.record(f"slow-{number}", takes=6.0, model="sql", pod="pod-1")

    lines = lines_of(top_view(await pages_of(router), width, height), width)

    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert lines[0].split()[2:4] == ["held", "1"]
    assert lines[1] == "Routers"


@pytest.mark.parametrize(("height", "shown"), [(45, 29), (None, 100)])
def test_the_live_picture_counts_all_rows_that_it_does_not_show(
    height: int | None, shown: int
) -> None:
    adapters = [AdapterRow(name=f"lora-{number:03}") for number in range(100)]
    pages = Pages(
        RoutersPage(routers=[RouterRow(name="router-a")]),
        PodsPage(pods=[PodRow(name=f"pod-{number}", state="ready") for number in range(8)]),
        AdaptersPage(adapters=adapters, more=104),
        HeldPage(),
        DecisionsPage(),
    )

    lines = lines_of(top_view(pages, 80, height), 80)

    assert sum(line.startswith("lora-0") for line in lines) == shown
    assert f"Adapters, the busiest first ({204 - shown} more)" in lines


def test_of_abnormal_requests_the_live_picture_says_how_many_of_the_newest_it_hides() -> None:
    rows = [DecisionRow(request_id=f"r{number}") for number in range(20)]
    pages = Pages(
        RoutersPage(), PodsPage(), AdaptersPage(), HeldPage(), DecisionsPage(decisions=rows)
    )
    lines = lines_of(top_view(pages, 80, 8), 80)
    assert "Abnormal requests, the newest 20 (15 more)" in lines


@pytest.mark.parametrize(
    ("name", "headings"),
    [
        ("lora-002", "adapter held running requests misses failed p50 p99 pods"),
        (LONG, "adapter held running p99 pods"),
    ],
)
def test_where_an_adapter_is_comes_before_its_hits_where_there_is_little_room(
    name: str, headings: str
) -> None:
    row = AdapterRow(
        name=name, requests=1000, p50_seconds=0.2, p99_seconds=0.21, listed=1, listed_on=["pod-3"]
    )
    pages = Pages(
        RoutersPage(), PodsPage(), AdaptersPage(adapters=[row]), HeldPage(), DecisionsPage()
    )
    lines = lines_of(top_view(pages, 80, 24), 80)
    assert " ".join(lines[-2].split()) == headings
    assert "listed by" in lines[-1]
    assert all(len(line) <= 80 for line in lines)


async def test_the_live_picture_shows_every_row_where_there_is_no_terminal() -> None:
    lines = lines_of(top_view(await pages_of(busy_router()), 200, None), 200)

    told = "\n".join(lines)
    for expected in ("router-7c9d8b6f5-x2v4q", "1 silent", LONG, ID, "slow-one", "not-ready"):
        assert expected in told


async def test_the_live_picture_does_not_need_decisions() -> None:
    pages = await pages_of(busy_router())

    lines = lines_of(top_view(pages._replace(decisions=DecisionsPage()), 80, 24), 80)

    assert not any(line.startswith("Abnormal") for line in lines)


@pytest.mark.parametrize("at", [1e300, -1e300, 1e18, -62135596801.0])
async def test_a_time_that_does_not_exist_is_shown_as_such(at: float) -> None:
    pages = await pages_of(busy_router())
    pages.routers.at = at

    [first, *_] = lines_of(top_view(pages, 200, None), 200)

    assert first.startswith("at an unknown time  held ")
