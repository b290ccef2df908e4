"""What the demo shows: the fleet while a load runs, and the comparison at the end."""

from collections.abc import Collection, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lora_router.demo.load import ADAPTERS, Outcome
from lora_router.demo.plan import PODS, StackPlan, routers_text
from lora_router.demo.result import Result
from lora_router.demo.stack import PodReport
from lora_router.simulator.no_value import has_value, shown
from lora_router.simulator.percentile import percentile
from lora_router.terminal import split_table

_BAR_WIDTH = 72
_SLOT_GAP = "  "
_MOST_COUNTS = 4
"""Counts that stand side by side in a cell. Of more, the cell has the smallest and the largest."""
_ROWS = (
    "routers",
    "requests",
    "errors",
    "time to first token, p50",
    "time to first token, p95",
    "time to first token, p99",
    "adapter already active on its pod",
    "chat tokens in the prefix cache",
    "requests that waited for a slot",
    "adapter loads",
    "requests by pod",
    "requests by router",
)


def live_view(
    algorithm: str,
    reports: Sequence[PodReport],
    outcomes: Sequence[Outcome],
    total: int,
    width: int,
) -> RenderableType:
    """Return the fleet at this moment, in lines of at most ``width`` columns."""
    # A progress bar ends without a newline, so that it needs a row of its own.
    bar = Table.grid()
    bar.add_row(ProgressBar(total=total, completed=len(outcomes), width=min(_BAR_WIDTH, width)))
    return Group(
        Text.assemble((algorithm, "bold"), f": {len(outcomes)} of {total} requests done"),
        _first_tokens(outcomes),
        bar,
        _pods(reports, width),
    )


def _first_tokens(outcomes: Sequence[Outcome]) -> str:
    times = sorted(outcome.first_token_seconds for outcome in outcomes if outcome.error is None)
    if not times:
        return "time to first token: no answer yet"
    return (
        f"time to first token: p50 {percentile(times, 0.5) * 1000:,.0f} ms, "
        f"p99 {percentile(times, 0.99) * 1000:,.0f} ms"
    )


def _pods(reports: Sequence[PodReport], width: int) -> RenderableType:
    pods = Table(box=None, pad_edge=False)
    pods.add_column("pod", no_wrap=True)
    pods.add_column("running", justify="right", no_wrap=True)
    pods.add_column("waiting", justify="right", no_wrap=True)
    pods.add_column("slots: adapter (requests)", no_wrap=True)
    longest = max((len(report.pod) for report in reports), default=0)
    left = width - longest - len("  running  waiting  ")
    for report in reports:
        waiting = Text(str(report.waiting), style="bold red" if report.deferred else "")
        pods.add_row(report.pod, str(report.running), waiting, _slots(report, left))
    return pods


def _slots(report: PodReport, width: int) -> Text:
    """Return a pod's slots, in lines that break between two of them."""
    slots = [
        Text(f"{adapter} ({running})", style="green" if running else "dim")
        for adapter, running in report.slots.items()
    ]
    slots += [Text("free", style="dim")] * (report.max_loras - len(report.slots))
    lines: list[Text] = []
    for slot in slots:
        if lines and len(lines[-1]) + len(_SLOT_GAP) + len(slot) <= width:
            lines[-1] = Text.assemble(lines[-1], _SLOT_GAP, slot)
        else:
            lines.append(slot)
    return Text("\n").join(lines)


def result_view(results: Mapping[str, Result], plan: StackPlan, width: int) -> RenderableType:
    """Return the figures of all algorithms side by side, and what they mean."""
    columns = [_cells(result, plan) for result in results.values()]
    parts: list[RenderableType] = [
        *_title(results),
        split_table(("", *results), list(zip(_ROWS, *columns, strict=True)), width),
        "",
        *_explanation(results, plan),
    ]
    return Group(*parts)


def _title(results: Mapping[str, Result]) -> list[Text]:
    if len(results) < 2:
        return []
    return [Text("The same requests for each algorithm", style="italic")]


def _cells(result: Result, plan: StackPlan) -> tuple[str, ...]:
    is_alone = plan.routers == 1
    return (
        "1" if is_alone else f"{plan.routers}, {'peers' if plan.peering else 'not peers'}",
        f"{result.requests:,}",
        f"{result.errors:,}",
        *(shown(result.ttft_ms[name], ",.0f", " ms") for name in ("p50", "p95", "p99")),
        shown(result.affinity_hit_rate, ".1%"),
        shown(result.prefix_hit_rate, ".1%"),
        f"{result.slot_waits:,}",
        f"{result.adapter_loads:,}",
        _counts(result.requests_by_pod.values()),
        _counts(result.requests_by_router.values()),
    )


def _counts(counts: Collection[int]) -> str:
    if len(counts) > _MOST_COUNTS:
        return f"{min(counts)} to {max(counts)}"
    return " ".join(map(str, counts))


def _explanation(results: Mapping[str, Result], plan: StackPlan) -> list[Text]:
    p99 = {
        name: result.ttft_ms["p99"]
        for name, result in results.items()
        if not result.errors and has_value(result.ttft_ms["p99"])
    }
    lines = [
        f"What you saw: {len(ADAPTERS)} adapters on {PODS} simulated vLLM pods of {plan.slots} "
        f"slots, behind a real Envoy that asks {_asked(plan)} for a pod for each request.",
        "What it means: a request for an adapter that is active on its pod starts at once. "
        "Elsewhere it loads the adapter, and if no slot is free it first waits until another "
        "adapter's requests have finished. A turn of a chat finds the conversation so far in the "
        "prefix cache of the pod that had the turn before. Every other pod computes it anew.",
    ]
    if len(p99) > 1:
        slowest, fastest = max(p99, key=p99.__getitem__), min(p99, key=p99.__getitem__)
        lines[-1] += (
            f" Hence p99 {p99[fastest]:,.0f} ms with {fastest} and "
            f"{p99[slowest]:,.0f} ms with {slowest}."
        )
    if plan.routers > 1:
        lines.append(
            "Routers that are peers tell each other what they know. Compare with --routers 1 and "
            "the same seed, and with --no-peering."
            if plan.peering
            else "Routers without peering know of each other's requests only what the pods report. "
            "Compare with the same command without --no-peering."
        )
    lines.append(
        "What next: 'Run it' in README.md puts the router before your own pods "
        "(lora-router serve --endpoints pods.yaml); docs/routing.md describes the algorithms; "
        "lora-router simulate b-zipf runs them with twice as many adapters as slots."
    )
    return [Text(line) for line in lines]


def _asked(plan: StackPlan) -> str:
    if plan.routers == 1:
        return "lora-router"
    return f"{routers_text(plan)}, in turn,"
