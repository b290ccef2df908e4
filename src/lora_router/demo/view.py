"""What the demo shows: the fleet while it runs, and a table in the end."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lora_router.demo.load import Outcome
from lora_router.demo.result import Result
from lora_router.demo.stack import PodReport
from lora_router.simulator.summary import percentile


def live_view(
    algorithm: str,
    reports: Sequence[PodReport],
    outcomes: Sequence[Outcome],
    total: int,
) -> RenderableType:
    """Draw the fleet at this moment."""
    pods = Table(box=None, pad_edge=False)
    for heading in ("pod", "running", "waiting", "adapters in its slots (requests running)"):
        pods.add_column(heading, justify="left" if heading.startswith(("pod", "ad")) else "right")
    for report in reports:
        waiting = Text(str(report.waiting), style="bold red" if report.deferred else "")
        pods.add_row(report.pod, str(report.running), waiting, _slots(report))
    times = sorted(outcome.first_token_seconds for outcome in outcomes if outcome.error is None)
    summary = Text.assemble(
        (algorithm, "bold"),
        f"   {len(outcomes)} of {total} requests done",
        f"   time to first token: p50 {percentile(times, 0.5) * 1000:,.0f} ms",
        f", p99 {percentile(times, 0.99) * 1000:,.0f} ms",
    )
    return Group(summary, ProgressBar(total=total, completed=len(outcomes), width=72), pods)


def result_table(results: Mapping[str, Result]) -> Table:
    """Draw the numbers of all algorithms side by side."""
    table = Table(title="The same requests for each algorithm", title_justify="left")
    table.add_column("")
    for algorithm in results:
        # The first column gives way in a narrow terminal.
        table.add_column(algorithm, justify="right", overflow="fold", min_width=len(algorithm))

    def row(heading: str, cells: Sequence[str]) -> None:
        table.add_row(heading, *cells)

    values = list(results.values())
    row("requests", [f"{result.requests:,}" for result in values])
    row("errors", [f"{result.errors:,}" for result in values])
    for name in ("p50", "p95", "p99"):
        row(
            f"time to first token, {name}",
            [f"{result.ttft_ms[name]:,.0f} ms" for result in values],
        )
    row(
        "adapter requests that found it active",
        [f"{result.affinity_hit_rate:.1%}" for result in values],
    )
    row("requests that waited for a slot", [f"{result.slot_waits:,}" for result in values])
    row("adapter loads", [f"{result.adapter_loads:,}" for result in values])
    row(
        "requests by pod",
        [" ".join(map(str, result.requests_by_pod.values())) for result in values],
    )
    return table


def _slots(report: PodReport) -> Text:
    text = Text()
    for adapter, running in report.slots.items():
        text.append(f"{adapter} ({running})  ", style="green" if running else "dim")
    for _ in range(report.max_loras - len(report.slots)):
        text.append("free  ", style="dim")
    return text
