"""What ``lora-router top`` shows: the routers, and what deserves a look, on one screen."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lora_router.debug.pages import (
    NEWEST_DECISIONS,
    AdaptersPage,
    DecisionsPage,
    HeldPage,
    PodsPage,
    RoutersPage,
)
from lora_router.debug.rows import AdapterRow, PodRow
from lora_router.debug.tables import (
    DECISION_HEADINGS,
    adapter_cells,
    decision_cells,
    held_cells,
    pod_cells,
    router_cells,
)
from lora_router.debug.times_of_day import time_of_day
from lora_router.terminal import visible_rows

_LEAST = 3
"""Rows that a section has at least, if it has as many."""
_GAP = 2
_NAME, _LAST = 40, 12
"""Columns that a name has at most, and that the last column has at least."""


class Pages(NamedTuple):
    """What is shown."""

    routers: RoutersPage
    pods: PodsPage
    adapters: AdaptersPage
    held: HeldPage
    decisions: DecisionsPage


class _Section(NamedTuple):
    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[bool]
    more: int = 0
    """Rows that the page left out."""
    dispensable: Sequence[int] = ()
    """Columns that are left out first where there is no room, in this order. Then those at the
    right follow."""


def top_view(pages: Pages, width: int, height: int | None) -> RenderableType:
    """Return the picture, in lines of at most ``width`` columns.

    Args:
        pages: What is shown.
        width: Columns. What does not fit is cut at the right.
        height: Lines. ``None``: as many as there are.
    """
    sections = _sections(pages)
    counts = _shares([len(each.rows) for each in sections], height)
    parts: list[RenderableType] = [_head(pages)]
    for section, count in zip(sections, counts, strict=True):
        if count:
            left = len(section.rows) - count + section.more
            title = section.title + (f" ({left} more)" if left else "")
            parts += [Text(title, style="bold", no_wrap=True, overflow="crop")]
            parts.append(_table(section, count, width))
    return Group(*parts)


def _head(pages: Pages) -> Text:
    routers = pages.routers.routers
    at = time_of_day(pages.routers.at, "%H:%M:%S UTC")
    slots = [pod for pod in pages.pods.pods if pod.slots is not None]
    total = sum(pod.slots or 0 for pod in slots)
    free = sum(max(0, pod.free_slots or 0) for pod in slots)
    ready = sum(pod.state == "ready" and pod.health == "healthy" for pod in pages.pods.pods)
    away = f", {len(pages.routers.unreachable)} silent" if pages.routers.unreachable else ""
    return Text(
        f"{at}  held {sum(each.held for each in routers)}  "
        f"in flight {sum(each.in_flight for each in routers)}  slots {total - free}/{total}  "
        f"pods {ready}/{len(pages.pods.pods)} well  routers {len(routers)}{away}",
        no_wrap=True,
        overflow="crop",
    )


def _sections(pages: Pages) -> list[_Section]:
    routers = [router_cells(row) for row in pages.routers.routers]
    names = ("router", "version", "held", "in flight", "decisions", "lag", "uptime", "state")
    held = [held_cells(row) for row in pages.held.held]
    pods = sorted(pages.pods.pods, key=_trouble)
    adapters = sorted(pages.adapters.adapters, key=_traffic)
    return [
        _section("Routers", names, routers, 2, 7),
        _section(
            "Held requests, the oldest first",
            ("held for", "model", "reason", "router", "request", "waits for"),
            held,
            0,
            1,
            more=pages.held.more,
        ),
        _section(
            "Pods, those in trouble and the busiest first",
            ("pod", "state", "slots", "requests", "queue", "cache", "age", "adapters"),
            [pod_cells(row) for row in pods],
            2,
            7,
        ),
        _section(
            "Adapters, the busiest first",
            (
                *("adapter", "held", "running", "requests", "hits", "misses", "failed"),
                *("p50", "p99", "pods"),
            ),
            [adapter_cells(row) for row in adapters],
            1,
            9,
            more=pages.adapters.more,
            # Where an adapter is, how long its requests take, and what waits, are last.
            dispensable=(4, 7, 5, 6, 3, 8, 2),
        ),
        _section(
            f"Abnormal requests, the newest {NEWEST_DECISIONS}"
            if len(pages.decisions.decisions) >= NEWEST_DECISIONS
            else "Abnormal requests, the newest first",
            DECISION_HEADINGS,
            [decision_cells(row) for row in pages.decisions.decisions],
            0,
            2,
        ),
    ]


def _section(
    title: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    first: int,
    last: int,
    *,
    more: int = 0,
    dispensable: Sequence[int] = (),
) -> _Section:
    """Return a section whose columns from ``first`` to before ``last`` are figures."""
    right = [first <= number < last for number in range(len(headings))]
    return _Section(title, headings, rows, right, more, dispensable)


def _trouble(row: PodRow) -> tuple[bool, bool, int, str]:
    return row.health == "healthy", row.state == "ready", -row.in_flight, row.name


def _traffic(row: AdapterRow) -> tuple[int, int, int, str]:
    return -row.held - row.in_flight, -row.held, -row.requests, row.name


def _shares(rows: Sequence[int], height: int | None) -> list[int]:
    """Return how many rows each section gets, so that all fit into a height."""
    if height is None:
        return list(rows)
    room = height - 1
    counts = [0] * len(rows)
    for most in (_LEAST, max(rows, default=0)):
        growing = True
        while growing:
            growing = False
            for number, there in enumerate(rows):
                # The first row of a section comes with its title and its headings.
                lines = 1 if counts[number] else 3
                if counts[number] < min(there, most) and room >= lines:
                    room -= lines
                    counts[number] += 1
                    growing = True
    return counts


def _table(section: _Section, count: int, width: int) -> Table:
    """Return a section. Columns for which there is no room are left out."""
    rows = visible_rows(section.rows[:count])
    widths = [max(map(cell_len, column)) for column in zip(section.headings, *rows, strict=True)]
    widths[0] = min(widths[0], _NAME)
    shown = _columns(widths, width, section.dispensable)
    used = sum(widths[number] for number in shown) + _GAP * (len(shown) - 1)
    table = Table(box=None, pad_edge=False)
    for number in shown:
        room = max(1, min(widths[number], widths[number] + width - used))
        table.add_column(
            section.headings[number],
            justify="right" if section.right[number] else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=room if number == shown[-1] else widths[number],
        )
    for row in rows:
        table.add_row(*(Text(row[number]) for number in shown))
    return table


def _columns(widths: Sequence[int], width: int, dispensable: Sequence[int]) -> Sequence[int]:
    """Return the columns that are shown: as many as there is room for. The last may be cut."""
    last = len(widths) - 1
    shown = list(range(len(widths)))
    for number in (*dispensable, *range(last, 0, -1)):
        least = sum(min(widths[each], _LAST) if each == last else widths[each] for each in shown)
        if least + _GAP * (len(shown) - 1) <= width:
            break
        if number in shown:
            shown.remove(number)
    return shown
