"""The data for the plots of a scenario, collected while its traces run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from lora_router.simulator.fleet_simulation import FleetRun, FleetSimulation
from lora_router.simulator.summary import WARM_UP, Summary
from lora_router.simulator.timeline import Timeline, record_timeline

SWEPT = "lora-affinity"
"""The algorithm that has a threshold."""
THRESHOLDS = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
"""The thresholds that are tried."""
_FROM_SCATTERING_TO_PLACING = ("least-request", "", SWEPT, "lora-placement")
"""Algorithms from the one that spreads adapters most. The empty name stands for all others."""


@dataclass(frozen=True, slots=True)
class SlotsRecord:
    """Where one algorithm placed the adapters of one trace."""

    timeline: Timeline
    summary: Summary


@dataclass(slots=True)
class PlotRecords:
    """The records of one scenario."""

    scenario: str
    about: str
    """One line that describes the fleet and its traffic."""
    threshold: float
    """The threshold of ``lora-affinity`` in use."""
    drawn: tuple[str, ...] = ()
    """The algorithms whose slots are drawn."""
    ttft: dict[str, list[float]] = field(default_factory=dict)
    """Times to first token after the warm-up, of all seeds, by algorithm."""
    slots: dict[str, SlotsRecord] = field(default_factory=dict)
    """The records of the first seed, by algorithm."""
    sweep: dict[float, Summary] = field(default_factory=dict)
    """Medians by the threshold of ``lora-affinity``. Empty without that algorithm."""
    popular: tuple[str, ...] = ()
    """Adapters of the first trace, the most popular first."""

    def watch(self, algorithm: str, simulation: FleetSimulation, seconds: float) -> Timeline | None:
        """Return a timeline that the simulation fills when it runs, or ``None`` if not needed."""
        if algorithm in self.drawn and algorithm not in self.slots:
            # A replayed trace may consist of a single moment.
            return record_timeline(simulation, max(1.0, seconds))
        return None

    def add(
        self,
        algorithm: str,
        run: FleetRun,
        summary: Summary,
        *,
        seconds: float,
        timeline: Timeline | None,
    ) -> None:
        """Add the records of a run."""
        self.ttft.setdefault(algorithm, []).extend(
            request.first_token - request.arrived
            for request in run.requests
            if request.arrived >= WARM_UP * seconds
        )
        if timeline is not None:
            self.slots[algorithm] = SlotsRecord(timeline, summary)
        if not self.popular:
            asked = Counter(request.adapter for request in run.requests if request.adapter)
            self.popular = tuple(sorted(asked, key=lambda name: (-asked[name], name)))


def two_to_compare(algorithms: Sequence[str]) -> tuple[str, ...]:
    """Return the two algorithms whose slots are drawn: those that differ most."""
    ranks = {name: rank for rank, name in enumerate(_FROM_SCATTERING_TO_PLACING)}
    ordered = sorted(algorithms, key=lambda name: ranks.get(name, ranks[""]))
    return tuple(dict.fromkeys((ordered[0], ordered[-1])))
