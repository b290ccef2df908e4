"""A fleet in simulated time: pods by ``pod_model``, routers by the very objects that serve.

Each router is a ``Fleet`` and a ``Director`` with its algorithm, as in ``app``; requests go to a
router at random, scrapes come as often and as late as they are said to, and a stream's end
releases the reservation. Only the transport is missing, which takes no time here.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.routing.algorithm import Algorithm
from lora_router.routing.director import Director, Routed, RouteQuery
from lora_router.routing.refusal import Refused
from lora_router.simulator.engine import EngineOptions
from lora_router.simulator.events import EventQueue
from lora_router.simulator.knowledge import SCRAPES, Knowledge
from lora_router.simulator.pod_model import PodCounts, PodModel, SimulatedRequest
from lora_router.simulator.trace import BASE_MODEL, Arrival

_BYTES_A_TOKEN = 4
"""Length of a token in English text, roughly."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A pod that goes and comes back."""

    pod: int
    at: float
    """Seconds from the start."""
    lasts: float
    """Seconds until it is back, empty."""
    sudden: bool = False
    """Whether what runs on it is lost (and asked again at once); else it may end."""


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """A fleet."""

    engines: tuple[EngineOptions, ...]
    """One for each pod."""
    adapters: tuple[str, ...]
    """What every pod serves, beside the base model."""
    routers: int = 1
    knowledge: Knowledge = SCRAPES
    """What each router knows of the others."""
    exchange_delay_seconds: float = 0.005
    scrape_seconds: float = 1.0
    scrape_delay_seconds: float = 0.005
    tells_residency: bool = False
    """Whether pods export which adapters are loaded (vllm-project/vllm#54830)."""
    preloaded: bool = True
    """Whether host memory is filled before the start, as in a fleet that has run for long."""
    outages: tuple[Outage, ...] = ()
    max_hold_seconds: float = 600.0


@dataclass(slots=True)
class FleetRun:
    """What became of a trace."""

    requests: list[SimulatedRequest]
    """Those that ended, in the order in which they did."""
    pods: list[PodCounts]
    seconds: float
    refused: int
    held: int
    idle_slot_waits: int
    """Requests that waited for a slot on a pod when another pod had a free one."""


class _Router:
    """One router's memory and its director."""

    def __init__(
        self, options: FleetOptions, algorithm: Algorithm, events: EventQueue, run: "_Counts"
    ) -> None:
        self.fleet = Fleet()
        self.director = Director(
            self.fleet,
            {algorithm.name: algorithm},
            algorithm.name,
            events,
            run,
            max_hold_seconds=options.max_hold_seconds,
        )
        self._served = [ServedModel(BASE_MODEL)]
        self._served += [ServedModel(name, BASE_MODEL) for name in options.adapters]

    def put(self, number: int, generation: int, *, ready: bool) -> None:
        """Learn of a pod, as discovery and the first read of its models have it."""
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:8000"
        url = f"http://{address}"
        pod = Pod(
            f"pod-{number}", address, f"{url}/metrics", f"{url}/v1/models", ready,
            uid=str(generation),
        )  # fmt: skip
        self.fleet.upsert(pod)
        state = self.fleet.get(pod.name)
        if state is not None and not state.models_known:
            self.fleet.put_models(state, self._served)


@dataclass(slots=True)
class _Counts:
    """Counts decisions for the director."""

    held: int = 0
    refused: int = 0

    def decided(self, _algorithm: str, outcome: str, _reason: str, _seconds: float) -> None:
        self.held += outcome == "held"
        self.refused += outcome == "refused"


@dataclass(slots=True)
class FleetSimulation:
    """Plays one trace. ``run`` may be called once."""

    options: FleetOptions
    make_algorithm: Callable[[random.Random], Algorithm]
    seed: int = 0
    _events: EventQueue = field(default_factory=EventQueue)
    _counts: _Counts = field(default_factory=_Counts)
    _pods: list[PodModel] = field(default_factory=list)
    _routers: list[_Router] = field(default_factory=list)
    _releases: dict[SimulatedRequest, Callable[[], object]] = field(default_factory=dict)
    _ended: list[SimulatedRequest] = field(default_factory=list)
    _open: int = 0
    _idle_slot_waits: int = 0
    _stop_when: Callable[[SimulatedRequest], bool] | None = None
    _stopped: bool = False
    _down: set[int] = field(default_factory=set)
    """Pods that take no new requests."""
    _retired: list[PodCounts] = field(default_factory=list)
    _is_adapter: frozenset[str] = frozenset()

    def run(
        self,
        trace: Iterable[Arrival],
        *,
        on_progress: Callable[[float], None] | None = None,
        stop_when: Callable[[SimulatedRequest], bool] | None = None,
    ) -> FleetRun:
        """Play a trace to the end of its last request.

        Args:
            trace: Requests in order of their times.
            on_progress: Told the simulated time now and then.
            stop_when: Shown each request that ended; the run is over when it says so.
        """
        self._stop_when = stop_when
        rng = random.Random(self.seed)
        self._is_adapter = frozenset(self.options.adapters)
        self._pods = [self._new_pod(number) for number in range(len(self.options.engines))]
        for _ in range(self.options.routers):
            algorithm = self.make_algorithm(random.Random(rng.random()))
            router = _Router(self.options, algorithm, self._events, self._counts)
            for number in range(len(self._pods)):
                router.put(number, 0, ready=True)
            self._routers.append(router)
        self._start_scrapes(rng)
        if self.options.knowledge.exchange_seconds is not None and self.options.routers > 1:
            for number, router in enumerate(self._routers):
                self._start_telling(
                    router, number, self.options.knowledge.exchange_seconds, rng.random()
                )
        for outage in self.options.outages:
            self._plan_outage(outage)
        arrivals = _Feeder(iter(trace), self, rng, on_progress)
        arrivals.next()
        self._events.run(lambda: self._stopped or (arrivals.done and not self._open))
        return FleetRun(
            self._ended,
            self._retired + [pod.counts for pod in self._pods],
            self._events.time,
            self._counts.refused,
            self._counts.held,
            self._idle_slot_waits,
        )

    @property
    def time(self) -> float:
        """Seconds from the start."""
        return self._events.time

    @property
    def pods(self) -> Sequence[PodModel]:
        """The pods, by their numbers, as they are now."""
        return self._pods

    @property
    def held(self) -> int:
        """Requests that wait in a router."""
        return sum(router.director.held for router in self._routers)

    def call_at(self, time: float, call: Callable[[], None]) -> None:
        """Have something happen."""
        self._events.call_at(time, call)

    def arrive(self, arrival: Arrival, router: int) -> None:
        """Take a request."""
        model = arrival.model
        adapter = model if model in self._is_adapter else None
        request = SimulatedRequest(
            model, adapter, arrival.prompt_tokens, arrival.output_tokens, arrival.at
        )
        self._open += 1
        self._ask(request, self._routers[router])

    def _ask(self, request: SimulatedRequest, router: _Router) -> None:
        def decided(outcome: Routed | Refused) -> None:
            if isinstance(outcome, Refused):
                self._open -= 1
                return
            self._releases[request] = outcome.reservation.release
            name = outcome.reservation.state.pod.name
            self._submit(request, self._pods[int(name.rpartition("-")[2])])

        query = RouteQuery(request.model, size=request.prompt_tokens * _BYTES_A_TOKEN)
        outcome = router.director.route(query, decided)
        if isinstance(outcome, Routed | Refused):
            decided(outcome)

    def _ask_anew(self, lost: SimulatedRequest) -> None:
        """Ask for what was lost with its pod, as its client would: a new request, now."""
        again = SimulatedRequest(
            lost.model, lost.adapter, lost.prompt_tokens, lost.output_tokens, self._events.time
        )
        self._ask(again, self._routers[0])

    def _submit(self, request: SimulatedRequest, pod: PodModel) -> None:
        if (
            request.adapter is not None
            and pod.free_slots == 0
            and not pod.slots.get(request.adapter)
            and any(
                other.free_slots
                for number, other in enumerate(self._pods)
                if number not in self._down
            )
        ):
            self._idle_slot_waits += 1
        pod.submit(request)

    def _end(self, request: SimulatedRequest) -> None:
        self._open -= 1
        self._ended.append(request)
        self._releases.pop(request)()
        if self._stop_when is not None and self._stop_when(request):
            self._stopped = True

    # Pods

    def _new_pod(self, number: int) -> PodModel:
        pod = PodModel(f"pod-{number}", self.options.engines[number], self._events, self._end)
        if self.options.preloaded:
            room = self.options.engines[number].max_cpu_loras
            pod.host_cache.update(dict.fromkeys(self.options.adapters[:room]))
        return pod

    def _plan_outage(self, outage: Outage) -> None:
        generation = 1 + self.options.outages.index(outage)

        def go() -> None:
            self._down.add(outage.pod)
            for router in self._routers:
                router.put(outage.pod, generation - 1, ready=False)
            if outage.sudden:
                lost = self._pods[outage.pod].stop()
                for request in lost:
                    self._releases.pop(request)()
                self._replace(outage.pod)
                for request in lost:
                    self._ask_anew(request)

        def come_back() -> None:
            if not outage.sudden:
                if self._pods[outage.pod].load:
                    self._events.call_later(0.5, come_back)
                    return
                self._replace(outage.pod)
            self._down.discard(outage.pod)
            for router in self._routers:
                router.put(outage.pod, generation, ready=True)

        self._events.call_at(outage.at, go)
        self._events.call_at(outage.at + outage.lasts, come_back)

    def _replace(self, number: int) -> None:
        self._retired.append(self._pods[number].counts)
        self._pods[number] = self._new_pod(number)

    # Scrapes

    def _start_scrapes(self, rng: random.Random) -> None:
        for router in self._routers:
            for number in range(len(self._pods)):
                self._scrape_again(router, number, rng.random() * self.options.scrape_seconds)

    def _scrape_again(self, router: _Router, number: int, after: float) -> None:
        def scrape() -> None:
            state = router.fleet.get(f"pod-{number}")
            if state is not None and state.pod.ready:
                self._scrape(router, state, self._pods[number])
            self._events.call_later(self.options.scrape_seconds, scrape)

        self._events.call_later(after, scrape)

    def _start_telling(self, router: _Router, number: int, every: float, phase: float) -> None:
        """Have a router tell the others of its ledger, again and again."""
        others = [other for other in self._routers if other is not router]

        def tell() -> None:
            now = self._events.time
            held = router.director.held_adapters()
            share = router.fleet.tell_peers(f"router-{number}", every, held, now)

            def arrive() -> None:
                for other in others:
                    other.fleet.put_peer(share, self._events.time)

            self._events.call_later(self.options.exchange_delay_seconds, arrive)
            self._events.call_later(every, tell)

        self._events.call_later(phase * every, tell)

    def _scrape(self, router: _Router, state: PodState, pod: PodModel) -> None:
        metrics = pod.metrics(tells_residency=self.options.tells_residency)
        if not self.options.knowledge.scrapes:
            metrics = _without_requests(metrics)
        self._events.call_later(
            self.options.scrape_delay_seconds, lambda: router.fleet.put_metrics(state, metrics)
        )


def _without_requests(metrics: PodMetrics) -> PodMetrics:
    """Return what is left when a router may learn of slots, and not of anybody's requests."""
    lora = metrics.lora
    if lora is not None:
        lora = replace(lora, running=frozenset(), waiting=frozenset())
    return replace(metrics, running=None, waiting=None, deferred=None, lora=lora)


class _Feeder:
    """Brings the requests of a trace in, one after the other."""

    _PROGRESS_EVERY = 2000

    def __init__(
        self,
        trace: Iterator[Arrival],
        simulation: FleetSimulation,
        rng: random.Random,
        on_progress: Callable[[float], None] | None,
    ) -> None:
        self.done = False
        self._trace = trace
        self._simulation = simulation
        self._rng = rng
        self._on_progress = on_progress
        self._count = 0

    def next(self) -> None:
        arrival = next(self._trace, None)
        if arrival is None:
            self.done = True
            return

        def arrive() -> None:
            simulation = self._simulation
            routers = simulation.options.routers
            simulation.arrive(arrival, self._rng.randrange(routers) if routers > 1 else 0)
            self._count += 1
            if self._on_progress is not None and self._count % self._PROGRESS_EVERY == 0:
                self._on_progress(simulation.time)
            self.next()

        self._simulation.call_at(arrival.at, arrive)
