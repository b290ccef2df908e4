"""Draws the records of a scenario as SVG. The same records give the same bytes.

Only this module imports matplotlib, an optional extra, and only while it draws. No two colours
differ by red and green alone. The background is white.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from lora_router.simulator.no_value import has_value, shown
from lora_router.simulator.percentile import percentile
from lora_router.simulator.plot_records import SWEPT, PlotRecords, SlotsRecord
from lora_router.simulator.slot_pixels import (
    LOADED,
    OTHERS,
    POPULAR,
    WAITING,
    adapter_colours,
    pod_middles,
    slot_pixels,
)
from lora_router.simulator.timeline import pods_that_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.typing import RcKeyType

_INCHES = 800 / 96
"""800 pixels wide."""
_STYLE: "dict[RcKeyType, Any]" = {
    "svg.hashsalt": "lora-router",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    # The first font comes with matplotlib, so lines break alike everywhere. A reader may lack it.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica", "Arial"],
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
# Okabe and Ito's colours (2008), without the yellow, which is pale as a line.
_BLUE, _SKY, _GREEN = "#0072B2", "#56B4E9", "#009E73"
_ORANGE, _VERMILION, _PURPLE = "#E69F00", "#D55E00", "#CC79A7"
_LINES = (
    (_BLUE, "-"), (_ORANGE, "-"), (_GREEN, "-"), (_VERMILION, "-"), (_PURPLE, "-"), (_SKY, "-"),
    ("#000000", (0, (4, 2))), ("#777777", (0, (1, 1))),
)  # fmt: skip
_INK = "#333333"
_LEAST_SHARE = 1e-3
"""Smallest share of the requests that is drawn. Fewer requests are not significant."""
_MOST_LABELS = 16
"""Labels of pods beside a plot."""
_LONGEST_NAME = 30
"""Characters of an adapter's name that the plot has room for."""
_POINTS = 160
"""Points of a line: enough for it to look smooth."""


class PlotError(Exception):
    """Plots cannot be drawn or written. The message says why and what to do."""


def check_can_plot(directory: Path) -> None:
    """Create the directory, and check that plots can be drawn and written.

    Raises:
        PlotError: The directory cannot be written to, or matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise PlotError(
            "--plot needs matplotlib, which is not installed: pip install 'lora-router[plot]'"
        ) from None
    with _writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()


def write_plots(directory: Path, records: PlotRecords) -> list[Path]:
    """Draw the plots of a scenario; return the files that were written.

    Raises:
        PlotError: The directory cannot be written to.
    """
    import matplotlib

    # The user may have configured a style of their own.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figures = {"ttft": _ttft(records)}
        if records.sweep:
            figures["threshold"] = _threshold(records)
        if records.slots:
            figures["slots"] = _slots(records)
        written = []
        for name, figure in figures.items():
            path = directory / f"{records.scenario}-{name}.svg"
            with _writing(path):
                figure.savefig(
                    path, format="svg", dpi=192, metadata={"Date": None, "Creator": None}
                )
            written.append(path)
        return written


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PlotError(f"{path}: cannot be written: {error.strerror or error}") from None


def _figure(records: PlotRecords, height: float) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES, height), layout="constrained")
    title = fill(f"{records.scenario}: {records.about}", 95)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _plain(axis: "Axis") -> None:
    """Write the numbers of a logarithmic axis without exponents."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 1000 * low else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


# Times to first token


def _ttft(records: PlotRecords) -> "Figure":
    figure = _figure(records, height=4.4)
    axes = figure.add_subplot()
    looks = dict(zip(records.ttft, cycle(_LINES), strict=False))
    ordered = {name: sorted(times) for name, times in records.ttft.items() if times}
    p99 = {name: percentile(times, 0.99) for name, times in ordered.items()}
    best = min(p99.values(), default=0.0)
    for name in sorted(p99, key=lambda name: p99[name]):
        colour, dashes = looks[name]
        shares, times = _slower_than(ordered[name])
        label = f"{name}  {p99[name]:.2f} s"
        width = 3.0 if p99[name] == best else 1.6
        axes.plot(times, shares, color=colour, linestyle=dashes, linewidth=width, label=label)
    axes.set(xscale="log", yscale="log", ylim=(_LEAST_SHARE, 1.0))
    axes.set_xlabel("time to first token (s), logarithmic")
    axes.set_ylabel("requests that wait longer (%)")
    _plain(axes.xaxis)
    ticks = {1.0: "100", 0.5: "50", 0.1: "10", 0.05: "5", 0.01: "1", 0.001: "0.1"}
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.set_yticks([], minor=True)
    axes.axhline(0.01, color=_INK, linewidth=0.9)
    axes.annotate(
        "p99", (0.0, 0.01), (3, 3), xycoords=("axes fraction", "data"),
        textcoords="offset points", color=_INK,
    )  # fmt: skip
    if p99:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title="p99", alignment="left")
    return figure


def _slower_than(ordered: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return shares of the values, and the time that each share of them exceeds."""
    shares = [_LEAST_SHARE ** (step / _POINTS) for step in range(_POINTS + 1)]
    return shares, [percentile(ordered, 1 - share) for share in shares]


# Effect of the threshold


def _threshold(records: PlotRecords) -> "Figure":
    figure = _figure(records, height=4.8)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    thresholds = sorted(records.sweep)
    summaries = [records.sweep[threshold] for threshold in thresholds]
    places = range(len(thresholds))
    for share, colour, marker in (("p99", _VERMILION, "o"), ("p50", _BLUE, "s")):
        times = [summary.ttft[share] for summary in summaries]
        above.plot(places, times, color=colour, marker=marker, label=share)
    above.set_yscale("log")
    above.set_ylabel("time to first token (s),\nlogarithmic")
    _plain(above.yaxis)
    above.legend()
    loads = [summary.loads for summary in summaries]
    below.plot(places, loads, color=_GREEN, marker="D")
    below.set_ylim(0, 1.15 * max(filter(has_value, loads), default=0.0) or 1.0)
    below.set_ylabel("adapter loads\nfor 1,000 requests")
    # Evenly spaced, because most changes happen close to 1.
    below.set_xticks(places, [f"{threshold:g}" for threshold in thresholds])
    below.set_xlabel(f"AIBRIX_LORA_AFFINITY_THRESHOLD of {SWEPT} (probability)")
    if records.threshold in records.sweep:
        place = thresholds.index(records.threshold)
        for axes in (above, below):
            axes.axvspan(place - 0.3, place + 0.3, color="#eeeeee", zorder=0)
        above.set_title("shaded: the threshold in force", fontsize=9.5, loc="right")
    return figure


# Contents of the slots


def _slots(records: PlotRecords) -> "Figure":
    figure = _figure(records, height=0.9 + 3.1 * len(records.slots))
    panels = figure.subplots(
        2 * len(records.slots), 1, sharex=True, squeeze=False,
        height_ratios=(4, 1) * len(records.slots),
    )  # fmt: skip
    colours = adapter_colours(records.popular)
    most = 5
    for number, (name, record) in enumerate(records.slots.items()):
        _draw_slots(panels[2 * number, 0], name, record, colours)
        _draw_waits(panels[2 * number + 1, 0], record)
        most = max(most, *(each.deferred + each.held for each in record.timeline.samples))
    for waits in panels[1::2, 0]:
        waits.set_ylim(0, 1.05 * most)
    panels[-1, 0].set_xlabel("time (s)")
    figure.legend(handles=_slot_legend(records.popular), loc="outside lower left", ncols=3)
    return figure


def _draw_slots(axes: "Axes", name: str, record: SlotsRecord, colours: dict[str, str]) -> None:
    timeline = record.timeline
    rows = slot_pixels(timeline, colours)
    until = timeline.every * len(timeline.samples)
    axes.imshow(rows, aspect="auto", interpolation="none", extent=(0, until, len(rows), 0))
    middles = pod_middles(timeline)
    pods = range(0, len(middles), math.ceil(len(middles) / _MOST_LABELS))
    axes.set_yticks([middles[pod] for pod in pods], [str(pod) for pod in pods])
    left_out = timeline.pods - len(middles)
    axes.set_ylabel(
        f"slots of pod\n({left_out} more pods)" if left_out else "slots of pod", labelpad=7
    )
    axes.tick_params(length=0, labelbottom=False)
    axes.grid(visible=False)
    axes.set_title(f"{name}: {_in_words(record, next(iter(colours), ''))}")


def _in_words(record: SlotsRecord, adapter: str) -> str:
    pods = pods_that_run(adapter, record.timeline.samples)
    loads = f"{shown(record.summary.loads, '.0f')} adapter loads for 1,000 requests"
    return f"{_shortened(adapter)} runs on {pods:.1f} pods at a time; {loads}" if adapter else loads


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _draw_waits(axes: "Axes", record: SlotsRecord) -> None:
    samples = record.timeline.samples
    axes.stackplot(
        [sample.time for sample in samples],
        [sample.deferred for sample in samples],
        [sample.held for sample in samples],
        colors=(WAITING, _INK), step="post", rasterized=True,
    )  # fmt: skip
    axes.set_ylabel("requests\nwaiting")
    axes.set_xlim(0, record.timeline.seconds)


def _slot_legend(popular: Sequence[str]) -> "list[Patch]":
    from matplotlib.patches import Patch

    return [
        *(
            Patch(color=colour, label=_shortened(name))
            for name, colour in zip(popular, POPULAR, strict=False)
        ),
        Patch(color=OTHERS, label="other adapters"),
        Patch(color=LOADED, label="pale: loaded and not in use"),
        Patch(color=WAITING, label="waiting on a pod for a slot"),
        Patch(color=_INK, label="waiting in the router"),
    ]
