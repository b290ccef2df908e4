"""The tables of the routing bench, in Markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lora_router.simulator.no_value import has_value, ratio
from lora_router.simulator.summary import Summary

Found = Mapping[str, Mapping[str, Summary]]
"""Figures by the name of the setting, and by policy."""
OURS = "lora-placement"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, of which a table shows the value of each policy in each setting."""

    title: str
    of: Callable[[Summary], float]
    digits: int = 2
    is_share: bool = False
    higher_is_better: bool = False
    compares: bool = True
    """Whether a best value is marked, and ours is compared with the best other."""

    def shown(self, value: float) -> str:
        """Return a value as the table shows it."""
        return f"{value:.1%}" if self.is_share else f"{value:.{self.digits}f}"

    def best(self, values: Iterable[float]) -> float:
        """Return the best of some values."""
        return max(values) if self.higher_is_better else min(values)


FIGURES: Mapping[str, Figure] = {
    "ttft": Figure("p99 of the time to first token, seconds", lambda each: each.ttft["p99"]),
    "ttft-p50": Figure(
        "Median time to first token of the served, seconds", lambda each: each.ttft["p50"]
    ),
    "end-to-end": Figure(
        "p99 of the time to the last token, seconds", lambda each: each.end_to_end["p99"], digits=1
    ),
    "good": Figure(
        "Goodput: share of the requests within the limits of TTFT and TPOT",
        lambda each: each.good,
        is_share=True,
        higher_is_better=True,
    ),
    "refused": Figure(
        "Share of the requests that were refused",
        lambda each: each.refused_share,
        is_share=True,
        compares=False,
    ),
    "worst": Figure(
        "p99 of the time to first token of the worst adapter, seconds",
        lambda each: each.worst_adapter_p99,
    ),
    "fairness": Figure(
        "The worst adapter's p99 over the median adapter's",
        lambda each: ratio(each.worst_adapter_p99, each.median_adapter_p99),
        digits=1,
        compares=False,
    ),
    "longest": Figure(
        "The longest wait for a first token or a refusal, seconds",
        lambda each: each.longest_wait,
        digits=1,
    ),
    "hits": Figure(
        "Prompt tokens that were in the pod's prefix cache",
        lambda each: each.prefix_hits,
        is_share=True,
        higher_is_better=True,
    ),
    "loads": Figure(
        "Adapter loads per 1,000 requests", lambda each: each.loads, digits=0, compares=False
    ),
}
"""The figures, by the names that the command takes."""


def table(
    figure: Figure,
    load: float,
    settings: Iterable[str],
    columns: Sequence[str],
    found: Found,
) -> str:
    """Return a table of one figure at one load.

    A run that was not made is a dash, and so is a figure without a value.

    Args:
        figure: The figure.
        load: The share of the capacity, for the title.
        settings: The rows.
        columns: The policies with columns of their own. Ours is compared with all that were run.
        found: The figures.
    """
    heads = [f"`{name}`" for name in columns]
    if figure.compares and OURS in columns:
        heads += ["best other", "ratio"]
    lines = [
        f"#### {figure.title}, at {load:.0%}",
        "",
        f"| scenario | {' | '.join(heads)} |",
        "| --- |" + " ---: |" * len(heads),
    ]
    for setting in settings:
        of_runs = {name: figure.of(run) for name, run in found.get(setting, {}).items()}
        values = {name: value for name, value in of_runs.items() if has_value(value)}
        cells = _cells(figure, columns, values)
        if figure.compares and OURS in columns:
            cells += _beside(figure, values)
        lines.append(f"| `{setting}` | {' | '.join(cells)} |")
    return "\n".join((*lines, ""))


def _cells(figure: Figure, columns: Sequence[str], values: Mapping[str, float]) -> list[str]:
    best = ""
    # Where all are the same, none is the best.
    if figure.compares and len({figure.shown(value) for value in values.values()}) > 1:
        best = figure.shown(figure.best(values.values()))
    cells = []
    for name in columns:
        if name not in values:
            cells.append("-")
            continue
        shown = figure.shown(values[name])
        cells.append(f"**{shown}**" if shown == best else shown)
    return cells


def _beside(figure: Figure, values: Mapping[str, float]) -> list[str]:
    """Return the best other, and ours relative to it.

    That is a factor, or points where the figure is a share.
    """
    others = {name: value for name, value in values.items() if name != OURS}
    if OURS not in values or not others:
        return ["-", "-"]
    best = figure.best(others.values())
    which = next(name for name, value in others.items() if value == best)
    ours = values[OURS]
    ratio = f"{ours / best:.2f}" if best else "-"
    if figure.is_share:
        ratio = f"{100 * (ours - best):+.1f} points"
    return [f"{figure.shown(best)} `{which}`", ratio]
