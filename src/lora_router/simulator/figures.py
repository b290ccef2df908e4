"""How the figures of a simulation are printed, and written as JSON."""

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from lora_router.simulator.fleet_table import HEADINGS as FLEET_HEADINGS
from lora_router.simulator.goodput import Goodput
from lora_router.simulator.no_value import shown
from lora_router.simulator.summary import FEWEST, Summary
from lora_router.terminal import split_table

_HEADINGS = (
    "algorithm", "p50 s", "p95", "p99", "end p99", "tpot p99", "good", "refused", "waits", "held",
    "longest", "hits", "loads", "evicted", "busiest", "worst p99", "median p99", "moved",
)  # fmt: skip


def legend(limits: Goodput) -> str:
    """Return what the columns mean."""
    return (
        "p50, p95, p99: seconds to the first token; end p99: to the last token. "
        "tpot p99: milliseconds for each further token.\n"
        f"good: requests with a first token within {limits.ttft_seconds:g} s and at most "
        f"{limits.tpot_seconds * 1000:g} ms for each further token. A refused request is not "
        "good.\n"
        "waits: requests that waited for a slot on a pod. held: requests that waited in the "
        "router.\n"
        "longest: the longest time to a first token, or to a refusal. hits: share of the prompt "
        "tokens in the prefix cache.\n"
        "loads, evicted: adapters for every 1,000 requests. "
        "busiest: requests of the busiest pod over the average.\n"
        f"worst p99, median p99: of the p99s of the adapters with {FEWEST} requests or more. "
        "moved: adapters with another busiest pod in the second half."
    )


def figures_table(
    name: str, about: str, results: Mapping[str, Summary], width: int
) -> RenderableType:
    """Return the figures of a scenario.

    Args:
        name: The scenario.
        about: One line that describes it.
        results: Figures by algorithm.
        width: Columns of the terminal.
    """
    rows = [(algorithm, *_cells(found)) for algorithm, found in results.items()]
    parts: list[RenderableType] = [
        Text(f"{name}: {about}", style="italic"),
        split_table(_HEADINGS, rows, width),
    ]
    for algorithm, found in results.items():
        if found.fleet:
            title = f"{name}: the fleet over time with {algorithm}"
            cells = [row.cells() for row in found.fleet]
            parts += ["", Text(title, style="italic"), split_table(FLEET_HEADINGS, cells, width)]
    return Group(*parts)


def _cells(found: Summary) -> tuple[str, ...]:
    return (
        *(shown(found.ttft[key], ".2f") for key in ("p50", "p95", "p99")),
        shown(found.end_to_end["p99"], ".1f"),
        shown(found.tpot["p99"] * 1000, ".0f"),
        shown(found.good, ".1%"),
        shown(found.refused_share, ".1%"),
        shown(found.slot_waits, ".1%"),
        shown(found.held, ".1%"),
        shown(found.longest_wait, ".1f"),
        shown(found.prefix_hits, ".1%"),
        shown(found.loads, ".0f"),
        shown(found.evictions, ".0f"),
        shown(found.imbalance, ".2f"),
        shown(found.worst_adapter_p99, ".2f"),
        shown(found.median_adapter_p99, ".2f"),
        shown(found.moved, ".0%"),
    )
