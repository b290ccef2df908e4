"""What one change costs while requests are held: a release, a scrape, a pod event.

The fleet is full: every slot of every pod has an adapter with requests in flight. Each held request
asks for another adapter, so that no two of them wait for the same thing, and waits for a slot with
``lora-placement``. Time is simulated. After six seconds a held request has a slot closed for it, so
each point is measured before and after that time.

Figures are CPU µs, the median of some rounds. They include the work that the router defers to the
next iterations of the event loop.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import cycle, islice

from bench.fleets import pod
from bench.plan import DEFAULT_ALGORITHM
from bench.workload import BASE, adapters
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_metrics import LoraActivity, PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.director import Director
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.overload import Overload
from lora_router.routing.refusal import Refused
from lora_router.routing.registry import load_algorithms
from lora_router.routing.roll import Limits
from lora_router.simulator.events import EventQueue

SLOTS = 4
POINTS = ((0, 32), (500, 32), (872, 32), (5_000, 32), (0, 200), (500, 200), (5_000, 200))
"""Held requests, and pods."""
QUICK_POINTS = ((0, 32), (872, 32))
PATIENCE_SECONDS = 7.0
"""Time that passes before the second half of the figures."""
NO_SLOT, A_SLOT = "release, no slot freed", "release, a slot freed"
SCRAPE, POD_EVENT = "scrape", "pod event"
TIMER = "longest timer in these 7 s"
LATER = ", held for 7 s"
_JOINED = 8
"""Requests of each running adapter beside its first one."""
_SPARE_NAMES = 5_000
"""Adapters for requests that take the place of held ones that were routed."""
_LARGEST_BATCH = 32
"""Calls that are timed together."""
_SHORTEST_BATCH_SECONDS = 0.002
_LONGEST_SECONDS = 3.0
"""CPU time for one figure. A call that takes longer is measured once."""


class _NoTelemetry:
    """Observes decisions and does nothing."""

    def decided(self, _algorithm: str, _outcome: str, _reason: str, _seconds: float) -> None:
        """Do nothing."""


class FullFleet:
    """A fleet without a free slot, and requests that are held for one.

    Args:
        pods: Pods of the fleet.
        held: Requests that are held.
        joined: Requests of each running adapter beside its first one.
    """

    def __init__(self, pods: int, held: int, joined: int = 0) -> None:
        self.fleet = Fleet()
        self.clock = EventQueue()
        self.director = Director(
            self.fleet,
            load_algorithms(AlgorithmOptions(metrics_max_age=1e9)),
            DEFAULT_ALGORITHM,
            self.clock,
            _NoTelemetry(),
            max_hold_seconds=1e6,
            limits=Limits(requests=1_000_000, requests_per_model=1_000_000),
            overload=Overload(sheds=False),
        )
        self._slots = pods * SLOTS
        self._held = held
        self._first: deque[Routed] = deque()
        """The first request of each running adapter."""
        self._joined: deque[Routed] = deque()
        names = adapters(self._slots + held + _SPARE_NAMES)
        self._names = iter(names)
        self.fleet.replace(pod(number, None) for number in range(pods))
        served = [ServedModel(BASE), *(ServedModel(name, BASE) for name in names)]
        for state in self.fleet:
            self.fleet.put_models(state, served)
            self._scrape(state)
        running = list(islice(self._names, self._slots))
        for name in running:
            self._ask(name, self._first)
        for name in running * joined:
            self._ask(name, self._joined)
        for state in self.fleet:
            self._scrape(state)
        if self.director.held:
            raise RuntimeError("a request was held before the fleet was full")
        self.refill()
        self._states = cycle(tuple(self.fleet))
        self._events = cycle([pod(pods, ("other",), ready=ready) for ready in (True, False)])

    def refill(self) -> None:
        """Have as many requests held as at the start, and no slot free."""
        while self.director.held < self._held:
            self._ask(next(self._names), self._first)
        while not self._held and len(self._first) < self._slots:
            self._ask(next(self._names), self._first)

    def settle(self) -> None:
        """Run what is due now: work that was deferred."""
        self.clock.run(lambda: self.clock.next_at > self.clock.time)

    def let_pass(self, seconds: float) -> float:
        """Move the clock; return the CPU time of the timer that took longest."""
        until = self.clock.time + seconds
        longest, since = 0.0, time.process_time()

        def passed() -> bool:
            nonlocal longest, since
            now = time.process_time()
            longest, since = max(longest, now - since), now
            return self.clock.time >= until

        self.clock.call_at(until, lambda: None)
        self.clock.run(passed)
        return longest

    def release_no_slot(self) -> None:
        """End a request whose adapter has other requests in flight on its pod."""
        self._joined.popleft().reservation.release()
        self.settle()

    def release_a_slot(self) -> None:
        """End the only request of an adapter."""
        self._first.popleft().reservation.release()
        self.settle()

    def scrape(self) -> None:
        """Store a snapshot of the next pod, which shows what this router sent there."""
        self._scrape(next(self._states))
        self.settle()

    def pod_event(self) -> None:
        """Learn that a pod that serves another model is ready, or is not ready any more."""
        self.fleet.update((next(self._events),))
        self.settle()

    def _scrape(self, state: PodState) -> None:
        now = self.clock.time
        running = frozenset(state.beliefs.expected)
        lora = LoraActivity(SLOTS, running, running, now)
        self.fleet.put_metrics(state, PodMetrics(scraped_at=now, running=4.0, lora=lora))

    def _ask(self, name: str, into: deque[Routed]) -> None:
        def decided(outcome: Routed | Refused) -> None:
            if isinstance(outcome, Refused):
                raise RuntimeError(f"a request was refused: {outcome}")
            into.append(outcome)

        outcome = self.director.route(RouteQuery(name), decided)
        if isinstance(outcome, Routed | Refused):
            decided(outcome)


def measure(points: Sequence[tuple[int, int]], rounds: int) -> dict[str, float]:
    """Measure all changes at all points; µs by what it is, as ``row_name`` spells it."""
    rows: dict[str, float] = {}
    for held, pods in points:
        joined, alone = FullFleet(pods, held, _JOINED), FullFleet(pods, held)
        for after in ("", LATER):
            if after:
                joined.let_pass(PATIENCE_SECONDS)
                longest = 1e6 * alone.let_pass(PATIENCE_SECONDS)
                rows[row_name(TIMER, held, pods)] = longest
            for what, call, prepare in (
                (NO_SLOT, joined.release_no_slot, _nothing),
                (A_SLOT, alone.release_a_slot, alone.refill),
                (SCRAPE, joined.scrape, _nothing),
                (POD_EVENT, alone.pod_event, _nothing),
            ):
                name = row_name(what + after, held, pods)
                rows[name] = _microseconds(call, rounds, prepare)
    return rows


def row_name(what: str, held: int, pods: int) -> str:
    """Return the name of a figure."""
    return f"{what}, {held:,} held on {pods} pods"


def _microseconds(call: Callable[[], object], rounds: int, prepare: Callable[[], object]) -> float:
    """Return CPU µs for each call. What prepares a batch of calls does not count."""
    batch = 1
    spent = 0.0
    found: list[float] = []
    while len(found) < rounds and spent < _LONGEST_SECONDS:
        prepare()
        started = time.process_time()
        for _ in range(batch):
            call()
        taken = time.process_time() - started
        spent += taken
        if taken < _SHORTEST_BATCH_SECONDS and batch < _LARGEST_BATCH:
            batch *= 2
            continue
        found.append(1e6 * taken / batch)
    return statistics.median(found)


def _nothing() -> None:
    return


def main() -> None:
    """Measure and print as it goes."""
    for point in POINTS:
        for name, value in measure([point], 9).items():
            print(f"{name:60} {value:12.1f} µs", flush=True)


if __name__ == "__main__":
    main()
