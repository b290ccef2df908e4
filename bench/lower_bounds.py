"""Lower bounds for any router on one trace: the fewest loads, and the least time to first token.

No router can reach them: in the fleet of the time bound every pod has a slot for every adapter, and
the bounds of the loads assume that the future, or the popularity of each adapter, is known.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.highest_rate import SECONDS
from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.least_request import LeastRequest
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.offline_optimum import fewest_loads
from lora_router.simulator.percentile import percentile
from lora_router.simulator.scenario import Scenario
from lora_router.simulator.summary import WARM_UP
from lora_router.simulator.trace import BASE_MODEL, Arrival


@dataclass(frozen=True, slots=True)
class LowerBounds:
    """The bounds of one trace on one fleet."""

    loads_knowing_the_future: float
    """Belady's optimum, per 1,000 requests."""
    loads_knowing_popularity: float
    """Per 1,000 requests, if the most popular adapters stay in the slots for ever. Any other
    content of the slots is at most as likely to be requested as these adapters are."""
    p99: float
    """Seconds to first token, if a request of another adapter waits only for its load."""


def lower_bounds(scenario: Scenario, trace: Sequence[Arrival], seed: int) -> LowerBounds:
    """Return the bounds."""
    fleet = scenario.fleet(SECONDS)
    slots = sum(engine.max_loras for engine in fleet.engines)
    asked = [arrival.model for arrival in trace if arrival.model != BASE_MODEL]
    popular = {name for name, _ in Counter(asked).most_common(slots)}
    rare = sum(name not in popular for name in asked)
    return LowerBounds(
        loads_knowing_the_future=1000 * fewest_loads(asked, slots) / len(trace),
        loads_knowing_popularity=1000 * rare / len(trace),
        p99=_least_p99(scenario, trace, popular, seed),
    )


def _least_p99(scenario: Scenario, trace: Sequence[Arrival], popular: set[str], seed: int) -> float:
    fleet = scenario.fleet(SECONDS)
    unbounded = replace(
        fleet,
        engines=tuple(
            replace(
                engine,
                max_loras=len(fleet.adapters),
                max_cpu_loras=len(fleet.adapters),
                host_load_seconds=0.0,
                disk_load_seconds=0.0,
            )
            for engine in fleet.engines
        ),
    )
    run = FleetSimulation(unbounded, lambda rng: LeastRequest(AlgorithmOptions(rng=rng)), seed).run(
        trace
    )
    engine = fleet.engines[0]
    fetched = set(fleet.preloaded_on(0))
    times = []
    for request in sorted(run.requests, key=lambda request: request.arrived):
        seconds = request.first_token - request.arrived
        if request.adapter is not None and request.adapter not in fetched:
            fetched.add(request.adapter)
            seconds += engine.disk_load_seconds
        elif request.adapter is not None and request.adapter not in popular:
            seconds += engine.host_load_seconds
        if request.arrived >= WARM_UP * SECONDS:
            times.append(seconds)
    return percentile(sorted(times), 0.99)
