"""A vLLM pod for long simulations: the behaviour of ``engine``, in a few events per request.

While no request joins or leaves a batch, all its steps take the same time. So there is nothing to
do until the next request ends, arrives, or gets its first token: the steps in between are counted
but not simulated. The rules are those of ``engine`` (slots, deferral, loads, listed adapters), and
a test compares the two. In addition the KV cache can be full: a request whose prompt and answer do
not fit waits, and so do the requests behind it.
"""

import heapq
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lora_router.fleet.pod_metrics import LoraActivity, LoraResidency, PodMetrics
from lora_router.simulator.adapter_slots import AdapterSlots
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.events import EventQueue, SimulatedTimer
from lora_router.simulator.simulated_request import SimulatedRequest

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class PodCounts:
    """What happened on a pod since its start."""

    loads: int
    evictions: int
    deferred: int
    """Requests that waited for a slot."""
    routed: int


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
        self.waiting: list[SimulatedRequest] = []
        self.slots = AdapterSlots(options)
        self.listed: dict[str, int] = {}
        self._events = events
        self._on_end = on_end
        self._on_first_token = on_first_token
        self._routed = 0
        self._deferred = 0
        self._running: dict[SimulatedRequest, None] = {}
        """In order of admission, so that an outage loses them in the same order in every run."""
        self._ends: list[tuple[int, int, SimulatedRequest]] = []
        """When requests of the batch end, in steps. A sequence number makes the order unique."""
        self._fresh: list[SimulatedRequest] = []
        """Requests of the batch whose first step is running."""
        self._loading: list[tuple[float, int, SimulatedRequest]] = []
        """Requests of the batch whose adapter is being loaded (if loads do not block), by the time
        at which the load ends."""
        self._sequence = 0
        self._kv_tokens = 0
        self._steps = 0
        """Steps until ``_since``."""
        self._since = 0.0
        self._step_seconds = 0.0
        self._planned = 0
        """Steps until the next event."""
        self._timer: SimulatedTimer | None = None

    def preload(self, adapters: Iterable[str]) -> None:
        """Put adapters into host memory before the start. They must fit."""
        self.slots.preload(adapters)

    # What routers and scrapers see

    def submit(self, request: SimulatedRequest) -> None:
        """Queue a request."""
        self._routed += 1
        request.pod = self.name
        self.waiting.append(request)
        if self._timer is None:
            self._begin(self._events.time)
        elif self._may_join(request):
            self._stop_at_the_end_of_the_step()

    def metrics(self, *, tells_residency: bool = False) -> PodMetrics:
        """Return the snapshot that a scrape at this moment results in."""
        names = frozenset(self.listed)
        gpu = frozenset(self.slots.resident)
        return PodMetrics(
            scraped_at=self._events.time,
            running=len(self._running),
            waiting=len(self.waiting),
            kv_cache_usage=min(1.0, self._kv_tokens / self.options.kv_cache_tokens),
            deferred=self.deferred,
            lora=LoraActivity(self.options.max_loras, names, names, self._events.time),
            residency=(
                LoraResidency(gpu, frozenset(self.slots.host_memory) - gpu, self.options.max_loras)
                if tells_residency
                else None
            ),
        )

    @property
    def counts(self) -> PodCounts:
        """What happened here so far."""
        return PodCounts(self.slots.loads, self.slots.evictions, self._deferred, self._routed)

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
        return len(self._running) + len(self.waiting)

    def stop(self) -> list[SimulatedRequest]:
        """Stop the pod; return the requests that were on it."""
        if self._timer is not None:
            self._timer.cancel()
        return [*self._running, *self.waiting]

    # Time

    def _begin(self, now: float) -> None:
        """At a step's boundary: admit requests and plan until the next event."""
        load_seconds = self._schedule(now)
        options = self.options
        batch = len(self._ends)
        if not batch:
            if self._loading:
                self._plan(now, 1, max(self._loading[0][0] - now, options.step_seconds))
            else:
                self._timer = None
            return
        seconds = options.step_seconds + options.step_seconds_per_request * batch
        if self._fresh:
            prompt = sum(request.prompt_tokens for request in self._fresh)
            seconds += options.prefill_seconds_per_token * prompt + load_seconds
            steps = 1
        else:
            steps = self._ends[0][0] - self._steps
        if self._loading:
            steps = min(steps, max(1, math.ceil((self._loading[0][0] - now) / seconds)))
        self._plan(now, steps, seconds)

    def _plan(self, now: float, steps: int, seconds: float) -> None:
        self._since = now
        self._step_seconds = seconds
        self._planned = steps
        self._timer = self._events.call_at(now + steps * seconds, self._boundary)

    def _stop_at_the_end_of_the_step(self) -> None:
        """Shorten the plan so that it ends with the step that is running."""
        into = (self._events.time - self._since) / self._step_seconds
        steps = max(1, math.ceil(into - _ROUNDING))
        if steps < self._planned and self._timer is not None:
            self._timer.cancel()
            self._plan(self._since, steps, self._step_seconds)

    def _boundary(self) -> None:
        now = self._events.time
        if self._ends:
            self._steps += self._planned
        fresh, self._fresh = self._fresh, []
        for request in fresh:
            if request.first_token < 0:
                request.first_token = now
                self._on_first_token(request)
            if request.adapter is not None:
                self.listed[request.adapter] = self.listed.get(request.adapter, 0) + 1
        ended = []
        while self._ends and self._ends[0][0] <= self._steps:
            request = heapq.heappop(self._ends)[2]
            self._leave(request)
            ended.append(request)
        while self._loading and self._loading[0][0] <= now + _ROUNDING:
            self._join(heapq.heappop(self._loading)[2])
        self._begin(now)
        for request in ended:
            request.ended = now
            self._on_end(request)

    # The batch

    def _may_join(self, request: SimulatedRequest) -> bool:
        """Return whether the request could join the batch at the end of this step."""
        return (
            self.slots.has_room_for(request.adapter)
            and len(self._running) < self.options.max_num_seqs
            and self._kv_tokens + request.kv_tokens <= self.options.kv_cache_tokens
        )

    def _schedule(self, now: float) -> float:
        if not self.waiting:
            return 0.0
        options = self.options
        load_seconds = 0.0
        left: list[SimulatedRequest] = []
        full = False
        for request in self.waiting:
            full = (
                full
                or len(self._running) >= options.max_num_seqs
                # A request that never fits is admitted alone. Otherwise it would wait for ever.
                or bool(
                    self._running and self._kv_tokens + request.kv_tokens > options.kv_cache_tokens
                )
            )
            if full:
                left.append(request)
            elif not self.slots.has_room_for(request.adapter):
                if not request.deferred:
                    request.deferred = True
                    self._deferred += 1
                left.append(request)
            else:
                load_seconds += self._admit(request, now)
        self.waiting = left
        return load_seconds

    def _admit(self, request: SimulatedRequest, now: float) -> float:
        self._running[request] = None
        self._kv_tokens += request.kv_tokens
        seconds = 0.0
        adapter = request.adapter
        if adapter is not None:
            seconds = self.slots.take(adapter, now)
            if not self.options.loads_block:
                usable_at = self.slots.usable_at(adapter)
                if usable_at > now + _ROUNDING:
                    self._sequence += 1
                    heapq.heappush(self._loading, (usable_at, self._sequence, request))
                    return 0.0
                seconds = 0.0
        self._join(request)
        return seconds

    def _join(self, request: SimulatedRequest) -> None:
        self._sequence += 1
        end = self._steps + max(1, request.output_tokens)
        heapq.heappush(self._ends, (end, self._sequence, request))
        self._fresh.append(request)

    def _leave(self, request: SimulatedRequest) -> None:
        del self._running[request]
        self._kv_tokens -= request.kv_tokens
        adapter = request.adapter
        if adapter is None:
            return
        self.slots.leave(adapter)
        left = self.listed[adapter] - 1
        if left:
            self.listed[adapter] = left
        else:
            del self.listed[adapter]
