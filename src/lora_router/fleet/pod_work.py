"""What a pod has to do: prompt tokens on their way to it, and how fast it is.

A server processes the prompts that it receives in their order of arrival, and until it has done so
they wait. A count of requests does not show it: a prompt of 30,000 tokens takes as long as a
hundred short ones. Therefore an algorithm may tell with its pick how many prompt tokens the pod has
to process (``Pick.tokens``: those that it lacks in its prefix cache), and they count here.

Rules:

- The tokens of all requests form one queue, which the pod drains at its prefill speed. So all that
  has to be stored is when it will be empty.
- The first byte of a streamed answer shows that all tokens up to this request are processed, even
  if they were expected to take longer.
- Tokens leave with their request's reservation, exactly once: when it ends, or moves elsewhere.
- Prompts that peers sent join the queue when a report tells of them, about a tenth of a second
  later. No report tells when they are processed, so they stay for as long as the pod is expected to
  need.
- Adapters that requests bring to the pod are loaded one after the other, each for as long as is
  believed. One of them counts only once it has taken longer than any load from host memory: what
  is believed of where an adapter is may be wrong, and a load that is slow shows itself. The first
  byte of a request that brought one ends it. Those of peers end when they are expected to, and
  those of others are not known.
- The prefill speed is learned from first bytes of streamed answers, and only from requests whose
  adapter was in flight already, because others may wait for a load. It is a high quantile of the
  speeds that were seen: whatever else a request waits for makes the pod look slower.
- How slow a pod is beside others is learned from how long its answers take. Lengths of answers
  vary, so small differences are ignored. Only pods that serve the same base models are compared: a
  large model is slower than a small one.
"""

from msgspec import Struct

TOKENS_A_SECOND = 10_000.0
"""Prefill speed of a pod of which nothing is known, and neither of others. About that of a model
with 8 billion parameters on an NVIDIA A100."""
_LEAST_TOKENS = 512.0
"""The first byte of a shorter queue says nothing about the speed."""
_STEP_SECONDS = 0.03
"""What passes before the first byte apart from processing prompts: about one step and a half."""
_FASTER, _SLOWER = 1.06, 0.98
"""What a speed is multiplied by if one was seen that is higher, or lower. By these two, a quarter
of the speeds that are seen are higher than what is learned."""
_LEAST_TOLD_SECONDS = 0.01
"""Peers are not told of prompts between two reports that together take less."""
MOST_HEARD_SECONDS = 600.0
"""What peers tell makes no queue longer than this."""
_LOWEST, _HIGHEST = 100.0, 1_000_000.0
"""Bounds of a speed in tokens a second."""
_SLOW_LOAD_SECONDS = 0.2
"""A load that takes longer is not from host memory. With a lower value, loads count that end at
once. A higher value loads adapters from disk on the same pod one after the other."""
_WEIGHT, _FLEET_WEIGHT = 1 / 64, 1 / 512
"""Weight of a new answer in the usual duration on its pod, and in the fleet's."""
_FEWEST = 16
"""Answers after which a pod's usual duration means anything."""
_TOLERATED = 1.5
"""A pod is slow only if its answers take this many times as long as those of the fleet."""
_SLOWEST = 16.0


class FleetSpeed:
    """What is usual on the pods that serve the same base models."""

    __slots__ = ("streamed_seconds", "tokens_a_second", "whole_seconds")

    def __init__(self) -> None:
        self.tokens_a_second = TOKENS_A_SECOND
        """The prefill speed that was learned last, of any pod."""
        self.streamed_seconds = 0.0
        """Usual time from the first byte to the end of a streamed answer. 0: none ended."""
        self.whole_seconds = 0.0
        """Usual time from sending a request to the end of an answer that is not streamed."""


class Prefill(Struct, frozen=True, gc=False):
    """The prompt tokens of one request, as long as it is in flight."""

    seconds: float
    """How long they are expected to take."""
    end: float
    """When they are expected to be processed, plus all that shortened the queue before."""
    ahead: float
    """The tokens that had to be processed before the first byte, its own included."""


class PodWork:
    """The prompt tokens on their way to one pod, and its speed.

    Only the ledger and ``Peers`` write to it.
    """

    __slots__ = (
        "_answers",
        "_heard_end",
        "_learned",
        "_open",
        "_ratio",
        "_shift",
        "_untold",
        "empty_at",
        "loads_end",
        "loads_known_at",
        "slowness",
        "tokens_a_second",
    )

    def __init__(self) -> None:
        self.empty_at = 0.0
        """When all prompt tokens that were sent are expected to be processed, in seconds on the
        router's monotonic clock. A time in the past: now."""
        self.loads_end = 0.0
        """When the adapters that requests brought there are expected to be loaded, on the same
        clock. A time in the past: now, or nobody knows."""
        self.loads_known_at = 0.0
        """When the first of these loads has taken so long that it is a slow one."""
        self.tokens_a_second = TOKENS_A_SECOND
        """The prefill speed."""
        self.slowness = 1.0
        """How many times slower than usual the pod answers. Never below 1."""
        self._shift = 0.0
        """By how many seconds the queue became shorter than was expected, in total."""
        self._open = 0
        """Requests whose tokens were sent and did not leave yet."""
        self._heard_end = 0.0
        """When the last of what peers sent is expected to be processed, as in ``Prefill.end``."""
        self._untold = 0.0
        """For how many seconds the pod will process what was sent since peers were told."""
        self._learned = False
        self._ratio = 1.0
        self._answers = 0

    def pending_seconds(self, now: float) -> float:
        """Return how long the pod needs for all prompt tokens that were sent to it."""
        return max(0.0, self.empty_at - now)

    # Updates from the ledger

    def begin(self, tokens: float, now: float, pace: FleetSpeed) -> Prefill:
        """Count prompt tokens that are sent.

        Args:
            tokens: How many, above 0.
            now: Seconds on the router's monotonic clock.
            pace: What is usual in the fleet.
        """
        if not self._learned:
            self.tokens_a_second = pace.tokens_a_second
        seconds = tokens / self.tokens_a_second
        self._open += 1
        self._untold += seconds
        self.empty_at = end = max(now, self.empty_at) + seconds
        return Prefill(seconds, end + self._shift, (end - now) * self.tokens_a_second)

    def end(self, prefill: Prefill, now: float) -> None:
        """Take out the tokens of a request that are not processed yet, because it ended."""
        left = prefill.end - self._shift - now
        if left > 0.0:
            taken = min(left, prefill.seconds)
            self._shorten(taken)
            if self._heard_end < prefill.end:
                self._heard_end += taken  # What is before it takes as long as it did.
        self._open -= 1
        if not self._open:
            # Positions in the queue are not exact once a request left from its middle.
            self.empty_at = min(self.empty_at, max(now, self._heard_end - self._shift))

    def first_byte(self, prefill: Prefill, now: float) -> None:
        """Record that a request's tokens, and so all before them, are processed."""
        left = prefill.end - self._shift - now
        if left > 0.0:
            self._shorten(left)

    # Exchange with peers

    def take_untold(self, now: float) -> float:
        """Return how long the pod needs for what was sent since the last call, in seconds.

        What it is expected to have processed already is left out, and so is what takes no time
        worth telling: the result is then 0.
        """
        untold, self._untold = self._untold, 0.0
        if untold < _LEAST_TOLD_SECONDS:
            return 0.0
        left = min(untold, self.empty_at - now)
        return left if left >= _LEAST_TOLD_SECONDS else 0.0

    def hear(self, seconds: float, now: float) -> None:
        """Count what a peer has sent, of which it says how long the pod needs for it."""
        longer = min(max(now, self.empty_at) + seconds, now + MOST_HEARD_SECONDS)
        self.empty_at = max(self.empty_at, longer)
        self._heard_end = self.empty_at + self._shift

    def begin_load(self, seconds: float, now: float) -> None:
        """Count the load of an adapter, after those that are under way.

        Args:
            seconds: How long it is expected to take.
            now: Seconds on the router's monotonic clock.
        """
        if self.loads_end <= now:
            self.loads_known_at = now + _SLOW_LOAD_SECONDS
            self.loads_end = now
        self.loads_end += seconds

    def loading_seconds(self, now: float) -> float:
        """Return for how long the pod will load adapters, as far as loads are known to be slow."""
        return self.loads_end - now if self.loads_end > now >= self.loads_known_at else 0.0

    def end_loads(self) -> None:
        """Record that all adapters that requests brought there are loaded."""
        self.loads_end = 0.0

    def learn_prefill(self, prefill: Prefill, seconds: float, pace: FleetSpeed) -> None:
        """Learn the prefill speed from a first byte that came after some seconds."""
        if prefill.ahead < _LEAST_TOKENS:
            return
        speed = self.tokens_a_second
        took = max(1e-3, seconds - _STEP_SECONDS)
        speed *= _FASTER if prefill.ahead > speed * took else _SLOWER
        self.tokens_a_second = pace.tokens_a_second = min(_HIGHEST, max(_LOWEST, speed))
        self._learned = True

    def learn_duration(self, seconds: float, pace: FleetSpeed, *, streamed: bool) -> None:
        """Learn from the duration of an answer how slow the pod is beside others."""
        usual = pace.streamed_seconds if streamed else pace.whole_seconds
        usual = usual + _FLEET_WEIGHT * (seconds - usual) if usual else seconds
        if streamed:
            pace.streamed_seconds = usual
        else:
            pace.whole_seconds = usual
        if usual <= 0.0:
            return
        self._answers += 1
        weight = max(_WEIGHT, 1 / (self._answers + 1))
        self._ratio += weight * (min(seconds / usual, _SLOWEST) - self._ratio)
        if self._answers >= _FEWEST:
            self.slowness = max(1.0, self._ratio / _TOLERATED)

    def _shorten(self, seconds: float) -> None:
        self._shift += seconds
        self.empty_at -= seconds
