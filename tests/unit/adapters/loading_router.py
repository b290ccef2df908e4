"""A whole router without a network: it routes, waits, and loads adapters into pods."""

import random
from collections.abc import Iterable

from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.demand import DemandMeter
from lora_router.adapters.loader import Loader
from lora_router.adapters.planner import MakesPlans
from lora_router.fleet.lora_spec import LoraSpec
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.refusal import Refused
from lora_router.routing.waiting_queue import Held
from tests.fleet import make_metrics, make_pod, state_of
from tests.unit.adapters.declared_router import DeclaredRouter
from tests.unit.adapters.loading import FakePods


class LoadingRouter(DeclaredRouter):
    """A router that loads, in front of pods that can be loaded."""

    def __init__(
        self,
        *adapters: DeclaredAdapter,
        pods: int,
        memory: int,
        listed: Iterable[str] = (),
        planner: MakesPlans | None = None,
    ) -> None:
        super().__init__(*adapters, pods=0)
        fleet = self.fleet
        self.pods = FakePods(fleet, self.clock)
        for number in range(1, pods + 1):
            self.join(number, memory, listed)
        first_use = self.first_use
        meter = DemandMeter(fleet, self.clock, first_use.waiting, first_use.held)
        self.loader = Loader(
            fleet,
            self.declarations,
            self.pods,
            self.clock,
            demand=meter.demand,
            is_held=first_use.is_held,
            may_leave=self.versions.may_leave,
            waits=first_use,
            planner=planner,
            rng=random.Random(1),
        )
        first_use.on_wanted = self.loader.want
        first_use.start()
        meter.start()
        self.loader.start()
        self.clock.advance(30.0)

    def join(self, number: int, memory: int, listed: Iterable[str] = ()) -> None:
        """Add the pod ``pod-N``, whose page and list have been read."""
        self.fleet.upsert(make_pod(number, lora=LoraSpec(host_memory=memory)))
        state = state_of(self.fleet, number)
        self.pods.listed[state] = dict.fromkeys(listed, "")
        self.pods.show(state)
        self.fleet.put_metrics(state, make_metrics(max_lora=memory))

    def loaded(self, number: int) -> list[str]:
        """Return what a pod has loaded."""
        return self.pods.names(state_of(self.fleet, number))


class Client:
    """Asks for an adapter again and again: the next request follows the end of the last one."""

    def __init__(self, router: LoadingRouter, model: str, seconds: float) -> None:
        self.router = router
        self.model = model
        self.seconds = seconds
        """How long a request takes on a pod."""
        self.served: list[str] = []
        """What served its requests."""
        self.refused: list[Refused] = []
        self.longest = 0.0
        """How long a request has waited in the router."""
        self.ask()

    def ask(self) -> None:
        asked_at = self.router.clock.now()

        def decided(outcome: Routed | Refused) -> None:
            self.longest = max(self.longest, self.router.clock.now() - asked_at)
            if isinstance(outcome, Routed):
                self.served.append(outcome.model)
                self.router.clock.call_later(self.seconds, lambda: self.ended(outcome))
            else:
                self.refused.append(outcome)
                self.router.clock.call_later(1.0, self.ask)

        outcome = self.router.director.route(RouteQuery(self.model), decided)
        if not isinstance(outcome, Held):
            decided(outcome)

    def ended(self, routed: Routed) -> None:
        routed.reservation.release()
        self.ask()
