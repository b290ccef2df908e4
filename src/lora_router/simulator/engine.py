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

It also schedules as vLLM's V1 scheduler does (``vllm/v1/core/sched/scheduler.py``), where the
options say so: a step computes a number of tokens, first of requests in the batch and then of those
that wait, in their order; requests find what the prefix cache has; and when the KV cache is full,
the request that joined last is preempted and computed again.

The owner drives the engine: ``begin_step`` schedules and returns how long the step takes,
``end_step`` returns which requests got a token. Requests submitted or aborted in between take
effect at the next step.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lora_router.simulator.adapter_slots import AdapterSlots
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.kv_cache import Found, Holding

_ENDLESS = 1 << 62
"""Tokens in a step without ``chunk_tokens``."""


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
    blocks: Sequence[int] = ()
    """Names of the prompt's blocks (``kv_cache``)."""
    block_tokens: int = 16
    """Tokens that a name stands for."""
    generated: int = 0
    """Tokens generated so far."""
    computed: int = 0
    """Tokens whose keys and values are in the KV cache."""
    to_compute: int = 0
    """Tokens that it had when it joined the batch. Until they are computed, it generates none."""
    cached_tokens: int = 0
    """Tokens of its prompt that were in the prefix cache when it joined first."""
    holding: Holding | None = None
    """Its KV blocks, also those that it lost when it was preempted."""
    joined: bool = False
    """Whether it is in the batch and its adapter is loaded."""
    preemptions: int = 0
    """How often it was preempted."""
    deferred: bool = False
    """Whether it waits now because its adapter has no slot."""
    waited_for_slot: bool = False
    """Whether it ever waited for that reason."""

    @property
    def tokens(self) -> int:
        """Tokens of its prompt and of its answer so far."""
        return self.prompt_tokens + self.generated

    @property
    def finished(self) -> bool:
        """Whether all tokens were generated."""
        return self.generated >= self.output_tokens


@dataclass(frozen=True, slots=True)
class Step:
    """A step under way."""

    seconds: float
    scheduled: tuple[EngineRequest, ...]
    """The requests that get a token at the end of the step. Empty if only an abort took effect, if
    all running requests wait for the loads of their adapters, or if the step only computes a part
    of a prompt."""


class Engine:
    """The engine. Its attributes are for reading; change it through its methods."""

    def __init__(self, options: EngineOptions | None = None) -> None:
        self.options = options or EngineOptions()
        self.waiting: list[EngineRequest] = []
        """In order of arrival."""
        self.running: list[EngineRequest] = []
        self.listed: dict[str, int] = {}
        """Adapters with a request that has had its first token and has not ended, in the order in
        which ``lora_requests_info`` names them."""
        self.slot_waits = 0
        """Requests that waited for a slot since the start."""
        self.preemptions = 0
        self.prompt_tokens = 0
        """Tokens of the prompts that joined the batch so far, each counted once."""
        self.cached_tokens = 0
        """Those of them that were in the prefix cache."""
        self.steps = 0
        self.step: Step | None = None
        self._kv_cache = self.options.kv_cache()
        self._chunks: dict[EngineRequest, int] = {}
        """Tokens that the step computes, by request."""
        self._slots = AdapterSlots(self.options)
        self._aborted: set[EngineRequest] = set()

    # What the owner calls

    def submit(self, request: EngineRequest) -> None:
        """Queue a request. The next step may schedule it."""
        self.waiting.append(request)

    def abort(self, request: EngineRequest) -> None:
        """Drop a request at the next step. Has no effect if the request has ended by then."""
        self._aborted.add(request)

    def preload(self, adapters: Iterable[str]) -> None:
        """Put adapters into host memory, as if they had been used before."""
        self._slots.preload(adapters)

    def load(self, adapter: str, now: float) -> float:
        """Load an adapter before its first request; return the seconds that it takes.

        The owner must not begin a step before that time is over if loads stall the batch.
        """
        return self._slots.load(adapter, now)

    def begin_step(self, now: float) -> Step | None:
        """Schedule requests and begin a step. Returns ``None`` if there is nothing to do."""
        dropped = self._drop_aborted()
        self._join_loaded(now)
        chunks = self._chunks = {}
        preempted, budget = self._schedule_running()
        load_seconds = 0.0 if preempted else self._schedule_waiting(now, budget)
        # After an abort vLLM runs one more, empty step, which brings its metrics up to date.
        if not self.running and not dropped:
            return None
        options = self.options
        prefill = sum(n for request, n in chunks.items() if request.computed < request.to_compute)
        seconds = (
            options.step_seconds
            + options.step_seconds_per_request * max(1, len(chunks))
            + options.prefill_seconds_per_token * prefill
            + load_seconds
        )
        done = (each for each, n in chunks.items() if each.computed + n >= each.tokens)
        self.step = Step(seconds, tuple(done))
        return self.step

    def end_step(self) -> tuple[EngineRequest, ...]:
        """End the step; return the requests that got a token.

        ``generated == 1`` marks a first token, ``finished`` a last one.
        """
        step, self.step = self.step, None
        if step is None:
            return ()
        self.steps += 1
        for request, tokens in self._chunks.items():
            request.computed += tokens
        self._chunks = {}
        for request in step.scheduled:
            request.generated += 1
            if request.generated == 1 and request.adapter is not None:
                self.listed[request.adapter] = self.listed.get(request.adapter, 0) + 1
            if request.finished:
                self._leave(request)
        return step.scheduled

    # What metrics report

    @property
    def slots(self) -> Mapping[str, int]:
        """Resident adapters, least recently used first, with their running requests."""
        return self._slots.resident

    @property
    def host_cache(self) -> Collection[str]:
        """Adapters in host memory, least recently used first."""
        return self._slots.host_memory

    @property
    def loads(self) -> int:
        """Adapters loaded into a slot since the start."""
        return self._slots.loads

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
        """Share of the KV cache that requests hold, in [0, 1]."""
        if self.options.counts_blocks:
            return self._kv_cache.usage
        tokens = sum(request.tokens for request in self.running)
        return min(1.0, tokens / self.options.kv_cache_tokens)

    # Scheduling

    def _schedule_running(self) -> tuple[bool, int]:
        """Let the batch compute; return whether a request was preempted, and the tokens left."""
        budget = self.options.chunk_tokens or _ENDLESS
        preempted = False
        batch = [request for request in self.running if request.joined]
        position = 0
        while position < len(batch) and budget > 0:
            request = batch[position]
            tokens = min(request.tokens - request.computed, budget)
            # One that runs alone may exceed the cache. It would never end otherwise.
            if len(batch) > 1 and not self._has_blocks(request, request.computed + tokens):
                self._preempt(batch.pop())
                preempted = True
                continue
            self._compute(request, tokens)
            budget -= tokens
            position += 1
        return preempted, budget

    def _schedule_waiting(self, now: float, budget: int) -> float:
        """Move requests from the queue into the batch; return the seconds that stall the step."""
        options = self.options
        load_seconds = 0.0
        left: list[EngineRequest] = []
        slots = self._slots
        full = False
        for request in self.waiting:
            adapter = request.adapter
            request.deferred = False
            full = full or len(self.running) >= options.max_num_seqs or budget <= 0
            has_slot = slots.has_room_for(adapter)
            if not full and (has_slot or not options.preemption):
                found = self._find(request)
                full = bool(self.running) and options.counts_blocks and not found.fits
            if full:
                left.append(request)
                continue
            if not has_slot:
                self._defer(request)
                left.append(request)
                continue
            self._hold(request, found)
            if adapter is not None:
                load_seconds += slots.take(adapter, now)
            self.running.append(request)
            if options.loads_block or self._loaded_at(request) <= now:
                request.joined = True
                tokens = min(request.tokens - request.computed, budget)
                self._compute(request, tokens)
                budget -= tokens
        self.waiting = left
        return load_seconds if options.loads_block else 0.0

    def _join_loaded(self, now: float) -> None:
        """Let the requests whose adapters were loaded join the batch, as its last ones."""
        if self.options.loads_block:
            return
        due = [each for each in self.running if not each.joined and self._loaded_at(each) <= now]
        for request in sorted(due, key=self._loaded_at):
            request.joined = True
            self.running.remove(request)
            self.running.append(request)

    def _loaded_at(self, request: EngineRequest) -> float:
        """Return when the load of a running request's adapter is complete."""
        return 0.0 if request.adapter is None else self._slots.usable_at(request.adapter)

    def _defer(self, request: EngineRequest) -> None:
        request.deferred = True
        if not request.waited_for_slot:
            request.waited_for_slot = True
            self.slot_waits += 1

    # The KV cache

    def _find(self, request: EngineRequest) -> Found:
        """Look for the request's blocks, and for room for the others."""
        room = request.tokens
        if not self.options.preemption:
            room += request.output_tokens
        return self._kv_cache.find(request, request.tokens, room, request.holding)

    def _hold(self, request: EngineRequest, found: Found) -> None:
        cache = self._kv_cache
        request.holding = cache.hold(request, found, request.holding)
        request.computed = found.blocks * cache.block_tokens
        request.to_compute = request.tokens
        if not request.preemptions:
            request.cached_tokens = request.computed
            self.prompt_tokens += request.prompt_tokens
            self.cached_tokens += request.cached_tokens
        if not self.options.preemption:
            cache.grow(request.holding, request.prompt_tokens + request.output_tokens)

    def _has_blocks(self, request: EngineRequest, tokens: int) -> bool:
        """Return whether the request has blocks for so many tokens, or could take them."""
        holding, cache = request.holding, self._kv_cache
        if holding is None or not self.options.preemption:
            return True
        return cache.blocks_of(tokens) - holding.blocks <= cache.available

    def _compute(self, request: EngineRequest, tokens: int) -> None:
        self._chunks[request] = tokens
        holding = request.holding
        if holding is None:
            return
        until = request.computed + tokens
        if self.options.preemption:
            self._kv_cache.grow(holding, until)
        # The blocks of an answer are named at its end.
        if request.computed < request.to_compute:
            self._kv_cache.name(holding, until)

    def _preempt(self, request: EngineRequest) -> None:
        """Return a request to the head of the queue. It keeps its tokens and loses its blocks."""
        self.preemptions += 1
        request.preemptions += 1
        self.running.remove(request)
        self._release(request)
        self.waiting.insert(0, request)

    def _release(self, request: EngineRequest) -> None:
        """Take the request's blocks and its slot from it."""
        request.joined = False
        holding, adapter = request.holding, request.adapter
        if holding is not None:
            self._kv_cache.name(holding, request.computed)
            self._kv_cache.release(holding, request.computed)
        if adapter is not None:
            # Every step uses its adapters, so the adapter that ends last is the most recently used.
            self._slots.leave(adapter)

    def _leave(self, request: EngineRequest) -> None:
        self.running.remove(request)
        self._release(request)
        self._unlist(request)

    def _unlist(self, request: EngineRequest) -> None:
        adapter = request.adapter
        if adapter is not None and request.generated:
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
        for request in [request for request in self.waiting if request in aborted]:
            self.waiting.remove(request)
            self._unlist(request)
        return len(self.running) + len(self.waiting) < before
