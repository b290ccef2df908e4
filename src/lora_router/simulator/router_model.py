"""A router in a simulation: the fleet, director and hub that serve, fed by simulated scrapes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.prompt import TOKEN_BYTES
from lora_router.peering.exchanges import connect
from lora_router.peering.hub import Hub
from lora_router.peering.mesh import Mesh
from lora_router.routing.algorithm import Algorithm
from lora_router.routing.director import Director
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.refusal import Refused
from lora_router.simulator.fleet_options import FleetOptions
from lora_router.simulator.knowledge import Knowledge
from lora_router.simulator.network import Place
from lora_router.simulator.peer_stream import StreamSide
from lora_router.simulator.pod_model import PodModel
from lora_router.simulator.router_clock import RouterClock
from lora_router.simulator.simulated_request import SimulatedRequest
from lora_router.simulator.trace import BASE_MODEL
from lora_router.telemetry.lacking_slots import LackingSlots, Slots


class _NoObserver:
    """Observes nothing. Requests know what became of them."""

    def decided(self, _algorithm: str, _outcome: str, _reason: str, _seconds: float) -> None:
        """Do nothing."""


class RouterModel:
    """One router: its fleet, its director, and what it learns from pods and other routers."""

    def __init__(
        self,
        name: str,
        options: FleetOptions,
        algorithm: Algorithm,
        clock: RouterClock,
    ) -> None:
        self.clock = clock
        self.place = Place()
        self.streams: dict[StreamSide, None] = {}
        """This router's sides of the open streams to its peers."""
        self.asked: dict[SimulatedRequest, None] = {}
        """Requests that it has not decided yet, held or not."""
        self.fleet = Fleet()
        self.director = Director(
            self.fleet,
            {algorithm.name: algorithm},
            algorithm.name,
            clock,
            _NoObserver(),
            max_hold_seconds=options.max_hold_seconds,
            overload=options.overload,
        )
        self.hub = (
            Hub(name, self.fleet, self.director.held_adapters, clock)
            if options.knowledge is Knowledge.PEERING and options.routers > 1
            else None
        )
        self.mesh: Mesh | None = None
        if self.hub is not None:
            self.mesh = Mesh(self.hub)
            connect(self.hub, self.fleet, self.director)
        self._lacking = LackingSlots(self.fleet, self.director, clock.now)
        self._options = options
        self._served = _models(options.adapters)

    def ask(
        self, request: SimulatedRequest, on_outcome: Callable[[Routed | Refused], None]
    ) -> None:
        """Ask for a pod.

        Args:
            request: The request.
            on_outcome: Called once, unless this router dies before.
        """

        def decided(outcome: Routed | Refused) -> None:
            if not self.clock.stopped:
                self.asked.pop(request, None)
                on_outcome(outcome)

        def route() -> None:
            query = RouteQuery(
                request.model,
                stream=True,
                size=int(request.prompt_tokens * TOKEN_BYTES),
                read_prompt=request.prompt if request.blocks else None,
            )
            outcome = self.director.route(query, decided)
            if isinstance(outcome, Routed | Refused):
                decided(outcome)
            else:
                request.was_held = True

        self.asked[request] = None
        self.clock.run(route)

    def die(self) -> list[SimulatedRequest]:
        """Stop at once, as a process that is killed; return the requests that it did not decide."""
        self.clock.stopped = True
        for stream in tuple(self.streams):
            stream.die()
        undecided, self.asked = list(self.asked), {}
        return undecided

    def put(
        self, number: int, generation: int, *, ready: bool, served: Iterable[str] | None = None
    ) -> None:
        """Learn of a pod, as from discovery and the first read of its models.

        Args:
            number: The pod's number.
            generation: How often it was replaced.
            ready: Whether it takes requests.
            served: The adapters that it serves. ``None``: all of the fleet.
        """
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:8000"
        url = f"http://{address}"
        pod = Pod(
            f"pod-{number}", address, f"{url}/metrics", f"{url}/v1/models", ready,
            uid=str(generation), lora=self._options.spec_of(number, generation),
        )  # fmt: skip
        self.fleet.upsert(pod)
        state = self.fleet.get(pod.name)
        if state is not None and not state.models_known:
            self.fleet.put_models(state, self._served if served is None else _models(served))

    def list_models(self, number: int, served: Iterable[str]) -> None:
        """Learn which adapters a pod serves now."""
        state = self.fleet.get(f"pod-{number}")
        if state is not None:
            self.fleet.put_models(state, _models(served))

    def remove(self, number: int) -> None:
        """Learn that a pod has left for good."""
        self.fleet.remove(f"pod-{number}")

    def slots(self) -> Mapping[str, Slots]:
        """Return the adapter slots of the fleet, by base model, as this router sees them."""
        return self._lacking.count()

    def start_scrapes(
        self,
        number: int,
        pod: Callable[[], PodModel],
        after: float,
        is_lost: Callable[[], bool],
    ) -> None:
        """Scrape a pod at every interval.

        Args:
            number: The pod's number.
            pod: Returns the pod as it is now; an outage replaces it.
            after: Seconds until the first scrape.
            is_lost: Returns whether the next scrape fails.
        """

        def scrape() -> None:
            state = self.fleet.get(f"pod-{number}")
            if state is None:
                return  # It has left.
            if state.pod.ready and not is_lost():
                metrics = self._metrics(pod())
                self.clock.call_later(
                    self._options.scrape_delay_seconds,
                    lambda: self.fleet.put_metrics(state, metrics),
                )
            self.clock.call_later(self._options.scrape_seconds, scrape)

        self.clock.call_later(after, scrape)

    def _metrics(self, pod: PodModel) -> PodMetrics:
        metrics = pod.metrics(tells_residency=self._options.tells_residency)
        if self.clock.now() != metrics.scraped_at:
            metrics = replace(metrics, scraped_at=self.clock.now())
        if self._options.knowledge is Knowledge.NOTHING:
            return _without_requests(metrics)
        return metrics


def _models(adapters: Iterable[str]) -> list[ServedModel]:
    return [ServedModel(BASE_MODEL), *(ServedModel(name, BASE_MODEL) for name in adapters)]


def _without_requests(metrics: PodMetrics) -> PodMetrics:
    """Return the snapshot without its requests: it reports only slots."""
    lora = metrics.lora
    if lora is not None:
        lora = replace(lora, running=frozenset(), waiting=frozenset())
    return replace(metrics, running=None, waiting=None, deferred=None, lora=lora)
