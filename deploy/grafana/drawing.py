"""Draws what Prometheus answers to the panels of a dashboard, in the dashboard's grid."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from deploy.grafana.panels import WIDTH, Dashboard, Panel, Query

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = Sequence[tuple[float, float]]
"""Times in seconds since 1970, and values."""
Labels = Mapping[str, str]

_INCHES = 14.0
_ROW_INCHES = 0.36
"""Height of a row of Grafana's grid."""
_LEGEND = 62
"""Characters in a line of a legend. It has two lines. All series are drawn."""
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#666666", "#8C564B")
_STATES = {"green": "#2e7d32", "orange": "#e08a00", "red": "#c62828"}
_WORDS = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True, slots=True)
class Span:
    """The time that is shown, in seconds since 1970."""

    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A query, and the series that Prometheus has for it."""

    query: Query
    series: Sequence[tuple[Labels, Values]]


def draw(
    dashboard: Dashboard, answers: Mapping[Panel, Sequence[Answer]], span: Span, folder: Path
) -> None:
    """Write ``dashboard-NAME.png``."""
    from matplotlib.figure import Figure  # noqa: PLC0415 -- an extra, as is what it needs
    from PIL import Image  # noqa: PLC0415

    places, height = _places(dashboard)
    figure = Figure(figsize=(_INCHES, height * _ROW_INCHES + 0.6), dpi=80)
    total = height + 0.6 / _ROW_INCHES
    figure.text(0.01, 1 - 0.25 / (total * _ROW_INCHES), dashboard.title, fontsize=13, weight="bold")
    top = total - 0.6 / _ROW_INCHES
    for title, y in _headings(dashboard):
        figure.text(0.01, (top - y - 0.7) / total, title, fontsize=10.5, weight="bold")
    for panel, (x, y) in places.items():
        left, bottom = x / WIDTH + 0.042, (top - y - panel.height + 1.15) / total
        width, tall = panel.width / WIDTH - 0.052, (panel.height - 2.3) / total
        axes = figure.add_axes((left, bottom, width, tall))
        axes.set_title(panel.title, loc="left", fontsize=9)
        if panel.kind == "stat":
            _stat(axes, panel, answers[panel])
        elif panel.kind == "table":
            _table(axes, panel, answers[panel])
        else:
            _lines(axes, panel, answers[panel], span)
    path = folder / f"dashboard-{dashboard.name}.png"
    figure.savefig(path)
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE)
        few.save(path, optimize=True)


def _places(dashboard: Dashboard) -> tuple[dict[Panel, tuple[int, int]], int]:
    """Return where each panel is, and the height of all, in columns and rows of the grid."""
    places, y = {}, 0
    for row in dashboard.rows:
        x, tallest, y = 0, 0, y + 1
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            places[panel] = (x, y)
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return places, y


def _headings(dashboard: Dashboard) -> list[tuple[str, int]]:
    places, _ = _places(dashboard)
    return [(row.title, places[row.panels[0]][1] - 1) for row in dashboard.rows]


def _lines(axes: "Axes", panel: Panel, answers: Sequence[Answer], span: Span) -> None:
    drawn: list[tuple[str, Values]] = [
        (_name(answer.query, labels), values)
        for answer in answers
        for labels, values in answer.series
    ]
    drawn = [each for each in drawn if any(not math.isnan(value) for _, value in each[1])]
    drawn.sort(key=lambda each: -_largest(each[1]))
    axes.tick_params(labelsize=7)
    axes.grid(color="#e4e4e4")
    axes.set_xlim(0, span.end - span.begin)
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:.0f} s")
    axes.yaxis.set_major_formatter(_formatter(panel.unit))
    if not drawn:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", transform=axes.transAxes)
        return
    longest = max(len(name) for name, _ in drawn)
    columns = max(1, min(4, _LEGEND // (longest + 5)))
    below: dict[float, float] = {}
    for number, (name, values) in enumerate(drawn):
        color = _COLORS[number % len(_COLORS)]
        label = name if number < 2 * columns else None
        times = [at - span.begin for at, _ in values]
        heights = [value for _, value in values]
        if panel.stacked:
            bottoms = [below.get(at, 0.0) for at, _ in values]
            tops = [low + value for low, value in zip(bottoms, heights, strict=True)]
            below |= {at: high for (at, _), high in zip(values, tops, strict=True)}
            axes.fill_between(times, bottoms, tops, color=color, alpha=0.35, label=label, lw=0)
        else:
            axes.plot(times, heights, color=color, lw=1.2, label=label, clip_on=False)
    highest = max(_largest(values) for _, values in drawn)
    axes.set_ylim(0, panel.highest * 1.05 if panel.highest else None if highest else 1.0)
    for step in panel.thresholds:
        if step.value < axes.get_ylim()[1]:
            axes.axhline(step.value, color=_STATES[step.color], lw=0.8, ls="--")
    axes.legend(
        fontsize=6.3,
        ncols=columns,
        loc="upper left",
        bbox_to_anchor=(-0.08, -0.12),
        frameon=False,
        handlelength=1,
        columnspacing=1,
    )


def _stat(axes: "Axes", panel: Panel, answers: Sequence[Answer]) -> None:
    axes.set_axis_off()
    values = [values[-1][1] for answer in answers for _, values in answer.series]
    value = values[0] if values else math.nan
    text = "none" if math.isnan(value) else _formatter(panel.unit)(value, None)
    axes.text(0.5, 0.35, text, fontsize=19, ha="center", va="center", color=_color(panel, value))


def _color(panel: Panel, value: float) -> str:
    if not panel.thresholds or math.isnan(value):
        return "#1f5fa8"
    state = "red" if any(step.color == "green" for step in panel.thresholds) else "green"
    for step in panel.thresholds:
        if value >= step.value:
            state = step.color
    return _STATES[state]


def _table(axes: "Axes", panel: Panel, answers: Sequence[Answer]) -> None:
    axes.set_axis_off()
    columns = [
        {labels[panel.by]: values[-1][1] for labels, values in answer.series} for answer in answers
    ]
    names = sorted({name for column in columns for name in column}, key=_by_first(columns))[:12]
    cells: list[list[Any]] = [
        [
            name,
            *(
                _formatter(answer.query.unit or panel.unit)(column.get(name, math.nan), None)
                for answer, column in zip(answers, columns, strict=True)
            ),
        ]
        for name in names
    ]
    headings = [panel.by, *(answer.query.legend for answer in answers)]
    table = axes.table(
        cells, colLabels=headings, loc="upper center", cellLoc="left", edges="horizontal"
    )
    table.auto_set_font_size(value=False)
    table.set_fontsize(8.5)
    table.scale(1, 1.35)


def _by_first(columns: Sequence[Mapping[str, float]]) -> Callable[[str], float]:
    return lambda name: -columns[0].get(name, 0.0)


def _largest(values: Values) -> float:
    return max((value for _, value in values if not math.isnan(value)), default=0.0)


def _name(query: Query, labels: Labels) -> str:
    return fill(_WORDS.sub(lambda found: labels.get(found[1], ""), query.legend), 34)


def _formatter(unit: str) -> Callable[[float, object], str]:
    """Return how values of a unit of Grafana are written."""

    def written(value: float, _: object) -> str:
        if math.isnan(value):
            return "-"
        match unit:
            case "s":
                return _seconds(value)
            case "percentunit":
                return f"{value:.0%}"
            case "bytes" | "Bps":
                return _bytes(value) + ("/s" if unit == "Bps" else "")
            case "reqps" | "cps":
                return f"{value:.3g}/s"
            case _:
                return f"{value:.4g}"

    return written


def _seconds(value: float) -> str:
    if value >= 120:
        return f"{value / 60:.0f} min"
    if value >= 1 or value == 0:
        return f"{value:.3g} s"
    return f"{value * 1000:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"
