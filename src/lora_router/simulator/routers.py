"""The routers of a simulated fleet: how they begin, find each other, fail, and are replaced."""

import random
from collections.abc import Callable, Iterator
from functools import partial

from lora_router.peering.reconnection import Reconnection
from lora_router.routing.outcome import Routed
from lora_router.routing.refusal import Refused
from lora_router.simulator.events import EventQueue
from lora_router.simulator.fleet_options import FleetOptions, RouterEvent, RouterTrouble
from lora_router.simulator.network import Network
from lora_router.simulator.peer_stream import PeerStreams
from lora_router.simulator.router_clock import RouterClock
from lora_router.simulator.router_model import RouterModel
from lora_router.simulator.simulated_request import SimulatedRequest

_JOIN_SECONDS = 1.0
"""The longest time that a new router waits for the first reports of its peers."""
_LOOK_SECONDS = 0.01
"""How often it looks for them."""

OnOutcome = Callable[[SimulatedRequest, RouterModel, Routed | Refused], None]
"""Receives a request, the router that decided it, and the decision."""


class Routers:
    """All routers, by their places. Another router takes the place of one that dies."""

    def __init__(
        self,
        options: FleetOptions,
        make: Callable[[str, RouterClock, random.Random], RouterModel],
        start_scrapes: Callable[[RouterModel, random.Random], None],
        events: EventQueue,
        on_outcome: OnOutcome,
        rng: random.Random,
    ) -> None:
        """Create it without routers.

        Args:
            options: The fleet.
            make: Makes a router from its name, its clock, and a source of numbers.
            start_scrapes: Lets a router scrape the pods.
            events: Simulated time.
            on_outcome: Called with each decision.
            rng: For everything that only several routers need. The rest of a run does not depend
                on it.
        """
        self.current: list[RouterModel] = []
        """The last router in each place."""
        self._options = options
        self._make = make
        self._start_scrapes = start_scrapes
        self._events = events
        self._on_outcome = on_outcome
        self._rng = rng
        self._network = Network(options.wire, events, rng)
        self._serving: list[RouterModel] = []
        self._unasked: list[SimulatedRequest] = []
        """Requests that wait for a router, because none serves."""
        self._deaths = 0

    def __iter__(self) -> Iterator[RouterModel]:
        return iter(self.current)

    def begin(self, rng: random.Random) -> None:
        """Start the routers, and plan what happens to them.

        Args:
            rng: For what a single router needs, too.
        """
        for place in range(self._options.routers):
            self.current.append(self._make(f"router-{place}", self._clock(place), rng))
        for router in self.current:
            self._start_scrapes(router, rng)
        self._serving = list(self.current)
        for place in range(self._options.routers):
            self._open_streams(place)
        for event in self._options.router_events:
            self._events.call_at(event.at, partial(self._happen, event))

    def ask_any(self, request: SimulatedRequest, rng: random.Random) -> None:
        """Ask one of the routers that serve."""
        number = len(self._serving)
        if number:
            self._ask(request, self._serving[rng.randrange(number) if number > 1 else 0])
        else:
            self._unasked.append(request)

    def ask_first(self, request: SimulatedRequest) -> None:
        """Ask the first router that serves."""
        if self._serving:
            self._ask(request, self._serving[0])
        else:
            self._unasked.append(request)

    def _ask(self, request: SimulatedRequest, router: RouterModel) -> None:
        router.ask(request, lambda outcome: self._on_outcome(request, router, outcome))

    def _clock(self, place: int) -> RouterClock:
        rates = self._options.clock_rates
        return RouterClock(self._events, rates[place % len(rates)], self._options.begins_at)

    def _open_streams(self, place: int) -> None:
        """Let a router open streams to all others."""
        here = self.current[place]
        if here.hub is None:
            return
        for other in range(len(self.current)):
            if other != place:
                streams = PeerStreams(
                    self._network,
                    here,
                    partial(self.current.__getitem__, other),
                    Reconnection(self._rng),
                )
                here.clock.call_later(self._rng.random() * _LOOK_SECONDS, streams.open)

    # What happens to routers

    def _happen(self, event: RouterEvent) -> None:
        router = self.current[event.router]
        match event.trouble:
            case RouterTrouble.KILLED:
                self._kill(router)
                self._events.call_later(event.lasts, partial(self._replace, event.router))
            case RouterTrouble.STALLED:
                router.clock.stall(event.lasts)
            case RouterTrouble.PARTED:
                until = self._events.time + event.lasts
                router.place.parted_until = max(router.place.parted_until, until)

    def _kill(self, router: RouterModel) -> None:
        if router in self._serving:
            self._serving.remove(router)
        for request in router.die():
            self.ask_any(request, self._rng)

    def _replace(self, place: int) -> None:
        if not self.current[place].clock.stopped:
            return  # It was killed twice, and replaced since.
        self._deaths += 1
        name = f"router-{place}-{self._deaths}"
        router = self._make(name, self._clock(place), self._rng)
        self.current[place] = router
        self._start_scrapes(router, self._rng)
        self._open_streams(place)
        deadline = self._events.time + _JOIN_SECONDS
        # It is ready when it has read every pod once.
        self._events.call_later(
            self._options.scrape_seconds, partial(self._serve_when_joined, router, deadline)
        )

    def _serve_when_joined(self, router: RouterModel, deadline: float) -> None:
        """Let a router serve when its peers have reported, or at the deadline."""
        if router.clock.stopped:
            return
        if self._events.time < deadline and not self._has_joined(router):
            again = partial(self._serve_when_joined, router, deadline)
            self._events.call_later(_LOOK_SECONDS, again)
            return
        self._serving.append(router)
        unasked, self._unasked = self._unasked, []
        for request in unasked:
            self._ask(request, router)

    def _has_joined(self, router: RouterModel) -> bool:
        if router.hub is None:
            return False
        alive = sum(not other.clock.stopped for other in self.current) - 1
        peers = router.hub.peers.values()
        return len(peers) >= alive and all(peer.number for peer in peers)
