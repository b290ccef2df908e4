"""How much each adapter is asked for, measured beside the path of requests.

The *load* of an adapter is the mean number of its requests in flight, those that wait in routers
included. It is the number of requests in a second times what each takes. So it says directly how
much of a pod the adapter needs, and a few long requests count as much as many short ones.

Rules:

- Nothing is counted for each request. A sample looks at what is in flight on all pods according to
  the ledger and the peers, and at what this router holds. The mean of samples is the load,
  however short requests are.
- Samples are weighted by age: half as much every ``HALF_LIFE_SECONDS``.
- A sample of a large fleet is taken in steps, between which the event loop serves requests.
- The number of adapters is bounded. What is asked for least is forgotten first.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field

from lora_router.adapters.slices import Slices, Work
from lora_router.adapters.trouble import Troubles, no_trouble
from lora_router.clock import Clock, Timer
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState

HALF_LIFE_SECONDS = 60.0
"""A lower value follows shifts of popularity sooner and takes chance for demand more often."""
MOST = 20_000
"""Adapters whose load is known."""
_LEAST = 1e-4
"""A load that is lower is forgotten: one request in some hours."""
_FIRST_SECONDS = 5.0
"""Until samples are this old, their mean is low rather than taken from a moment."""
SAMPLE_SECONDS = 1.0
"""Time between two samples."""
_PODS_AT_ONCE = 16
_ADAPTERS_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Demand:
    """How much each adapter is asked for, by served name."""

    loads: Mapping[str, float] = field(default_factory=dict)
    """Mean number of requests in flight, those that are held included. Missing: none."""
    waiting: Set[str] = frozenset()
    """Adapters for which requests wait because no pod has them."""
    total: float = 0.0
    """Mean number of requests in flight of all adapters."""
    replacing: Set[str] = frozenset()
    """New versions for which the place of an older copy is being cleared."""
    trouble: Troubles = no_trouble
    """Returns what hinders the loads of an adapter."""


class DemandMeter:
    """Measures the demand for adapters on one fleet."""

    def __init__(
        self,
        fleet: Fleet,
        clock: Clock,
        waiting: Callable[[], Set[str]] = frozenset,
        held: Callable[[], Iterable[str]] = tuple,
        elsewhere: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """Create it. It measures nothing before ``start``.

        Args:
            fleet: The pods, with what this router and its peers have in flight there.
            clock: Time and timers.
            waiting: Returns the adapters for which requests wait because no pod has them.
            held: Returns the models for which requests wait in this router, whatever for.
            elsewhere: Returns the requests by adapter of other processes of this router, of which
                the pods' pages show only that there are some.
        """
        self._fleet = fleet
        self._clock = clock
        self._waiting = waiting
        self._held = held
        self._elsewhere = elsewhere
        self._loads: dict[str, float] = {}
        """As of the last sample, not corrected for how short the time since the start is."""
        self._total = 0.0
        self._began = self._at = clock.now()
        self._slices = Slices(clock)
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._loads)

    def sample(self) -> Work:
        """Look at what is in flight now. Each step is short; the last one applies the sample."""
        now = self._clock.now()
        found: dict[str, float] = {}
        for number, state in enumerate(self._fleet):
            _count(state, found)
            if number % _PODS_AT_ONCE == _PODS_AT_ONCE - 1:
                yield
        for name in {*self._held(), *self._waiting(), *self._held_by_peers()}:
            # How many wait is not known of peers. They become requests in flight soon.
            found[name] = found.get(name, 0.0) + 1.0
        for name, requests in self._elsewhere().items():
            found[name] = max(found.get(name, 0.0), requests)
        yield
        keeps = 0.5 ** (max(0.0, now - self._at) / HALF_LIFE_SECONDS)
        loads: dict[str, float] = {}
        for number, (name, load) in enumerate(self._loads.items()):
            left = load * keeps
            if left >= _LEAST or name in found:
                loads[name] = left
            if number % _ADAPTERS_AT_ONCE == _ADAPTERS_AT_ONCE - 1:
                yield
        for number, (name, requests) in enumerate(found.items()):
            loads[name] = loads.get(name, 0.0) + requests * (1.0 - keeps)
            if number % _ADAPTERS_AT_ONCE == _ADAPTERS_AT_ONCE - 1:
                yield
        if len(loads) > MOST:
            most = sorted(loads, key=loads.__getitem__, reverse=True)[:MOST]
            loads = {name: loads[name] for name in most}
        self._loads, self._total, self._at = loads, sum(loads.values()), now

    def start(self) -> None:
        """Take samples from now on."""
        if self._timer is None:
            self._tick()

    def stop(self) -> None:
        """Take no more samples."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = self._clock.call_later(SAMPLE_SECONDS, self._tick)
        if not self._slices:
            self._slices.do(self.sample())

    def _held_by_peers(self) -> Iterator[str]:
        for held in self._fleet.peers.held():
            yield from held

    def demand(self) -> Demand:
        """Return the demand as of the last sample. Its mapping must not be changed."""
        age = max(_FIRST_SECONDS, self._at - self._began)
        weight = 1.0 - 0.5 ** (age / HALF_LIFE_SECONDS)
        return Demand(_Scaled(self._loads, 1.0 / weight), self._waiting(), self._total / weight)


class _Scaled(Mapping[str, float]):
    """Loads times a factor, without a copy of them."""

    __slots__ = ("_factor", "_loads")

    def __init__(self, loads: Mapping[str, float], factor: float) -> None:
        self._loads = loads
        self._factor = factor

    def __getitem__(self, name: str) -> float:
        return self._loads[name] * self._factor

    def __iter__(self) -> Iterator[str]:
        return iter(self._loads)

    def __len__(self) -> int:
        return len(self._loads)


class InheritedLoads(Mapping[str, float]):
    """Loads to which some adapters add those of others, without a copy of them."""

    __slots__ = ("_inherits", "_loads")

    def __init__(
        self, loads: Mapping[str, float], inherits: Callable[[str], Collection[str]]
    ) -> None:
        """Create it.

        Args:
            loads: The loads.
            inherits: Returns whose loads an adapter adds to its own.
        """
        self._loads = loads
        self._inherits = inherits

    def __getitem__(self, name: str) -> float:
        others = self._inherits(name)
        if not others:
            return self._loads[name]
        return sum(self._loads.get(each, 0.0) for each in (name, *others))

    def __iter__(self) -> Iterator[str]:
        return iter(self._loads)

    def __len__(self) -> int:
        return len(self._loads)


def _count(state: PodState, found: dict[str, float]) -> None:
    """Add the requests for adapters that are in flight on a pod."""
    for name, requests in state.in_flight_adapters.items():
        found[name] = found.get(name, 0.0) + requests
    beliefs = state.beliefs
    if beliefs.foreign_adapters:
        peers = beliefs.peers
        for name in beliefs.foreign_adapters:
            # Of strangers, only the adapter is known.
            found[name] = found.get(name, 0.0) + max(1, peers.in_flight(name))
