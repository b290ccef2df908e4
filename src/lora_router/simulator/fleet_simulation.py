"""A fleet in simulated time: pods by ``pod_model``, routers by the objects that serve.

Each router has the ``Fleet``, the ``Director`` and the ``Hub`` of a real one (``router_model``). A
request goes to a random router, scrapes have their real interval and delay, routers talk over a
``network``, and the end of a stream releases the reservation. Only the transport is missing, which
takes no time here.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from lora_router.fleet.answer import FROM_THE_POD, Answer
from lora_router.fleet.ledger import Reservation
from lora_router.routing.algorithm import Algorithm
from lora_router.routing.outcome import Routed
from lora_router.routing.refusal import Refused
from lora_router.simulator.events import EventQueue
from lora_router.simulator.fleet_options import FleetOptions, Outage
from lora_router.simulator.fleet_scaling import FleetMoment, FleetScaling
from lora_router.simulator.loader_model import LoaderModel
from lora_router.simulator.pod_model import PodCounts, PodModel
from lora_router.simulator.router_clock import RouterClock
from lora_router.simulator.router_model import RouterModel
from lora_router.simulator.routers import Routers
from lora_router.simulator.simulated_request import SimulatedRequest
from lora_router.simulator.trace import Arrival

_ANSWER = Answer(200, details=FROM_THE_POD)


@dataclass(slots=True)
class FleetRun:
    """The outcome of a trace."""

    requests: list[SimulatedRequest]
    """The requests that ended, in the order in which they ended."""
    pods: list[PodCounts]
    """By the numbers of the pods. A pod counts with those that it replaced."""
    seconds: float
    idle_slot_waits: int
    """Requests that waited for a slot on a pod while another pod had a free one."""
    moments: Sequence[FleetMoment] = ()
    """How the fleet grew and shrank. Empty if the number of pods is fixed."""
    turned_away: Sequence[SimulatedRequest] = ()
    """The requests that were refused. They ended when they were."""

    @property
    def refused(self) -> int:
        """How many requests were refused."""
        return len(self.turned_away)

    @property
    def held(self) -> int:
        """How many of the requests that ended were held in a router before."""
        return sum(request.was_held for request in self.requests)


@dataclass(slots=True)
class FleetSimulation:
    """Runs one trace. ``run`` may be called once."""

    options: FleetOptions
    make_algorithm: Callable[[random.Random], Algorithm]
    seed: int = 0
    _events: EventQueue = field(default_factory=EventQueue)
    _pods: list[PodModel] = field(default_factory=list)
    _reservations: dict[SimulatedRequest, tuple[RouterClock, Reservation]] = field(
        default_factory=dict
    )
    """Requests that are on pods, with the clocks of their routers."""
    _ended: list[SimulatedRequest] = field(default_factory=list)
    _turned_away: list[SimulatedRequest] = field(default_factory=list)
    _open: int = 0
    _idle_slot_waits: int = 0
    _stop_when: Callable[[SimulatedRequest], bool] | None = None
    _stopped: bool = False
    _down: set[int] = field(default_factory=set)
    """Pods that accept no new requests."""
    _gone: set[int] = field(default_factory=set)
    """Pods that have left for good."""
    _scrape_rng: random.Random = field(init=False)
    """When pods that start later are scraped."""
    _luck: random.Random = field(init=False)
    """Which requests pass no router, and which scrapes fail."""
    _retired: dict[int, PodCounts] = field(default_factory=dict)
    """What happened on pods that were replaced, by their numbers."""
    _generations: dict[int, int] = field(default_factory=dict)
    """How often pods were replaced."""
    _is_adapter: frozenset[str] = frozenset()
    _loader: LoaderModel | None = None
    _routers: Routers = field(init=False)

    def __post_init__(self) -> None:
        """Create the routers' places."""
        rng = random.Random(f"routers {self.seed}")
        self._events.time = self.options.begins_at
        self._scrape_rng = random.Random(f"scrapes {self.seed}")
        self._luck = random.Random(f"luck {self.seed}")
        self._routers = Routers(
            self.options, self._new_router, self._start_scrapes, self._events, self._decided, rng
        )

    def run(
        self,
        trace: Iterable[Arrival],
        *,
        on_progress: Callable[[float], None] | None = None,
        stop_when: Callable[[SimulatedRequest], bool] | None = None,
    ) -> FleetRun:
        """Run a trace until its last request has ended.

        Args:
            trace: Requests in order of their times.
            on_progress: Called with the simulated time now and then.
            stop_when: Called with each request that ended. The run stops when it returns true.
        """
        self._stop_when = stop_when
        rng = random.Random(self.seed)
        self._is_adapter = frozenset(self.options.adapters)
        if self.options.loader is not None:
            self._loader = LoaderModel(self, self.options, self._events)
        for number in range(len(self.options.engines)):
            self._pods.append(self._started_pod(number, self.options.preloaded_on(number)))
        self._routers.begin(rng)
        for outage in self.options.outages:
            self._plan_outage(outage)
        scaling = None
        if self.options.autoscaler is not None:
            scaling = FleetScaling(self, self.options.autoscaler, len(self._pods))
        arrivals = _Feeder(iter(trace), self, rng, on_progress)
        arrivals.next()
        self._events.run(lambda: self._stopped or (arrivals.done and not self._open))
        return FleetRun(
            self._ended,
            [self._counts_of(number) for number in range(len(self._pods))],
            self._events.time,
            self._idle_slot_waits,
            () if scaling is None else scaling.moments,
            self._turned_away,
        )

    @property
    def time(self) -> float:
        """Seconds from the start."""
        return self._events.time

    @property
    def pods(self) -> Sequence[PodModel]:
        """The pods in the order of their numbers. An outage replaces a pod."""
        return self._pods

    @property
    def routers(self) -> Sequence[RouterModel]:
        """The routers in the order of their places. Another one replaces a router that dies."""
        return self._routers.current

    @property
    def held(self) -> int:
        """Requests that are held in a router."""
        return sum(router.director.held for router in self._routers)

    def call_at(self, time: float, call: Callable[[], None]) -> None:
        """Schedule a call at a simulated time."""
        self._events.call_at(time, call)

    def arrive(self, arrival: Arrival, rng: random.Random) -> None:
        """Send a request to a router."""
        model = arrival.model
        adapter = model if model in self._is_adapter else None
        request = SimulatedRequest(
            model,
            adapter,
            arrival.prompt_tokens,
            arrival.output_tokens,
            arrival.at,
            arrival.blocks,
            arrival.block_tokens,
        )
        self._open += 1
        if self._happens(self.options.strangers):
            self._send_past_routers(request)
        else:
            self._routers.ask_any(request, rng)

    def _happens(self, share: float) -> bool:
        return share > 0 and self._luck.random() < share

    def _send_past_routers(self, request: SimulatedRequest) -> None:
        """Send a request to a random pod, as a client does that calls pods directly."""
        pods = [number for number in self._present() if number not in self._down]
        request.sent = self._events.time
        self._submit(request, self._pods[self._luck.choice(pods or list(self._present()))])

    def _decided(
        self, request: SimulatedRequest, router: RouterModel, outcome: Routed | Refused
    ) -> None:
        if isinstance(outcome, Refused):
            self._open -= 1
            request.ended = self._events.time
            self._turned_away.append(request)
            return
        self._reservations[request] = router.clock, outcome.reservation
        request.sent = self._events.time
        name = outcome.reservation.state.pod.name
        self._submit(request, self._pods[int(name.rpartition("-")[2])])

    def _ask_anew(self, lost: SimulatedRequest) -> None:
        """Send a request that was lost with its pod again, as its client would.

        It is the same request: its client has waited since it arrived first.
        """
        lost.begin_anew()
        self._routers.ask_first(lost)

    def _submit(self, request: SimulatedRequest, pod: PodModel) -> None:
        if not pod.slots.has_room_for(request.adapter) and any(
            other.free_slots for number, other in enumerate(self._pods) if number not in self._down
        ):
            self._idle_slot_waits += 1
        pod.submit(request)

    def _first_token(self, request: SimulatedRequest) -> None:
        sent = self._reservations.get(request)
        if sent is not None:  # A router sent it.
            clock, reservation = sent
            clock.run(partial(reservation.answered, _ANSWER))

    def _release(self, request: SimulatedRequest) -> None:
        sent = self._reservations.pop(request, None)
        if sent is not None:
            clock, reservation = sent
            clock.run(reservation.release)

    def _end(self, request: SimulatedRequest) -> None:
        self._open -= 1
        self._ended.append(request)
        self._release(request)
        if self._stop_when is not None and self._stop_when(request):
            self._stopped = True

    # Pods

    def load_of(self, number: int) -> int:
        """Return the requests on a pod."""
        return self._pods[number].load

    def add_pod(self) -> int:
        """Add a pod that takes requests and has nothing in host memory; return its number."""
        number = len(self._pods)
        self._pods.append(self._started_pod(number))
        for router in self._routers:
            self._put(router, number)
            self._start_scrape(router, number, self._scrape_rng)
        return number

    def drain_pod(self, number: int) -> None:
        """Give a pod no further requests."""
        self._down.add(number)
        self._tell_of(number)

    def remove_pod(self, number: int) -> None:
        """Remove a pod that has no requests."""
        self._gone.add(number)
        for router in self._routers:
            router.remove(number)

    def _started_pod(self, number: int, preloaded: Sequence[str] = ()) -> PodModel:
        """Return a pod that has just started. Only those of the beginning have run before."""
        engine = self.options.engine(number)
        pod = PodModel(f"pod-{number}", engine, self._events, self._end, self._first_token)
        pod.preload(preloaded)
        if self._loader is not None:
            self._loader.started(number, preloaded)
        return pod

    def _counts_of(self, number: int) -> PodCounts:
        """Return what happened on a pod and on those that it replaced."""
        counts, before = self._pods[number].counts, self._retired.get(number)
        return counts if before is None else before.plus(counts)

    def _served_by(self, number: int) -> Iterable[str] | None:
        """Return what a pod lists. ``None``: all adapters, because nothing loads them."""
        return None if self._loader is None else self._loader.served_by(number)

    def _new_router(self, name: str, clock: RouterClock, rng: random.Random) -> RouterModel:
        algorithm = self.make_algorithm(random.Random(rng.random()))
        router = RouterModel(name, self.options, algorithm, clock)
        for number in self._present():
            self._put(router, number)
        if self._loader is not None:
            self._loader.equip(router)
        return router

    def _start_scrapes(self, router: RouterModel, rng: random.Random) -> None:
        for number in self._present():
            self._start_scrape(router, number, rng)

    def _start_scrape(self, router: RouterModel, number: int, rng: random.Random) -> None:
        after = rng.random() * self.options.scrape_seconds
        pod = partial(self._pods.__getitem__, number)
        is_lost = partial(self._happens, self.options.lost_scrapes)
        router.start_scrapes(number, pod, after, is_lost)

    def _present(self) -> Iterator[int]:
        return (number for number in range(len(self._pods)) if number not in self._gone)

    def _plan_outage(self, outage: Outage) -> None:
        number = outage.pod

        def go() -> None:
            self._down.add(number)
            self._tell_of(number)
            if outage.sudden:
                lost = self._pods[number].stop()
                for request in lost:
                    self._release(request)
                self._replace(number)
                for request in lost:
                    self._ask_anew(request)

        def come_back() -> None:
            if not outage.sudden:
                if self._pods[number].load:
                    self._events.call_later(0.5, come_back)
                    return
                self._replace(number)
            self._down.discard(number)
            self._generations[number] = self._generations.get(number, 0) + 1
            self._tell_of(number)

        self._events.call_at(outage.at, go)
        self._events.call_at(outage.at + outage.lasts, come_back)

    def _tell_of(self, number: int) -> None:
        """Tell all routers of a pod, as discovery does."""
        for router in self._routers:
            self._put(router, number)

    def _put(self, router: RouterModel, number: int) -> None:
        generation, ready = self._generations.get(number, 0), number not in self._down
        router.put(number, generation, ready=ready, served=self._served_by(number))

    def _replace(self, number: int) -> None:
        """Start a pod in the place of another. It has nothing in host memory."""
        self._retired[number] = self._counts_of(number)
        self._pods[number] = self._started_pod(number)


class _Feeder:
    """Schedules the requests of a trace, one after the other."""

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
            simulation.arrive(arrival, self._rng)
            self._count += 1
            if self._on_progress is not None and self._count % self._PROGRESS_EVERY == 0:
                self._on_progress(simulation.time)
            self.next()

        self._simulation.call_at(arrival.at, arrive)
