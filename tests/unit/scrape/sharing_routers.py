"""Routers that share the reads of pods in memory, on one manual clock."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

from lora_router.fleet.catalog import Catalog, ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.reading import Page, ReadFailure, Reading
from lora_router.scrape.intake import Intake
from lora_router.scrape.schedule import ScrapeSchedule
from lora_router.scrape.sharing import TICK_SECONDS, Sharing
from tests.fleet import ManualClock, make_fleet, make_metrics

INTERVAL = 0.25
DELAY = 0.05
"""Time until others hear of a reading."""


@dataclass
class World:
    """The pods, and the routers that read them."""

    pods: int = 6
    clock: ManualClock = field(default_factory=ManualClock)
    routers: list["Router"] = field(default_factory=list)
    reads: dict[str, list[float]] = field(default_factory=dict)
    """The times at which each pod's metrics were read, by anybody."""
    active: tuple[str, ...] = ("a",)
    """The adapters that are active on every pod."""
    running: Callable[[str], float] | None = None
    """The load of a pod, by its name. ``None``: one request for each active adapter."""
    down: set[str] = field(default_factory=set)
    """Pods that answer nobody."""

    def add(self, name: str, **options: object) -> "Router":
        router = Router(self, name, **options)  # type: ignore[arg-type]
        self.routers.append(router)
        return router

    def run(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def settled(self, *names: str) -> list["Router"]:
        """Return routers that read and tell for a while."""
        routers = [self.add(name) for name in names]
        self.run(5.0)
        self.reads.clear()
        return routers

    def rate(self, seconds: float) -> float:
        """Return how many times a pod is read in a second, by all routers together."""
        self.reads.clear()
        self.run(seconds)
        return sum(map(len, self.reads.values())) / self.pods / seconds

    def longest_pause(self, seconds: float) -> float:
        """Return the longest time in which a pod was read by nobody."""
        self.reads.clear()
        began = self.clock.now()
        self.run(seconds)
        longest = 0.0
        for number in range(1, self.pods + 1):
            times = [began, *self.reads.get(f"pod-{number}", []), self.clock.now()]
            longest = max(longest, *(late - early for early, late in pairwise(times)))
        return longest


class Router:
    """A router: its fleet, what it shares, and a scraper without a network."""

    def __init__(self, world: World, name: str, *, interval: float = INTERVAL) -> None:
        self.world = world
        self.name = name
        self.clock = world.clock
        self.fleet: Fleet = make_fleet(world.pods, adapters=("a", "b", "c"))
        self.intake = Intake(self.fleet, self.clock.now)
        self.interval = interval
        self.alive = True
        self.stalls_for = 0.0
        """How long pages wait before it looks at them."""
        self.mute = False
        """Whether nobody hears it."""
        self.cut_from: set[str] = set()
        """Pods that it cannot reach."""
        self.lie: Callable[[PodMetrics], PodMetrics] | None = None
        """What it tells instead of what it read."""
        self.reads: list[str] = []
        """The pods whose metrics it read."""
        self.list_wakes = 0
        self.told = 0
        self.sharing = Sharing(
            name,
            self.intake,
            interval=interval,
            models_interval=10.0,
            clock=self.clock.now,
            tell=self._tell,
            tell_presence=self._tell_presence,
            rng=random.Random(name),
        )
        self.sharing.wake = self._wake
        self._blocked: dict[PodState, None] = {}
        self._turns: dict[PodState, ScrapeSchedule] = {}
        for state in self.fleet:
            self.sharing.add(state)
            self._turns[state] = ScrapeSchedule(state.pod.name, interval, self.clock.now)
            self._read(state)
            self.read_list(state)
        self._tick()

    def state(self, number: int) -> PodState:
        state = self.fleet.get(f"pod-{number}")
        assert state is not None
        return state

    def die(self) -> None:
        """End without a word."""
        self.alive = False
        self.world.routers.remove(self)

    def age(self) -> float:
        """Return the age of the oldest snapshot."""
        return self.clock.now() - min(
            state.metrics.scraped_at if state.metrics else 0.0 for state in self.fleet
        )

    # The scraper

    def _read(self, state: PodState) -> None:
        if not self.alive or self.fleet.get(state.pod.name) is not state:
            return
        now, name = self.clock.now(), state.pod.name
        self.world.reads.setdefault(name, []).append(now)
        self.reads.append(name)
        if name in self.world.down or name in self.cut_from:
            reading = Reading(state, now, ReadFailure("metrics", "connect", unreachable=True))
        else:
            metrics = make_metrics(self.world.active, scraped_at=now)
            if self.world.running is not None:
                metrics = replace(metrics, running=self.world.running(name))
            reading = Reading(state, now, metrics)
        if self.stalls_for:
            self.clock.call_later(self.stalls_for, lambda: self._use(state, reading))
        else:
            self._use(state, reading)

    def _use(self, state: PodState, reading: Reading) -> None:
        """Use a page, which has the time at which the event loop sees it."""
        now = self.clock.now()
        found = reading.found
        if isinstance(found, PodMetrics):
            found = replace(found, scraped_at=now)
        reading = Reading(state, now, found)
        self.intake.put(reading)
        self.sharing.read(reading)
        self.clock.call_later(self._turns[state].wait(), lambda: self._turn(state))

    def _turn(self, state: PodState) -> None:
        if self.sharing.is_due(state):
            self._read(state)
        else:
            self._blocked[state] = None

    def _wake(self, state: PodState, page: Page) -> None:
        if page == "models":
            self.list_wakes += 1
        elif state in self._blocked:
            del self._blocked[state]
            self.clock.call_later(0.0, lambda: self._turn(state))

    def _tick(self) -> None:
        if self.alive:
            self.sharing.tick()
            self.clock.call_later(TICK_SECONDS, self._tick)

    def read_list(self, state: PodState, *adapters: str) -> None:
        reading = Reading(state, self.clock.now(), list_of(*(adapters or ("a", "b", "c"))))
        self.intake.put(reading)
        self.sharing.read(reading)

    # The network

    def _tell(self, reading: Reading) -> None:
        self.told += 1
        if self.mute:
            return
        found = reading.found
        if self.lie is not None and isinstance(found, PodMetrics):
            reading = Reading(reading.state, reading.read_at, self.lie(found))
        for other in self.world.routers:
            if other is not self:
                other.hear_later(self.name, reading, self.interval)

    def _tell_presence(self) -> None:
        for other in self.world.routers:
            if other is not self and not self.mute:
                other.hear_of_later(self.name, self.interval)

    def hear_of_later(self, name: str, interval: float) -> None:
        self.clock.call_later(DELAY, lambda: self._hear_of(name, interval))

    def _hear_of(self, name: str, interval: float) -> None:
        self.sharing.heard(name, interval)

    def hear_later(self, name: str, reading: Reading, interval: float) -> None:
        self.clock.call_later(DELAY, lambda: self.hear(name, reading, interval))

    def hear(self, name: str, reading: Reading, interval: float = INTERVAL) -> None:
        state = self.fleet.get(reading.state.pod.name)
        if not self.alive or state is None or not self.sharing.heard(name, interval):
            return
        is_failure = isinstance(reading.found, ReadFailure)
        if is_failure or self.sharing.wants(name, state, reading.page, reading.read_at):
            self.sharing.receive(name, Reading(state, reading.read_at, reading.found))


def list_of(*adapters: str) -> Catalog:
    return Catalog.of([ServedModel("base"), *(ServedModel(name, "base") for name in adapters)])
