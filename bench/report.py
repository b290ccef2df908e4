"""Tables of a run, in Markdown that is readable in a terminal too."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from bench.plan import BASE, Point
from bench.results import Goal, Results, goals
from bench.wire import NOOP_SERVER, NOTHING, Row

_WIRE_HEAD = (
    "behind Envoy",
    "CPU µs",
    "Envoy's CPU µs",
    "requests/s",
    "p50 ms",
    "p99 ms",
    "added p50 ms",
    "added p99 ms",
    "peak MB",
)


@dataclass(frozen=True, slots=True)
class Table:
    """A table."""

    title: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    texts: int = 1
    """Number of leading columns that contain text. The others contain numbers."""

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [self.head, *self.lines]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.head))]
        rule = [
            "-" * width if column < self.texts else "-" * (width - 1) + ":"
            for column, width in enumerate(widths)
        ]

        def row(cells: Sequence[str]) -> str:
            padded = [
                cell.ljust(width) if column < self.texts else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            return f"| {' | '.join(padded)} |"

        body = "\n".join(row(line) for line in (self.head, rule, *self.lines))
        return f"### {self.title}\n\n{body}\n"


def tables(results: Results) -> list[Table]:
    """Return all tables except for the goals."""
    return [
        *_wire_tables(results),
        _process_table(results),
        _scraping_table(results),
        *_parts_tables(results),
    ]


def goals_table(results: Results) -> Table:
    """Return the table of the goals."""
    return Table(
        "Goals",
        ("what", "goal", "reached", ""),
        [(goal.what, goal.wanted, goal.reached, _verdict(goal)) for goal in goals(results)],
    )


def _verdict(goal: Goal) -> str:
    if goal.met is None:
        return ""
    return "yes" if goal.met else "NO"


# The request path


def _wire_tables(results: Results) -> list[Table]:
    dimensions: tuple[tuple[str, Callable[[Point], str], str], ...] = (
        ("Body", lambda point: size(point.body_bytes), "body_bytes"),
        ("Connections", lambda point: str(point.connections), "connections"),
        ("Pods", lambda point: f"{point.pods:,}", "pods"),
        ("Algorithm", lambda point: f"`{point.algorithm}`", "algorithm"),
    )
    made = []
    for title, shown, field in dimensions:
        lines = []
        order = partial(_order, field=field, transports=("", *results.transports))
        for row in sorted(results.wire, key=order):
            if replace(row.point, **{field: getattr(BASE, field)}) != BASE:
                continue
            if field == "algorithm" and row.server != "router":
                continue
            lines.append((shown(row.point), *_wire_cells(row)))
        if len({line[0] for line in lines}) > 1:
            made.append(
                Table(f"{title} ({_otherwise(field)})", (title, *_WIRE_HEAD), lines, texts=2)
            )
    return made


def _order(row: Row, field: str, transports: Sequence[str]) -> tuple[object, ...]:
    value = getattr(row.point, field)
    return (value, transports.index(row.transport), row.server != NOOP_SERVER)


def _otherwise(field: str) -> str:
    unchanged = {
        "body_bytes": f"{size(BASE.body_bytes)} bodies",
        "connections": f"{BASE.connections} connections",
        "pods": f"{BASE.pods} pods",
        "algorithm": f"`{BASE.algorithm}`",
    }
    return ", ".join(text for name, text in unchanged.items() if name != field)


def _wire_cells(row: Row) -> tuple[str, ...]:
    return (
        "no filter" if row.server == NOTHING else f"{row.server}, {row.transport}",
        _number(row.cpu_us),
        _number(row.envoy_cpu_us),
        f"{row.requests_per_second:,.0f}",
        _milliseconds(row.p50_us),
        _milliseconds(row.p99_us),
        _milliseconds(row.added_p50_us),
        _milliseconds(row.added_p99_us),
        _number(row.peak_memory_mb),
    )


# The process and the parts


def _process_table(results: Results) -> Table:
    lines = [
        (f"start to ready, {each.pods} pods", each.transport, f"{each.seconds:.2f} s")
        for each in results.starts
    ]
    lines += [
        (
            f"{each.streams:,} open streams, memory of each",
            each.transport,
            f"{each.bytes_each / 1024:.1f} KB",
        )
        for each in results.streams
    ]
    return Table("The process", ("what", "transport", ""), lines, texts=2)


def _scraping_table(results: Results) -> Table:
    return Table(
        "Scraping",
        (
            "pods, scrapes/s",
            "share of one core",
            "decision p99 µs",
            "answer p50 µs",
            "answer p99 µs",
        ),
        [
            (
                f"{each.pods:,}, {each.scrapes_per_second:,.0f}",
                f"{each.cores:.1%}",
                _number(each.decision_p99_us),
                _number(each.answer_p50_us),
                _number(each.answer_p99_us),
            )
            for each in results.scraped
        ],
    )


def _parts_tables(results: Results) -> list[Table]:
    by_algorithm: dict[str, dict[str, float]] = {}
    others = []
    for name, value in results.parts.items():
        kind, _, rest = name.partition(", ")
        algorithm, _, pods = rest.rpartition(", ")
        if " held on " in name:
            continue
        if kind in {"decision", "routed"}:
            by_algorithm.setdefault(algorithm, {})[f"{kind}, {pods}"] = value
        else:
            others.append((name, _number(value)))
    columns = list(next(iter(by_algorithm.values()), {}))
    # First all decisions, then the whole calls of the director.
    columns.sort(key=lambda column: column.startswith("routed"))
    return [
        Table(
            "Decisions, 10,000 adapters, CPU µs",
            ("algorithm", *columns),
            [
                (f"`{name}`", *(_number(values[column]) for column in columns))
                for name, values in by_algorithm.items()
            ],
        ),
        Table("Parts, CPU µs", ("part", "µs"), others),
        *_held_tables(results),
    ]


def _held_tables(results: Results) -> list[Table]:
    by_point: dict[str, dict[str, float]] = {}
    for name, value in results.parts.items():
        what, comma, point = name.rpartition(", ")
        if comma and " held on " in point:
            by_point.setdefault(point, {})[what] = value
    columns = list(next(iter(by_point.values()), {}))
    lines = [
        (point, *(_number(values[column]) for column in columns))
        for point, values in by_point.items()
    ]
    return [Table("Requests held, CPU µs", ("requests", *columns), lines)] if lines else []


# Cells


def size(count: int) -> str:
    """Return a number of bytes as the tables show it."""
    return f"{count // 1_000_000} MB" if count >= 1_000_000 else f"{count // 1000} KB"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value / 1000:.2f}"
