"""A simulated fleet that an autoscaler makes larger and smaller.

The autoscaler follows the signal that routers that serve export (``telemetry.lacking_slots``): the
largest value of all routers, read at the interval of Prometheus. A pod that starts takes requests
after its startup time, with nothing in host memory. The pod that started last is the first to go.
It gets no new requests, finishes those that it has, and leaves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from lora_router.simulator.pod_autoscaler import AutoscalerOptions, PodAutoscaler
from lora_router.simulator.router_model import RouterModel

_DRAIN_LOOK_SECONDS = 0.5
"""How often a pod that drains is asked whether its requests have ended."""
_STARTS_AT = 1.0
"""Seconds until the first read of the metric. Pods have been scraped by then."""


class ScaledFleet(Protocol):
    """What the scaling does with a fleet."""

    @property
    def time(self) -> float:
        """Seconds from the start."""

    @property
    def held(self) -> int:
        """Requests that are held in a router."""

    @property
    def routers(self) -> Sequence[RouterModel]:
        """The routers."""

    def call_at(self, time: float, call: Callable[[], None]) -> None:
        """Schedule a call."""

    def load_of(self, number: int) -> int:
        """Return the requests on a pod."""

    def add_pod(self) -> int:
        """Add a pod that takes requests; return its number."""

    def drain_pod(self, number: int) -> None:
        """Give a pod no further requests."""

    def remove_pod(self, number: int) -> None:
        """Remove a pod that has no requests."""


@dataclass(frozen=True, slots=True)
class FleetMoment:
    """The fleet when its metric was read."""

    time: float
    ready: int
    """Pods that take requests."""
    starting: int
    draining: int
    wanted: int
    """Slots wanted, according to the signal."""
    lacking: int
    held: int
    """Requests that are held."""
    requests: int
    """Requests that are held, or on pods that take further ones."""


class FleetScaling:
    """Scales a fleet from its start to its end, and records how."""

    def __init__(self, fleet: ScaledFleet, options: AutoscalerOptions, pods: int) -> None:
        """Create it, before the fleet runs.

        Args:
            fleet: The fleet.
            options: The autoscaler.
            pods: The number of pods at the start.
        """
        self.moments: list[FleetMoment] = []
        self._fleet = fleet
        self._options = options
        self._autoscaler = PodAutoscaler(options)
        self._ready = list(range(pods))
        """Numbers of the pods that take requests, in the order of their starts."""
        self._starting = 0
        self._cancelled = 0
        """Pods that start and are not wanted any more."""
        self._draining = 0
        fleet.call_at(_STARTS_AT, self._read)
        fleet.call_at(_STARTS_AT + options.sync_seconds, self._sync)

    def _read(self) -> None:
        """Read the metric, as Prometheus does."""
        fleet = self._fleet
        slots = [found for router in fleet.routers for found in router.slots().values()]
        self.moments.append(
            FleetMoment(
                fleet.time,
                len(self._ready),
                self._starting,
                self._draining,
                max((each.wanted for each in slots), default=0),
                max((each.lacking for each in slots), default=0),
                fleet.held,
                fleet.held + sum(fleet.load_of(number) for number in self._ready),
            )
        )
        fleet.call_at(fleet.time + self._options.metric_seconds, self._read)

    def _sync(self) -> None:
        """Decide, as the controller does."""
        fleet = self._fleet
        current = len(self._ready) + self._starting
        pods = self._autoscaler.pods(
            fleet.time,
            current,
            self._average(lambda moment: moment.wanted),
            self._average(lambda moment: moment.requests),
        )
        for _ in range(current, pods):
            self._starting += 1
            fleet.call_at(fleet.time + self._options.startup_seconds, self._started)
        for _ in range(pods, current):
            self._remove_one()
        fleet.call_at(fleet.time + self._options.sync_seconds, self._sync)

    def _average(self, value: Callable[[FleetMoment], int]) -> float:
        """Return the average of a value over the window of the metric."""
        last = self.moments[-1]
        since = last.time - self._options.average_seconds
        found = [
            value(each)
            for each in takewhile(lambda each: each.time >= since, reversed(self.moments))
        ]
        return sum(found) / len(found)

    def _started(self) -> None:
        if self._cancelled:
            self._cancelled -= 1
            return
        self._starting -= 1
        self._ready.append(self._fleet.add_pod())

    def _remove_one(self) -> None:
        """Remove a pod: one that is not ready if there is one, else the one that started last."""
        if self._starting:
            self._starting -= 1
            self._cancelled += 1
            return
        number = self._ready.pop()
        self._draining += 1
        self._fleet.drain_pod(number)
        self._look_whether_drained(number)

    def _look_whether_drained(self, number: int) -> None:
        fleet = self._fleet
        if fleet.load_of(number):
            again = fleet.time + _DRAIN_LOOK_SECONDS
            fleet.call_at(again, lambda: self._look_whether_drained(number))
            return
        self._draining -= 1
        fleet.remove_pod(number)
