"""Pods, fleets, and clocks for tests: plain objects that one line creates."""

import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.lora_spec import LoraSpec
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_metrics import LoraActivity, PodMetrics
from lora_router.fleet.pod_state import PodState


def make_pod(number: int, **changes: object) -> Pod:
    """Return the pod ``pod-N`` with the address ``10.0.0.N:8000``."""
    address = f"10.0.0.{number}:8000"
    values: dict[str, object] = {
        "name": f"pod-{number}",
        "address": address,
        "metrics_url": f"http://{address}/metrics",
        "models_url": f"http://{address}/v1/models",
    }
    return Pod(**(values | changes))  # type: ignore[arg-type]


def make_fleet(
    pods: int = 2,
    *,
    adapters: Iterable[str] = ("sql-lora",),
    outliers: Outliers | None = None,
    host_memory: int | None = None,
) -> Fleet:
    """Return a fleet of pods that all serve ``base`` and the adapters.

    ``host_memory``: how many adapters fit in a pod's host memory. ``None``: unknown.
    """
    fleet = Fleet(outliers=outliers)
    spec = LoraSpec(host_memory=host_memory)
    fleet.replace(make_pod(number, lora=spec) for number in range(1, pods + 1))
    models = [ServedModel("base"), *(ServedModel(name, "base") for name in adapters)]
    for state in fleet:
        fleet.put_models(state, models)
    return fleet


def state_of(fleet: Fleet, number: int) -> PodState:
    """Return the fleet's record of ``pod-N``."""
    state = fleet.get(f"pod-{number}")
    assert state is not None
    return state


def make_metrics(
    running: Iterable[str] = (),
    waiting: Iterable[str] | None = None,
    *,
    max_lora: int | None = 4,
    scraped_at: float = 0.0,
) -> PodMetrics:
    """Return a snapshot with ``running`` in both labels, as vLLM reports it."""
    names = frozenset(running)
    lora = LoraActivity(
        max_lora=max_lora,
        running=names,
        waiting=names if waiting is None else frozenset(waiting),
        updated_at=1.7e9,
    )
    return PodMetrics(scraped_at=scraped_at, running=1.0, waiting=0.0, lora=lora)


@dataclass
class Decisions:
    """A ``DecisionObserver`` that records decisions."""

    seen: list[tuple[str, str, str]] = field(default_factory=list)

    def decided(self, algorithm: str, outcome: str, reason: str, seconds: float) -> None:
        assert seconds >= 0
        self.seen.append((algorithm, outcome, reason))


class ManualClock:
    """A clock that advances only when the test advances it."""

    def __init__(self) -> None:
        self.time = 100.0
        self._due: list[tuple[float, int, ManualTimer]] = []
        self._count = itertools.count()

    def now(self) -> float:
        return self.time

    def call_later(self, seconds: float, call: Callable[[], None]) -> "ManualTimer":
        timer = ManualTimer(call)
        heapq.heappush(self._due, (self.time + seconds, next(self._count), timer))
        return timer

    def advance_to_next(self, within: float) -> None:
        """Advance to the next scheduled call and run it, and no other."""
        at, _, timer = heapq.heappop(self._due)
        assert at <= self.time + within
        self.time = at
        if not timer.cancelled:
            timer.call()

    def advance(self, seconds: float) -> None:
        until = self.time + seconds
        while self._due and self._due[0][0] <= until:
            self.time, _, timer = heapq.heappop(self._due)
            if not timer.cancelled:
                timer.call()
        self.time = until

    def stall(self, seconds: float) -> None:
        """Advance, and make the calls that were due meanwhile only then."""
        self.time += seconds
        while self._due and self._due[0][0] <= self.time:
            _, _, timer = heapq.heappop(self._due)
            if not timer.cancelled:
                timer.call()


@dataclass
class ManualTimer:
    """A timer of ``ManualClock``."""

    call: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True
