"""A router without a network: a director over a fleet, on a clock that the test advances."""

import random

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.routing.algorithm import Algorithm, AlgorithmOptions
from lora_router.routing.director import Director
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.routing.model_names import NamePolicy
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.overload import Overload
from lora_router.routing.refusal import Refused
from lora_router.routing.roll import Limits
from lora_router.routing.waiting_queue import Held
from tests.fleet import Decisions, ManualClock


class Router:
    """Routes with one algorithm, and records the outcomes of held requests."""

    def __init__(
        self,
        fleet: Fleet,
        algorithm: Algorithm | None = None,
        *,
        max_hold_seconds: float = 600.0,
        limits: Limits | None = None,
        overload: Overload | None = None,
        names: NamePolicy | None = None,
    ) -> None:
        self.fleet = fleet
        self.clock = ManualClock()
        self.decisions = Decisions()
        algorithm = algorithm or LoraPlacement(AlgorithmOptions(rng=random.Random(1)))
        self.director = Director(
            fleet,
            {algorithm.name: algorithm},
            algorithm.name,
            self.clock,
            self.decisions,
            max_hold_seconds=max_hold_seconds,
            limits=limits,
            overload=overload,
            names=names,
        )
        self.late: list[tuple[str, Routed | Refused]] = []
        """Names of held requests with their outcomes, in the order in which they were decided."""

    def send(self, model: str, name: str = "", **query: object) -> Routed | Refused | Held:
        """Route a request. ``name`` identifies it in ``late`` (default: its model)."""
        return self.director.route(
            RouteQuery(model, **query),  # type: ignore[arg-type]
            lambda outcome: self.late.append((name or model, outcome)),
        )

    def routed(self, model: str, **query: object) -> Routed:
        outcome = self.send(model, **query)  # type: ignore[arg-type]
        assert isinstance(outcome, Routed), outcome
        return outcome

    def held(self, model: str, name: str = "", **query: object) -> Held:
        outcome = self.send(model, name, **query)
        assert isinstance(outcome, Held), outcome
        return outcome

    @property
    def late_names(self) -> list[str]:
        """The names of the requests that were held and are routed now."""
        return [name for name, outcome in self.late if isinstance(outcome, Routed)]

    def late_pod(self, name: str) -> PodState:
        """Return the pod to which a held request was finally routed."""
        (outcome,) = (outcome for other, outcome in self.late if other == name)
        assert isinstance(outcome, Routed)
        return outcome.reservation.state
