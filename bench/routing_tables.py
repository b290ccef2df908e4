"""The tables of the routing bench, in Markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

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
        lambda each: each.worst_adapter_p99 / (each.median_adapter_p99 or 1.0),
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
    policies: Sequence[str],
    found: Found,
) -> str:
    """Return a table of one figure at one load. A run that was not made is a dash.

    Args:
        figure: The figure.
        load: The share of the capacity, for the title.
        settings: The rows.
        policies: The columns.
        found: The figures.
    """
    compares = figure.compares and OURS in policies and len(policies) > 1
    heads = [f"`{name}`" for name in policies] + (["ratio to the best other"] if compares else [])
    lines = [
        f"### {figure.title}, at {load:.0%}",
        "",
        f"| scenario | {' | '.join(heads)} |",
        "| --- |" + " ---: |" * len(heads),
    ]
    for setting in settings:
        here = found.get(setting, {})
        values = {name: figure.of(here[name]) for name in policies if name in here}
        cells = _cells(figure, policies, values)
        if compares:
            cells.append(_beside(figure, values))
        lines.append(f"| `{setting}` | {' | '.join(cells)} |")
    return "\n".join((*lines, ""))


def short_table(
    figure: Figure, load: float, settings: Iterable[str], policies: Sequence[str], found: Found
) -> str:
    """Return a table of ours and of the best other policy. The arguments are those of ``table``."""
    lines = [
        f"### {figure.title}, at {load:.0%}",
        "",
        f"| scenario | `{OURS}` | best other | which | ratio |",
        "| --- | ---: | ---: | --- | ---: |",
    ]
    for setting in settings:
        here = found.get(setting, {})
        values = {name: figure.of(here[name]) for name in policies if name in here}
        others = {name: value for name, value in values.items() if name != OURS}
        if OURS not in values or not others:
            lines.append(f"| `{setting}` | - | - | - | - |")
            continue
        choose = max if figure.higher_is_better else min
        best = choose(others, key=others.__getitem__)
        lines.append(
            f"| `{setting}` | {figure.shown(values[OURS])} | {figure.shown(others[best])} "
            f"| `{best}` | {_beside(figure, values)} |"
        )
    return "\n".join((*lines, ""))


def _cells(figure: Figure, policies: Sequence[str], values: Mapping[str, float]) -> list[str]:
    best = ""
    # Where all are the same, none is the best.
    if figure.compares and len({figure.shown(value) for value in values.values()}) > 1:
        choose = max if figure.higher_is_better else min
        best = figure.shown(choose(values.values()))
    cells = []
    for name in policies:
        if name not in values:
            cells.append("-")
            continue
        shown = figure.shown(values[name])
        cells.append(f"**{shown}**" if shown == best else shown)
    return cells


def _beside(figure: Figure, values: Mapping[str, float]) -> str:
    """Return ours relative to the best other: a factor, or points where the figure is a share."""
    others = [value for name, value in values.items() if name != OURS]
    if OURS not in values or not others:
        return "-"
    ours = values[OURS]
    best = max(others) if figure.higher_is_better else min(others)
    if figure.is_share:
        return f"{100 * (ours - best):+.1f} points"
    return f"{ours / best:.2f}" if best else "-"
