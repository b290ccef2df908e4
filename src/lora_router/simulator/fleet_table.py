"""How a fleet with an autoscaler fared over time: rows of a table."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from lora_router.simulator.fleet_simulation import FleetRun
from lora_router.simulator.no_value import median, shown
from lora_router.simulator.percentile import percentile

ROWS = 16
"""Rows of a run."""
HEADINGS = (
    "from s", "requests/s", "slots wanted", "lacking", "pods", "starting", "longest hold s", "p99 s"
)  # fmt: skip
LEGEND = (
    "slots wanted: the signal of the autoscaler, on average. lacking: the most slots that were "
    "missing.\n"
    "pods: those that took requests at the end of the row; starting: the most that were on their "
    "way.\n"
    "longest hold: of the requests that arrived then. p99 s: seconds to the first token."
)


@dataclass(frozen=True, slots=True)
class FleetRow:
    """A part of a run. Times in seconds."""

    start: float
    rate: float
    """Requests per second."""
    wanted: float
    """Slots wanted, on average."""
    lacking: float
    """The most slots that were lacking."""
    pods: float
    """Pods that took requests, at the end of this part."""
    starting: float
    """The most pods that were on their way."""
    longest_hold: float
    ttft_p99: float

    def cells(self) -> tuple[str, ...]:
        """Return the cells of a table."""
        return (
            f"{self.start:.0f}",
            f"{self.rate:.1f}",
            f"{self.wanted:.1f}",
            f"{self.lacking:.0f}",
            f"{self.pods:.0f}",
            f"{self.starting:.0f}",
            f"{self.longest_hold:.1f}",
            shown(self.ttft_p99, ".2f"),
        )


def fleet_rows(run: FleetRun, seconds: float) -> tuple[FleetRow, ...]:
    """Return the rows of a run. None, if its number of pods was fixed.

    Args:
        run: The run.
        seconds: Length of its trace.
    """
    rows = []
    each = seconds / ROWS
    for number in range(ROWS if run.moments else 0):
        start, end = number * each, (number + 1) * each
        until = [moment for moment in run.moments if moment.time < end] or run.moments[:1]
        moments = [moment for moment in until if moment.time >= start] or until[-1:]
        requests = [request for request in run.requests if start <= request.arrived < end]
        rows.append(
            FleetRow(
                start,
                len(requests) / each,
                sum(moment.wanted for moment in moments) / len(moments),
                max(moment.lacking for moment in moments),
                moments[-1].ready,
                max(moment.starting for moment in moments),
                max((request.sent - request.arrived for request in requests), default=0.0),
                percentile(sorted(each.first_token - each.arrived for each in requests), 0.99),
            )
        )
    return tuple(rows)


def median_rows(runs: Sequence[Sequence[FleetRow]]) -> tuple[FleetRow, ...]:
    """Return the median of each figure over runs of the same length."""
    return tuple(
        FleetRow(*(median(getattr(row, each.name) for row in rows) for each in fields(FleetRow)))
        for rows in zip(*runs, strict=True)
    )
