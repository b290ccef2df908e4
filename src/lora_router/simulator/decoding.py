"""The part of a batch that generates: when its requests end, and how its KV cache grows."""

import heapq

from lora_router.simulator.kv_cache import Holding
from lora_router.simulator.simulated_request import SimulatedRequest


class Seat:
    """A request in the batch of a pod."""

    __slots__ = ("computed", "end", "generated", "gone", "holding", "origin", "request", "tokens")

    def __init__(self, request: SimulatedRequest, holding: Holding, generated: int) -> None:
        self.request = request
        self.holding = holding
        self.generated = generated
        """Tokens of its answer when it joined. Above 0 if it was preempted."""
        self.tokens = request.prompt_tokens + generated
        """Tokens to compute before it generates."""
        self.computed = 0
        """How many of them were computed or found in the cache."""
        self.end = 0
        """The step with its last token."""
        self.origin = 0
        """Tokens that it would have in the KV cache at step 0: ``origin`` and the number of a step
        make those that it has after that step."""
        self.gone = False
        """Whether it was preempted."""


class Decoding:
    """The requests that get a token in each step. Steps are counted from the pod's start."""

    def __init__(self, block_tokens: int) -> None:
        self.count = 0
        self._block_tokens = block_tokens
        self._ends: list[tuple[int, int, Seat]] = []
        """A sequence number makes the order unique."""
        self._sequence = 0
        self._phases = [0] * block_tokens
        """Requests by their ``origin``, modulo a block. Those of one phase fill a block in the same
        step."""

    def join(self, seat: Seat, step: int) -> None:
        """Add a request whose prompt was computed and whose next token came with this step."""
        self._sequence += 1
        seat.origin = seat.tokens - step
        seat.end = step + max(0, seat.request.output_tokens - seat.generated - 1)
        self.count += 1
        self._phases[seat.origin % self._block_tokens] += 1
        heapq.heappush(self._ends, (seat.end, self._sequence, seat))

    def preempt(self, seat: Seat) -> None:
        """Remove a request before its end."""
        seat.gone = True
        self._remove(seat)

    def ended(self, step: int) -> Seat | None:
        """Remove and return a request that ends with this step, if there is one."""
        if not self.count or self.steps_to_an_end(step) > 0:
            return None
        seat = heapq.heappop(self._ends)[2]
        self._remove(seat)
        return seat

    def steps_to_an_end(self, step: int) -> int:
        """Return the steps from one until the next request ends. There must be a request."""
        ends = self._ends
        while ends[0][2].gone:
            heapq.heappop(ends)
        return ends[0][0] - step

    def growth(self, step: int, steps: int) -> int:
        """Return how many blocks the requests take in some steps.

        Args:
            step: Steps before the first of them.
            steps: How many steps.
        """
        size, phases = self._block_tokens, self._phases
        rounds, rest = divmod(steps, size)
        return rounds * self.count + sum(
            phases[-number % size] for number in range(step, step + rest)
        )

    def steps_that_fit(self, step: int, most: int, blocks: int) -> int:
        """Return the largest number of steps, at most ``most``, whose growth fits.

        Args:
            step: Steps before the first of them.
            most: An upper limit.
            blocks: What the growth may take. Negative: nothing.
        """
        blocks = max(0, blocks)
        if self.growth(step, most) <= blocks:
            return most
        size, phases = self._block_tokens, self._phases
        rounds, left = divmod(blocks, self.count)
        steps = rounds * size
        while (grown := phases[-(step + steps) % size]) <= left:
            left -= grown
            steps += 1
        return steps

    def _remove(self, seat: Seat) -> None:
        self.count -= 1
        self._phases[seat.origin % self._block_tokens] -= 1
