"""A vLLM pod for long simulations: the behaviour of ``engine``, in a few events per request.

While no request joins or leaves a batch, all its steps take the same time. So there is nothing to
do until the next request ends, arrives, or gets its first token: the steps in between are counted
but not simulated. The rules are those of ``engine`` (slots, deferral, loads, listed adapters), and
a test compares the two. ``pod_batch`` has the rules; this module has the clock.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lora_router.fleet.pod_metrics import LoraActivity, LoraResidency, PodMetrics
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.events import EventQueue, SimulatedTimer
from lora_router.simulator.pod_batch import ENDLESS, ROUNDING, PodBatch
from lora_router.simulator.simulated_request import SimulatedRequest


@dataclass(frozen=True, slots=True)
class PodCounts:
    """What happened on a pod since its start."""

    loads: int
    evictions: int
    deferred: int
    """Requests that waited for a slot."""
    routed: int
    preemptions: int = 0
    """How often a request lost its place because the KV cache was full."""

    def plus(self, other: "PodCounts") -> "PodCounts":
        """Return the sums of both."""
        return PodCounts(
            self.loads + other.loads,
            self.evictions + other.evictions,
            self.deferred + other.deferred,
            self.routed + other.routed,
            self.preemptions + other.preemptions,
        )


def _nobody_asks(_request: SimulatedRequest) -> None:
    """Do nothing."""


class PodModel:
    """One pod."""

    def __init__(
        self,
        name: str,
        options: EngineOptions,
        events: EventQueue,
        on_end: Callable[[SimulatedRequest], None],
        on_first_token: Callable[[SimulatedRequest], None] = _nobody_asks,
    ) -> None:
        self.name = name
        self.options = options
        self.listed: dict[str, int] = {}
        self._batch = batch = PodBatch(options)
        self.slots = batch.slots
        self.kv_cache = batch.kv_cache
        self._events = events
        self._on_end = on_end
        self._on_first_token = on_first_token
        self._routed = 0
        self._since = 0.0
        self._step_seconds = 0.0
        self._planned = 0
        """Steps from ``_since`` until the next event."""
        self._timer: SimulatedTimer | None = None
        self._calls: deque[tuple[str, Callable[[], None]]] = deque()
        """Adapters to load by calls, and what to call when they are loaded."""

    def preload(self, adapters: Iterable[str]) -> None:
        """Put adapters into host memory before the start. They must fit."""
        self.slots.preload(adapters)

    def load_adapter(self, adapter: str, on_done: Callable[[], None]) -> None:
        """Load an adapter by a call, as between two steps of vLLM's engine."""
        self._calls.append((adapter, on_done))
        if self._timer is None:
            self._begin(self._events.time)
        else:
            self._stop_at_the_end_of_the_step()

    def unload_adapter(self, adapter: str) -> None:
        """Unload an adapter by a call."""
        self.slots.unload(adapter)

    # What routers and scrapers see

    def submit(self, request: SimulatedRequest) -> None:
        """Queue a request."""
        self._routed += 1
        request.pod = self.name
        self.waiting.append(request)
        if self._timer is None:
            self._begin(self._events.time)
        elif self._batch.may_join(request):
            self._stop_at_the_end_of_the_step()

    def metrics(self, *, tells_residency: bool = False) -> PodMetrics:
        """Return the snapshot that a scrape at this moment results in."""
        names = frozenset(self.listed)
        gpu = frozenset(self.slots.resident)
        return PodMetrics(
            scraped_at=self._events.time,
            running=len(self._batch.running),
            waiting=len(self.waiting),
            kv_cache_usage=self.kv_cache_usage,
            cache_tokens=float(self.options.kv_cache_tokens)
            if self.options.prefix_caching
            else 0.0,
            deferred=self.deferred,
            generated_tokens=float(self._batch.generated_after(self._steps_ended)),
            lora=LoraActivity(self.options.max_loras, names, names, self._events.time),
            residency=(
                LoraResidency(gpu, frozenset(self.slots.host_memory) - gpu, self.options.max_loras)
                if tells_residency
                else None
            ),
        )

    @property
    def waiting(self) -> list[SimulatedRequest]:
        """Requests that are not in the batch, in their order."""
        return self._batch.waiting

    @property
    def kv_cache_usage(self) -> float:
        """Share of the KV cache that requests hold now."""
        return self._batch.usage(min(self._steps_ended, self._planned - 1))

    @property
    def _steps_ended(self) -> int:
        """How many of the planned steps have ended."""
        if self._timer is None:
            return 0
        return int((self._events.time - self._since) / self._step_seconds + ROUNDING)

    @property
    def counts(self) -> PodCounts:
        """What happened here so far."""
        batch, slots = self._batch, self.slots
        return PodCounts(
            slots.loads, slots.evictions, batch.deferred, self._routed, batch.preemptions
        )

    @property
    def deferred(self) -> int:
        """Requests that wait for a slot."""
        return sum(not self.slots.has_room_for(request.adapter) for request in self.waiting)

    @property
    def free_slots(self) -> int:
        """Slots without a running request."""
        return self.slots.free

    @property
    def load(self) -> int:
        """Requests on the pod."""
        return len(self._batch.running) + len(self.waiting)

    def stop(self) -> list[SimulatedRequest]:
        """Stop the pod; return the requests that were on it."""
        if self._timer is not None:
            self._timer.cancel()
        return [*self._batch.running, *self.waiting]

    # Time

    def _begin(self, now: float) -> None:
        """At a step's boundary: admit requests and plan until the next event."""
        batch = self._batch
        if self._calls and self._load(now):
            return
        step = batch.begin_step(now)
        loading = batch.loading
        if step is None and not loading:
            self._timer = None
            return
        # While all requests wait for loads, there are empty steps. Another request may join.
        options = self.options
        seconds, steps = step or (
            options.step_seconds + options.step_seconds_per_request,
            ENDLESS,
        )
        if loading:
            steps = min(steps, max(1, math.ceil((loading[0][0] - now) / seconds)))
        self._plan(now, steps, seconds)

    def _load(self, now: float) -> bool:
        """Do what calls ask for. Return whether the engine does nothing else meanwhile."""
        adapter, on_done = self._calls.popleft()
        seconds = self.slots.load(adapter, now)
        if not self.options.loads_block:
            self._events.call_later(seconds, on_done)
            return False
        self._since, self._planned = now, 1
        self._step_seconds = max(seconds, ROUNDING)

        def ended() -> None:
            self._begin(self._events.time)
            on_done()

        self._timer = self._events.call_at(now + seconds, ended)
        return True

    def _plan(self, now: float, steps: int, seconds: float) -> None:
        self._since = now
        self._step_seconds = seconds
        self._planned = steps
        self._timer = self._events.call_at(now + steps * seconds, self._boundary)

    def _stop_at_the_end_of_the_step(self) -> None:
        """Shorten the plan so that it ends with the step that is running."""
        into = (self._events.time - self._since) / self._step_seconds
        steps = max(1, math.ceil(into - ROUNDING))
        if steps < self._planned and self._timer is not None:
            self._timer.cancel()
            self._plan(self._since, steps, self._step_seconds)

    def _boundary(self) -> None:
        now = self._events.time
        batch = self._batch
        begun, ended = batch.end_steps(self._planned)
        for seat in begun:
            request = seat.request
            if request.first_token < 0:
                request.first_token = now
                self._on_first_token(request)
                if request.adapter is not None:
                    self.listed[request.adapter] = self.listed.get(request.adapter, 0) + 1
        for seat in ended:
            batch.leave(seat)
            self._unlist(seat.request.adapter)
        batch.load_ended(now)
        self._begin(now)
        for seat in ended:
            seat.request.ended = now
            self._on_end(seat.request)

    def _unlist(self, adapter: str | None) -> None:
        if adapter is None:
            return
        left = self.listed[adapter] - 1
        if left:
            self.listed[adapter] = left
        else:
            del self.listed[adapter]
