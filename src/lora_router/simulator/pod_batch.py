"""The batch of a pod model: who joins it, who leaves it, and what each step computes.

A request joins if its adapter has a slot, the batch has a seat, and the KV cache has room. Without
``preemption``, room for its prompt and its whole answer is reserved. With it, the KV cache is
filled as in vLLM's V1 scheduler (``vllm/v1/core/sched``): a request joins if its prompt fits, takes
blocks as its tokens are computed, and when there are none left, the request that joined last
returns to the head of the queue. It computes its prompt and what it has generated again, but for
what the prefix cache still has. No request joins in that step.

With ``chunk_tokens``, a step computes at most so many tokens: one for each request that generates,
and then prompts, in the order in which their requests joined.
"""

import heapq

from lora_router.simulator.adapter_slots import AdapterSlots
from lora_router.simulator.decoding import Decoding, Seat
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.kv_cache import Holding
from lora_router.simulator.simulated_request import SimulatedRequest

ROUNDING = 1e-9
"""Seconds. Times that differ by less are equal."""
ENDLESS = 1 << 62
"""Tokens in a step without ``chunk_tokens``, and steps without an end."""


class PodBatch:
    """The batch and the queue. It has no clock: the owner says when a step begins and ends."""

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self.slots = AdapterSlots(options)
        self.kv_cache = options.kv_cache()
        self.waiting: list[SimulatedRequest] = []
        self.running: dict[SimulatedRequest, Seat] = {}
        """In order of admission, so that an outage loses them in the same order in every run."""
        self.loading: list[tuple[float, int, Seat]] = []
        """Requests of the batch whose adapter is being loaded (if loads do not block), by the time
        at which the load ends."""
        self.deferred = 0
        """Requests that waited for a slot, so far."""
        self.preemptions = 0
        self.generated = 0
        """Tokens that were generated, so far."""
        self._decoding = Decoding(self.kv_cache.block_tokens)
        self._prefilling: list[Seat] = []
        """Requests whose prompts are not computed yet, in the order of joining."""
        self._chunks: list[tuple[Seat, int]] = []
        """What each step computes of prompts: tokens of each."""
        self._preempted: dict[SimulatedRequest, tuple[int, Holding]] = {}
        """Requests that wait again: tokens that they have, and the blocks that they held."""
        self._sequence = 0
        self._steps = 0
        self._equal_steps = 0
        self._kv_full = False
        """Whether the first request that waits does not fit into the KV cache."""

    # Steps

    def begin_step(self, now: float) -> tuple[float, int] | None:
        """Schedule requests; return a step's seconds, and how many steps are like it from here on.

        Returns ``None`` if no request of the batch can run.
        """
        budget = self._compute_prompts()
        preempted = budget < 0
        load_seconds = 0.0 if preempted else self._schedule(now, budget)
        options, chunks = self.options, self._chunks
        batch = self._decoding.count + len(chunks)
        if not batch:
            return None
        seconds = options.step_seconds + options.step_seconds_per_request * batch
        if chunks:
            prompt = sum(tokens for _seat, tokens in chunks)
            seconds += options.prefill_seconds_per_token * prompt + load_seconds
        self._equal_steps = 1 if preempted or load_seconds else self._count_equal_steps()
        return seconds, self._equal_steps

    def end_steps(self, steps: int) -> tuple[list[Seat], list[Seat]]:
        """End so many equal steps; return who got a first token since it joined, and who ended."""
        self._account_for(steps)
        begun = self._take_computed()
        self.generated += len(begun)
        for seat in begun:
            self._decoding.join(seat, self._steps)
        ended = []
        while (seat_at_end := self._decoding.ended(self._steps)) is not None:
            ended.append(seat_at_end)
        return begun, ended

    def load_ended(self, now: float) -> None:
        """Let the requests join whose adapters are loaded by now."""
        while self.loading and self.loading[0][0] <= now + ROUNDING:
            seat = heapq.heappop(self.loading)[2]
            self._prefilling.append(seat)
            if self.options.preemption:
                # The last one to join is the first one to be preempted.
                self.running[seat.request] = self.running.pop(seat.request)

    def usage(self, begun: int) -> float:
        """Return the share of the KV cache that requests hold, in [0, 1].

        What nobody holds any more does not count, although it may be found, as in vLLM.

        Args:
            begun: Steps that have begun since ``begin_step``, without the first one.
        """
        cache = self.kv_cache
        used = cache.used
        if self.options.preemption and begun:
            used += self._decoding.growth(self._steps + 1, begun)
            steps = begun + 1
            used += sum(self._chunk_blocks(seat, steps * tokens) for seat, tokens in self._chunks)
        return min(1.0, used / cache.capacity)

    def generated_after(self, begun: int) -> int:
        """Return the tokens that were generated until so many of the equal steps ended."""
        return self.generated + begun * self._decoding.count

    def _count_equal_steps(self) -> int:
        """Return how many steps, from this one on, are like this one."""
        chunks, decoding = self._chunks, self._decoding
        steps = ENDLESS
        if chunks:
            seat, tokens = chunks[0]
            if len(chunks) > 1 or tokens + decoding.count != self.options.chunk_tokens:
                return 1
            # This prompt takes whole steps, but for its last one.
            steps = max(1, (seat.tokens - seat.computed - 1) // tokens)
        if decoding.count:
            steps = min(steps, decoding.steps_to_an_end(self._steps))
        if not self.options.preemption or steps <= 1:
            return steps
        room = self.kv_cache.available
        if chunks:
            growth = decoding.growth(self._steps + 1, steps - 1)
            fits = growth + self._chunk_blocks(seat, steps * tokens) <= room
            return steps if fits else 1
        return 1 + decoding.steps_that_fit(self._steps + 1, steps - 1, room)

    def _compute_prompts(self) -> int:
        """Give the step's tokens to prompts of the batch; return how many are left.

        Returns -1 if requests were preempted, so that the others fit into the KV cache.
        """
        cache, decoding, options = self.kv_cache, self._decoding, self.options
        preempted = grown = 0
        while True:
            budget = (options.chunk_tokens or ENDLESS) - decoding.count
            chunks = self._chunks = []
            for seat in self._prefilling:
                if budget <= 0:
                    break
                tokens = min(seat.tokens - seat.computed, budget)
                budget -= tokens
                chunks.append((seat, tokens))
            if not options.preemption:
                break
            growth = decoding.growth(self._steps, 1) - grown
            blocks = growth + sum(self._chunk_blocks(seat, tokens) for seat, tokens in chunks)
            if blocks > cache.available:
                # Those that joined first take what there is before the last one loses its place.
                taken = min(growth, max(0, cache.available))
                cache.add(taken)
                grown, growth = grown + taken, growth - taken
                if self._preempt_last():
                    preempted = 1
                    continue
            cache.add(growth)
            break
        for seat, tokens in chunks:
            self._fill(seat, seat.computed + tokens)
        return -preempted or budget

    def _chunk_blocks(self, seat: Seat, tokens: int) -> int:
        """Return how many more blocks a request needs for so many tokens of its prompt."""
        wanted = self.kv_cache.blocks_of(seat.computed + tokens)
        return max(0, wanted - seat.holding.blocks)

    def _fill(self, seat: Seat, tokens: int) -> None:
        """Compute a request's tokens up to this one."""
        if self.options.preemption:
            self.kv_cache.grow(seat.holding, tokens)
        self.kv_cache.name(seat.holding, tokens)

    def _account_for(self, steps: int) -> None:
        """Account for equal steps. The blocks of the first one are counted already."""
        self.generated += steps * self._decoding.count
        cache, decoding, preemption = self.kv_cache, self._decoding, self.options.preemption
        chunks = self._chunks
        if not chunks:
            if preemption and steps > 1:
                cache.add(decoding.growth(self._steps + 1, steps - 1))
            self._steps += steps * bool(decoding.count)
            return
        for step in range(self._steps, self._steps + steps):
            if step > self._steps and preemption:
                cache.add(decoding.growth(step, 1))
            for seat, tokens in chunks:
                seat.computed += tokens
                if step > self._steps:
                    self._fill(seat, seat.computed)
        self._steps += steps

    def _take_computed(self) -> list[Seat]:
        """Take the requests whose prompts are complete off those that are computed."""
        if not self._chunks:
            return []
        self._chunks = []
        whole = [seat for seat in self._prefilling if seat.computed >= seat.tokens]
        self._prefilling = [seat for seat in self._prefilling if seat.computed < seat.tokens]
        return whole

    # Joining and leaving

    def may_join(self, request: SimulatedRequest) -> bool:
        """Return whether the request could join the batch at the end of this step."""
        if not (
            self.slots.has_room_for(request.adapter)
            and len(self.running) < self.options.max_num_seqs
        ):
            return False
        if self.options.counts_blocks:
            # Several equal steps with a prompt have no token left for another one.
            return not (self._kv_full or (self._chunks and self._equal_steps > 1))
        cache = self.kv_cache
        return cache.used + request.prompt_tokens + request.output_tokens <= cache.capacity

    def _schedule(self, now: float, budget: int) -> float:
        """Let requests join; return the seconds that loads take."""
        self._kv_full = False
        waiting = self.waiting
        if not waiting:
            return 0.0
        preemption = self.options.preemption
        load_seconds = 0.0
        left: list[SimulatedRequest] = []
        for position, request in enumerate(waiting):
            if len(self.running) >= self.options.max_num_seqs or budget <= 0:
                left += waiting[position:]
                break
            has_slot = self.slots.has_room_for(request.adapter)
            # vLLM asks for a slot first. What ``preemption: false`` does has its own order.
            if has_slot or not preemption:
                generated, before = self._preempted.get(request, (0, None))
                tokens = request.prompt_tokens + generated
                room = tokens if preemption else tokens + request.output_tokens
                found = self.kv_cache.find(request, tokens, room, before)
                # A request that never fits is admitted alone. Otherwise it would wait for ever.
                if self.running and not found.fits:
                    self._kv_full = True
                    left += waiting[position:]
                    break
            if not has_slot:
                if not request.deferred:
                    request.deferred = True
                    self.deferred += 1
                left.append(request)
                continue
            seat = Seat(request, self.kv_cache.hold(request, found, before), generated)
            seat.computed = found.blocks * self.kv_cache.block_tokens
            if before is None:
                request.cached_tokens = seat.computed
            else:
                del self._preempted[request]
            if not preemption:
                self.kv_cache.grow(seat.holding, room)
            load_seconds += self._admit(seat, now)
            if self._prefilling and self._prefilling[-1] is seat:
                tokens = min(seat.tokens - seat.computed, budget)
                budget -= tokens
                self._chunks.append((seat, tokens))
                self._fill(seat, seat.computed + tokens)
        self.waiting = left
        return load_seconds

    def _admit(self, seat: Seat, now: float) -> float:
        request = seat.request
        self.running[request] = seat
        seconds = 0.0
        adapter = request.adapter
        if adapter is not None:
            seconds = self.slots.take(adapter, now)
            if not self.options.loads_block:
                usable_at = self.slots.usable_at(adapter)
                if usable_at > now + ROUNDING:
                    self._sequence += 1
                    heapq.heappush(self.loading, (usable_at, self._sequence, seat))
                    return 0.0
                seconds = 0.0
        self._prefilling.append(seat)
        return seconds

    def _preempt_last(self) -> bool:
        """Preempt the request that joined last, unless it is the only one."""
        loading = {seat for _at, _number, seat in self.loading}
        seats = [seat for seat in self.running.values() if seat not in loading]
        if len(seats) < 2:
            return False
        seat = seats[-1]
        request = seat.request
        self.preemptions += 1
        if seat.computed < seat.tokens:
            self._prefilling.remove(seat)
            tokens, generated = seat.computed, seat.generated
        else:
            self._decoding.preempt(seat)
            tokens = seat.origin + self._steps
            generated = request.output_tokens - (seat.end - self._steps)
        self._vacate(seat, tokens)
        self._preempted[request] = generated, seat.holding
        self.waiting.insert(0, request)
        return True

    def leave(self, seat: Seat) -> None:
        """Take a request that has ended out of the batch."""
        self._vacate(seat, seat.origin + self._steps)

    def _vacate(self, seat: Seat, tokens: int) -> None:
        """Take a request, which has so many tokens in the KV cache, out of the batch."""
        request = seat.request
        del self.running[request]
        if self.options.preemption:
            self.kv_cache.settle(seat.holding, tokens)
        self.kv_cache.name(seat.holding, tokens)
        self.kv_cache.release(seat.holding, tokens)
        if request.adapter is not None:
            self.slots.leave(request.adapter)
