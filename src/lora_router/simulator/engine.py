"""A model of one vLLM engine: batch, queue, and adapter slots. It has no I/O and no clock.

It reproduces what was measured on vLLM 0.32.0 with LoRA:

- At most ``max_loras`` distinct adapters are in the batch. The scheduler skips (*defers*) a waiting
  request whose adapter has no slot, and continues with the requests behind it. This starves rare
  adapters.
- A slot is free only when every request of its adapter has ended. The adapter stays resident until
  another adapter needs the slot; the least recently used adapter is evicted first. It also stays in
  host memory, which is evicted in the same order.
- One step gives one token to every running request. The whole batch takes the same step.
- An adapter is *listed* from its first token, not from its request. It is no longer listed as soon
  as its last request ends.

The owner drives the engine: ``begin_step`` schedules and returns how long the step takes,
``end_step`` returns which requests got a token. Requests submitted or aborted in between take
effect at the next step.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from lora_router.simulator.engine_options import EngineOptions


@dataclass(slots=True, eq=False)
class EngineRequest:
    """A request in the engine. Two requests are never equal, even with the same ``id``."""

    adapter: str | None
    """``None``: the base model."""
    prompt_tokens: int
    output_tokens: int
    arrived: float
    """In seconds of the owner's clock."""
    id: str = ""
    """The owner's name for it. The engine does not use it."""
    generated: int = 0
    """Tokens generated so far."""
    deferred: bool = False
    """Whether it waits now because its adapter has no slot."""
    waited_for_slot: bool = False
    """Whether it ever waited for that reason."""

    @property
    def finished(self) -> bool:
        """Whether all tokens were generated."""
        return self.generated >= self.output_tokens


@dataclass(frozen=True, slots=True)
class Step:
    """A step under way."""

    seconds: float
    scheduled: tuple[EngineRequest, ...]
    """The requests that get a token at the end of the step. Empty if only an abort took effect, or
    if all running requests wait for the loads of their adapters."""


class Engine:
    """The engine. Its attributes are for reading; change it through its methods."""

    def __init__(self, options: EngineOptions | None = None) -> None:
        self.options = options or EngineOptions()
        self.waiting: list[EngineRequest] = []
        """In order of arrival."""
        self.running: list[EngineRequest] = []
        self.slots: OrderedDict[str, int] = OrderedDict()
        """Resident adapters, least recently used first, with their running requests."""
        self.host_cache: OrderedDict[str, None] = OrderedDict()
        """Adapters in host memory, least recently used first."""
        self.listed: dict[str, int] = {}
        """Adapters with a request that has had its first token and has not ended, in the order in
        which ``lora_requests_info`` names them."""
        self.loads = 0
        """Adapters loaded into a slot since the start."""
        self.slot_waits = 0
        """Requests that waited for a slot since the start."""
        self.steps = 0
        self.step: Step | None = None
        self._aborted: set[EngineRequest] = set()
        self._loaded_at: dict[str, float] = {}
        """When the load of a resident adapter is complete. Used only if loads do not block."""

    # What the owner calls

    def submit(self, request: EngineRequest) -> None:
        """Queue a request. The next step may schedule it."""
        self.waiting.append(request)

    def abort(self, request: EngineRequest) -> None:
        """Drop a request at the next step. Has no effect if the request has ended by then."""
        self._aborted.add(request)

    def preload(self, adapters: Iterable[str]) -> None:
        """Put adapters into host memory, as if they had been used before."""
        for adapter in adapters:
            self._keep_in_host_memory(adapter)

    def begin_step(self, now: float) -> Step | None:
        """Schedule requests and begin a step. Returns ``None`` if there is nothing to do."""
        dropped = self._drop_aborted()
        load_seconds = self._schedule(now)
        # After an abort vLLM runs one more, empty step, which brings its metrics up to date.
        if not self.running and not dropped:
            return None
        options = self.options
        batch = tuple(self.running) if options.loads_block else self._loaded(now)
        prefill = sum(request.prompt_tokens for request in batch if not request.generated)
        seconds = (
            options.step_seconds
            + options.step_seconds_per_request * max(1, len(batch))
            + options.prefill_seconds_per_token * prefill
            + (load_seconds if options.loads_block else 0.0)
        )
        self.step = Step(seconds, batch)
        return self.step

    def end_step(self) -> tuple[EngineRequest, ...]:
        """End the step; return the requests that got a token.

        ``generated == 1`` marks a first token, ``finished`` a last one.
        """
        step, self.step = self.step, None
        if step is None:
            return ()
        self.steps += 1
        for request in step.scheduled:
            request.generated += 1
            if request.generated == 1 and request.adapter is not None:
                self.listed[request.adapter] = self.listed.get(request.adapter, 0) + 1
            if request.finished:
                self._leave(request)
        return step.scheduled

    # What metrics report

    @property
    def active(self) -> set[str]:
        """Adapters with a request in the batch."""
        return {adapter for adapter, running in self.slots.items() if running}

    @property
    def deferred(self) -> int:
        """Waiting requests that the last step skipped because of the slot limit."""
        return sum(request.deferred for request in self.waiting)

    @property
    def kv_cache_usage(self) -> float:
        """Share of the KV cache in use, in [0, 1]."""
        tokens = sum(request.prompt_tokens + request.generated for request in self.running)
        return min(1.0, tokens / self.options.kv_cache_tokens)

    # Scheduling

    def _schedule(self, now: float) -> float:
        """Move requests from the queue into the batch; return the seconds that loads take."""
        load_seconds = 0.0
        left: list[EngineRequest] = []
        active = self.active
        for request in self.waiting:
            adapter = request.adapter
            request.deferred = False
            if len(self.running) >= self.options.max_num_seqs:
                left.append(request)
                continue
            if adapter is not None:
                if adapter not in active and len(active) >= self.options.max_loras:
                    self._defer(request)
                    left.append(request)
                    continue
                active.add(adapter)
                load_seconds += self._take_slot(adapter, now)
            self.running.append(request)
        self.waiting = left
        return load_seconds

    def _defer(self, request: EngineRequest) -> None:
        request.deferred = True
        if not request.waited_for_slot:
            request.waited_for_slot = True
            self.slot_waits += 1

    def _take_slot(self, adapter: str, now: float) -> float:
        """Count a request on its adapter's slot; return the seconds of the load, if any."""
        slots = self.slots
        if adapter in slots:
            slots[adapter] += 1
            slots.move_to_end(adapter)
            self._keep_in_host_memory(adapter)
            return 0.0
        if len(slots) >= self.options.max_loras:
            self._evict(next(name for name, running in slots.items() if not running))
        options = self.options
        in_host_memory = adapter in self.host_cache
        seconds = options.host_load_seconds if in_host_memory else options.disk_load_seconds
        slots[adapter] = 1
        self._loaded_at[adapter] = now + seconds
        self._keep_in_host_memory(adapter)
        self.loads += 1
        return seconds

    def _keep_in_host_memory(self, adapter: str) -> None:
        """Mark an adapter as most recently used; evict the least recently used one if needed."""
        self.host_cache[adapter] = None
        self.host_cache.move_to_end(adapter)
        if len(self.host_cache) <= self.options.max_cpu_loras:
            return
        active = self.active
        spare = (name for name in self.host_cache if name not in active and name != adapter)
        oldest = next(spare, adapter)
        del self.host_cache[oldest]
        # As in vLLM, an adapter in a slot is in host memory too. It leaves both.
        if oldest in self.slots:
            self._evict(oldest)

    def _evict(self, adapter: str) -> None:
        del self.slots[adapter]
        del self._loaded_at[adapter]

    def _loaded(self, now: float) -> tuple[EngineRequest, ...]:
        """Return the running requests whose adapter is loaded."""
        loaded_at = self._loaded_at
        return tuple(
            request
            for request in self.running
            if request.adapter is None or loaded_at[request.adapter] <= now
        )

    def _leave(self, request: EngineRequest) -> None:
        self.running.remove(request)
        adapter = request.adapter
        if adapter is None:
            return
        # Every step uses its adapters, so the adapter that ends last is the most recently used.
        self.slots[adapter] -= 1
        self.slots.move_to_end(adapter)
        self._keep_in_host_memory(adapter)
        if request.generated:
            left = self.listed[adapter] - 1
            if left:
                self.listed[adapter] = left
            else:
                del self.listed[adapter]

    def _drop_aborted(self) -> bool:
        """Remove aborted requests; return whether any of them was still in the engine."""
        if not self._aborted:
            return False
        aborted, self._aborted = self._aborted, set()
        before = len(self.running) + len(self.waiting)
        for request in [request for request in self.running if request in aborted]:
            self._leave(request)
        self.waiting = [request for request in self.waiting if request not in aborted]
        return len(self.running) + len(self.waiting) < before
