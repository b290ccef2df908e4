"""The debug pages as tables for people, at any width."""

from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lora_router.counted import counted
from lora_router.debug.pages import (
    AdaptersPage,
    HeldPage,
    Page,
    PodsPage,
    RoutersPage,
    StepsPage,
)
from lora_router.debug.rows import AdapterRow, CandidateRow, DecisionRow, HeldRow, PodRow, RouterRow
from lora_router.debug.telling import seconds
from lora_router.fleet.lora_spec import ASSUMED, UNLIMITED_WORD
from lora_router.terminal import table_or_paragraphs, visible_rows
from lora_router.visible_text import visible

_GAP = 2
_NAMED = 8
"""Adapters and pods that a cell names. The others are counted."""
_INDENT = 4


def notes_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> RenderableType:
    """Return a table whose first column are names, and whose last one is text.

    Where the width is too small, that text follows each row in lines of its own. Where it is still
    too small, the name goes before each row. Where it is even too small for the columns between,
    each row is a paragraph.
    """
    rows = visible_rows(rows)
    widths = [max(map(cell_len, column)) for column in zip(headings, *rows, strict=True)]
    gaps = _GAP * (len(widths) - 1)
    if sum(widths) + gaps <= width:
        return _table(headings, rows, widths)
    names_before = sum(widths[:-1]) + gaps - _GAP > width
    if names_before:
        widths[0] = _INDENT - _GAP
        if sum(widths[:-1]) + gaps - _GAP > width:
            return table_or_paragraphs(headings, rows, width)
    shown = ["", *headings[1:-1]] if names_before else headings[:-1]
    parts: list[RenderableType] = [_table(shown, [], widths)]
    for row in rows:
        cells = row[:-1]
        if names_before:
            parts.append(Text(row[0], overflow="fold"))
            cells = ["", *cells[1:]]
        parts.append(_table((), [cells], widths))
        if row[-1]:
            text = Text(f"{headings[-1]}: {row[-1]}", overflow="fold")
            parts.append(Padding(text, (0, 0, 0, _INDENT)))
    return Group(*parts)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=bool(headings))
    for number in range(len(headings) or len(rows[0])):
        heading = headings[number] if headings else ""
        table.add_column(heading, no_wrap=True, min_width=widths[number])
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def pods_table(page: PodsPage, width: int) -> RenderableType:
    """Return the pods."""
    headings = (
        *("pod", "state", "slots", "host memory", "requests", "queue", "cache", "age"),
        "adapters",
    )
    rows = []
    for row in page.pods:
        name, state, slots, *rest = pod_cells(row)
        rows.append((name, state, slots, _host_memory(row), *rest))
    return notes_table(headings, rows, width)


def pod_cells(row: PodRow) -> tuple[str, ...]:
    """Return the cells of a pod."""
    state = row.state if row.state != "ready" or row.health == "healthy" else row.health
    if row.why:
        state = f"{state} ({row.why})"
    requests = str(row.in_flight)
    if row.others_requests:
        requests += f"+{row.others_requests}"
    return (
        row.name,
        state,
        _slots(row),
        requests,
        _number(row.waiting),
        "-" if row.cache_use is None else f"{row.cache_use:.0%}",
        "-" if row.age_seconds is None else f"{row.age_seconds:.1f} s",
        _adapters(row),
    )


def _slots(row: PodRow) -> str:
    if row.slots is None or row.free_slots is None:
        return "-"
    return f"{row.slots - row.free_slots}/{row.slots}"


def _host_memory(row: PodRow) -> str:
    """Return how many adapters fit, and how that is known."""
    if not row.host_memory_source or (
        row.host_memory is None and row.host_memory_source == ASSUMED
    ):
        return "-"
    size = UNLIMITED_WORD if row.host_memory is None else str(row.host_memory)
    return f"{size} ({row.host_memory_source})"


def _adapters(row: PodRow) -> str:
    parts = []
    for place, words in (("running", ""), ("slot", "idle: "), ("host-memory", "host memory: ")):
        names = [
            each.name
            + (f" x{each.in_flight}" if each.in_flight else "")
            + (" (closing)" if each.closed else "")
            for each in row.adapters
            if each.place == place
        ]
        if names:
            parts.append(words + _list(names))
    if row.adapters_more:
        parts.append(f"{row.adapters_more} more")
    return "; ".join(parts)


def adapters_table(page: AdaptersPage, width: int) -> RenderableType:
    """Return the adapters."""
    headings = (
        *("adapter", "held", "running", "requests", "hits", "misses", "failed"),
        *("p50", "p99", "pods"),
    )
    return notes_table(headings, [adapter_cells(row) for row in page.adapters], width)


def steps_table(page: StepsPage, width: int) -> RenderableType:
    """Return the loads and unloads that are to be done."""
    if not page.steps:
        return Text("Nothing is to be done.")
    headings = ("pod", "action", "adapter", "because", "put off by")
    rows = [(row.pod, row.action, row.adapter, row.reason, row.put_off) for row in page.steps]
    return notes_table(headings, rows, width)


def adapter_cells(row: AdapterRow) -> tuple[str, ...]:
    """Return the cells of an adapter."""
    figures = (row.held, row.in_flight, row.requests, row.hits, row.misses, row.failed)
    pods = []
    if row.running:
        pods.append(f"runs on {_list(row.running)}")
    if row.declared_by:
        pods.append(_as_declared(row))
        if row.loading:
            pods.append(f"loading on {_list(row.loading)}")
        if row.failing:
            first = row.failing[0]
            pods.append(f"{first.pod} cannot {first.action} it: {first.reason}")
    elif row.listed:
        pods.append(f"listed by {_listing(row)}")
    elif not row.running and not row.loaded:
        pods.append("listed by no pod")
    in_memory = [*row.running, *row.loaded]
    if len(in_memory) < len(row.listed_on) or (row.loaded and not row.listed_on):
        pods.append(f"in memory on {_list(in_memory) or 'no pod'}")
    if row.hold_p99_seconds is not None:
        pods.append(f"held up to {_short(row.hold_p99_seconds)} (p99)")
    return (
        row.name,
        *map(str, figures),
        _short(row.p50_seconds),
        _short(row.p99_seconds),
        "; ".join(pods),
    )


def _as_declared(row: AdapterRow) -> str:
    """Return how far a declared adapter is, and on which pods it is."""
    if row.unplaced_because:
        return f"{row.state}: {row.unplaced_because}"
    if row.listed >= row.wanted:
        return f"{row.state} on {_listing(row)}"
    how_many = f"on {row.listed} of {counted(row.wanted, 'pod')}"
    return f"{row.state}: {how_many}" + (f" ({_list(row.listed_on)})" if row.listed_on else "")


def _listing(row: AdapterRow) -> str:
    """Return the pods that list an adapter. A row names some of many."""
    names = row.listed_on
    if not names:
        return counted(row.listed, "pod")
    return _list(names, max(row.listed, len(names)))


def held_table(page: HeldPage, width: int) -> RenderableType:
    """Return the requests that wait."""
    headings = ("held for", "model", "reason", "router", "request", "waits for")
    return notes_table(headings, [held_cells(row) for row in page.held], width)


def held_cells(row: HeldRow) -> tuple[str, ...]:
    """Return the cells of a request that waits."""
    waits_for = "a free slot"
    if row.closing is not None:
        waits_for = f"the slot of {row.closing.adapter} on {row.closing.pod}"
    elif row.wanted is not None:
        waits_for = f"a slot of {row.wanted}"
    return (seconds(row.seconds), row.model, row.reason, row.router, row.request_id, waits_for)


def decision_cells(row: DecisionRow) -> tuple[str, ...]:
    """Return the cells of a decision."""
    what = [] if row.outcome == "routed" else [row.outcome]
    if row.held_for:
        what.append(f"held {_short(row.held_seconds)}")
    if row.slow:
        what.append("slow")
    if row.retried_on:
        what.append(f"retried on {row.retried_on}")
    if row.unanswered:
        what.append("unanswered")
    return (
        _short(row.first_byte_seconds),
        str(row.status or "-"),
        row.model,
        row.pod or row.reason,
        ", ".join(what),
        row.request_id,
    )


DECISION_HEADINGS = ("first byte", "status", "model", "pod", "what", "request")


def routers_table(page: RoutersPage, width: int) -> RenderableType:
    """Return the processes that act as one router."""
    headings = ("router", "version", "held", "in flight", "decisions", "lag", "uptime", "state")
    rows = [router_cells(row) for row in page.routers]
    rows += [(name, "-", "-", "-", "-", "-", "-", "does not answer") for name in page.unreachable]
    return notes_table(headings, rows, width)


def router_cells(row: RouterRow) -> tuple[str, ...]:
    """Return the cells of a process."""
    return (
        row.name,
        row.version,
        *map(str, (row.held, row.in_flight, row.decisions)),
        _short(row.loop_lag_seconds),
        _long(row.uptime_seconds),
        row.reason or ("ready" if row.ready else "not ready"),
    )


def candidates_table(rows: Sequence[CandidateRow], width: int) -> RenderableType:
    """Return what a decision saw of its candidates."""
    headings = ("pod", "requests", "free slots", "adapter", "cost", "why")
    return notes_table(headings, [_candidate(row) for row in rows], width)


def _candidate(row: CandidateRow) -> tuple[str, ...]:
    terms = " + ".join(f"{_number(value)} {name}" for name, value in row.terms.items())
    return (
        row.pod,
        "-" if row.requests is None else str(row.requests),
        "-" if row.free_slots is None else str(row.free_slots),
        row.place or "-",
        "-" if row.cost is None else f"{row.cost:.1f}",
        f"excluded: {row.excluded}" if row.excluded else terms,
    )


def notes(page: Page, more: int = 0) -> Iterator[Text]:
    """Yield what there is to say below a table."""
    if more:
        yield Text(f"{more} more; --limit shows more of them.")
    if page.unreachable:
        names = visible(", ".join(page.unreachable))
        yield Text(f"No answer from {names}: what they know is missing.")


def _list(names: Iterable[str], count: int = 0) -> str:
    """Return names, or the first ones and how many more there are.

    Args:
        names: The names, or some of them.
        count: How many there are, if these are not all.
    """
    every = list(names)
    more = max(count, len(every)) - _NAMED
    shown = ", ".join(every[:_NAMED])
    return f"{shown} and {more} more" if more > 0 else shown


def _short(value: float | None) -> str:
    return "-" if value is None else seconds(value)


def _long(value: float) -> str:
    minutes, hours = value / 60, value / 3600
    if hours >= 48:
        return f"{hours / 24:.0f} d"
    if minutes >= 120:
        return f"{hours:.0f} h"
    return f"{minutes:.0f} min" if value >= 120 else f"{value:.0f} s"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}".removesuffix(".0")
