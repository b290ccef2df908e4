"""A model of one vLLM engine: batch, queue, adapter slots. No I/O, and no clock of its own.

What it reproduces, as measured on vLLM 0.32.0 with LoRA:

- At most ``max_loras`` distinct adapters are in the batch. A waiting request whose adapter has no
  slot is *deferred*: skipped, and those behind it go on. That is what starves rare adapters.
- A slot is free only when every request of its adapter has ended. The adapter stays resident in it
  until another needs the slot; the least recently used goes first, into a host cache of its own.
- One step gives one token to every running request, and the whole batch takes the same step.
- An adapter is *listed* from its first token, not from its request, and gone at once when its last
  request ends.

The owner drives it: ``begin_step`` schedules and says how long the step takes, ``end_step`` says
what came out. What is submitted or aborted in between takes effect at the next step.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What an engine is like. Times in seconds."""

    max_loras: int = 4
    """Slots: distinct adapters in one batch."""
    max_cpu_loras: int = 64
    """Adapters kept in host memory beside those in slots."""
    max_num_seqs: int = 256
    """Requests in one batch."""
    step_seconds: float = 0.020
    """A step with nothing in it."""
    step_seconds_per_request: float = 0.0005
    prefill_seconds_per_token: float = 0.0
    host_load_seconds: float = 0.080
    """Loading an adapter from host memory into a slot."""
    disk_load_seconds: float = 1.5
    """Loading an adapter that is not in host memory either."""
    loads_block: bool = True
    """Whether a load stalls the batch. If not, it only delays its own request."""
    kv_cache_tokens: int = 200_000
    """For the cache usage that is reported; the model never runs out."""


@dataclass(slots=True, eq=False)
class EngineRequest:
    """A request in the engine."""

    adapter: str | None
    prompt_tokens: int
    output_tokens: int
    arrived: float
    generated: int = 0
    deferred: bool = False
    """Whether it ever waited for a slot."""
    ready_at: float = 0.0
    """When its adapter is loaded, if loads do not block."""

    @property
    def finished(self) -> bool:
        """Whether all tokens came out."""
        return self.generated >= self.output_tokens


@dataclass(frozen=True, slots=True)
class Step:
    """A step under way."""

    seconds: float
    scheduled: tuple[EngineRequest, ...]
    """The batch: each gets a token at the end."""


class Engine:
    """The engine. Read its attributes freely; change it through its methods."""

    def __init__(self, options: EngineOptions | None = None) -> None:
        self.options = options or EngineOptions()
        self.waiting: list[EngineRequest] = []
        """In order of arrival."""
        self.running: list[EngineRequest] = []
        self.slots: OrderedDict[str, int] = OrderedDict()
        """Resident adapters, least recently used first, with their running requests."""
        self.host_cache: OrderedDict[str, None] = OrderedDict()
        self.listed: dict[str, int] = {}
        """Adapters with a first token out and not finished: what ``lora_requests_info`` names."""
        self.loads = 0
        """Adapters loaded into a slot since the start."""
        self.slot_waits = 0
        """Requests that had to wait for a slot since the start."""
        self.steps = 0
        self.step: Step | None = None
        self._aborted: set[EngineRequest] = set()

    # What the owner says

    def submit(self, request: EngineRequest) -> None:
        """Queue a request; the next step may schedule it."""
        self.waiting.append(request)

    def abort(self, request: EngineRequest) -> None:
        """Drop a request at the next step, wherever it is then."""
        self._aborted.add(request)

    def begin_step(self, now: float) -> Step | None:
        """Schedule and begin a step; ``None`` if there is nothing to do."""
        self._drop_aborted()
        load_seconds = self._schedule(now)
        if not self.running:
            return None
        options = self.options
        batch = tuple(
            request for request in self.running if request.generated or request.ready_at <= now
        )
        prefill = sum(request.prompt_tokens for request in batch if not request.generated)
        seconds = (
            options.step_seconds
            + options.step_seconds_per_request * len(batch)
            + options.prefill_seconds_per_token * prefill
            + (load_seconds if options.loads_block else 0.0)
        )
        self.step = Step(seconds, batch)
        return self.step

    def end_step(self) -> Iterable[EngineRequest]:
        """End the step; return the requests that got a token."""
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

    # What it looks like from outside

    @property
    def active(self) -> set[str]:
        """Adapters with a request in the batch."""
        return {adapter for adapter, running in self.slots.items() if running}

    @property
    def deferred(self) -> int:
        """Waiting requests that are held back by the slot limit."""
        active = self.active
        if len(active) < self.options.max_loras:
            return 0
        return sum(
            request.adapter is not None and request.adapter not in active
            for request in self.waiting
        )

    @property
    def kv_cache_usage(self) -> float:
        """Share of the KV cache in use, in [0, 1]."""
        tokens = sum(request.prompt_tokens + request.generated for request in self.running)
        return min(1.0, tokens / self.options.kv_cache_tokens)

    # Scheduling

    def _schedule(self, now: float) -> float:
        """Move what fits from the queue into the batch; return the seconds that loads take."""
        load_seconds = 0.0
        left: list[EngineRequest] = []
        active = self.active
        for request in self.waiting:
            adapter = request.adapter
            if len(self.running) >= self.options.max_num_seqs:
                left.append(request)
                continue
            if adapter is not None:
                if adapter not in active and len(active) >= self.options.max_loras:
                    if not request.deferred:
                        request.deferred = True
                        self.slot_waits += 1
                    left.append(request)
                    continue
                seconds = self._take_slot(adapter)
                active.add(adapter)
                load_seconds += seconds
                request.ready_at = now + (0.0 if self.options.loads_block else seconds)
            self.running.append(request)
        self.waiting = left
        return load_seconds

    def _take_slot(self, adapter: str) -> float:
        """Count a request on the adapter's slot, loading the adapter first if it must be."""
        slots = self.slots
        if adapter in slots:
            slots[adapter] += 1
            slots.move_to_end(adapter)
            return 0.0
        if len(slots) >= self.options.max_loras:
            idle = next(name for name, running in slots.items() if not running)
            del slots[idle]
        in_host_memory = adapter in self.host_cache
        self.host_cache[adapter] = None
        self.host_cache.move_to_end(adapter)
        if len(self.host_cache) > self.options.max_cpu_loras:
            self.host_cache.popitem(last=False)
        slots[adapter] = 1
        self.loads += 1
        return self.options.host_load_seconds if in_host_memory else self.options.disk_load_seconds

    def _leave(self, request: EngineRequest) -> None:
        self.running.remove(request)
        adapter = request.adapter
        if adapter is None:
            return
        self.slots[adapter] -= 1
        if request.generated:
            left = self.listed[adapter] - 1
            if left:
                self.listed[adapter] = left
            else:
                del self.listed[adapter]

    def _drop_aborted(self) -> None:
        if not self._aborted:
            return
        for request in self._aborted:
            if request in self.running:
                self._leave(request)
        self.waiting = [request for request in self.waiting if request not in self._aborted]
        self._aborted.clear()
