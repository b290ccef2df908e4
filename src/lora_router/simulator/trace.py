"""Requests over time, generated from a seed and a description.

The same seed and description give the same requests, so all algorithms are compared on them.
"""

import heapq
import random
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from lora_router.simulator.lengths import Even, Lengths
from lora_router.simulator.sessions import SessionMaker, Sessions, Turn

BASE_MODEL = "base"
MOST_TOKENS = 1_000_000
"""Tokens of a prompt, and of an answer."""
PROMPT_TOKENS, OUTPUT_TOKENS = Even(50, 450), Even(50, 250)
"""Lengths, unless a scenario says otherwise."""


class Arrival(NamedTuple):
    """One request of a trace."""

    at: float
    """Seconds from the start."""
    model: str
    prompt_tokens: int
    output_tokens: int
    blocks: Sequence[int] = ()
    """Names of the blocks of the prompt, and after them of the answer where they are known. Equal
    beginnings of two prompts have equal names."""
    block_tokens: int = 64
    """Tokens of a block."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """A burst of requests for one adapter that had no requests before."""

    at: float
    """Start, as a share of the duration."""
    lasts: float
    """Length, as a share of the duration."""
    share: float
    """Share of the requests that it adds to during that time."""


@dataclass(frozen=True, slots=True)
class Bursts:
    """Many requests at once for one adapter, again and again, on top of the others."""

    every_seconds: float
    """From one burst to the next, and from the start to the first one."""
    requests: int
    """Requests of a burst."""
    within_seconds: float
    """Time in which they arrive, evenly at random."""


class LoadPoint(NamedTuple):
    """The load at one moment. Between two of them it changes evenly."""

    at: float
    """As a share of the duration."""
    times: float
    """How many times the scenario's rate."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The traffic of a scenario, without its rate."""

    adapters: int
    zipf: float = 0.0
    """Popularity of the nth adapter: ``n ** -zipf``. 0: all adapters are equally popular."""
    base_share: float = 0.0
    """Share of the requests for the base model."""
    prompt_tokens: Lengths = PROMPT_TOKENS
    """Lengths of the prompts of single requests."""
    output_tokens: Lengths = OUTPUT_TOKENS
    """Lengths of answers."""
    sessions: Sessions | None = None
    """Chats whose prompts grow. ``None``: every request is on its own."""
    shuffle_seconds: float | None = None
    """Interval at which popularity is dealt again among the adapters. ``None``: never."""
    burstiness: float = 1.0
    """Squared coefficient of variation of the time between requests. 1: Poisson arrivals."""
    crowd: Crowd | None = None
    bursts: Bursts | None = None
    load: tuple[LoadPoint, ...] = ()
    """In the order of their times. Before the first and after the last one, the load stays. Empty:
    it is the rate throughout."""

    @property
    def highest_load(self) -> float:
        """The largest of these loads."""
        return max((point.times for point in self.load), default=1.0)

    def load_at(self, share: float) -> float:
        """Return the load at a share of the duration."""
        load = self.load
        after = bisect(load, share, key=lambda point: point.at)
        if not load or after in {0, len(load)}:
            return load[max(0, after - 1)].times if load else 1.0
        (at, times), (next_at, next_times) = load[after - 1 : after + 1]
        return times + (next_times - times) * (share - at) / (next_at - at)

    def drawn(self, rate: float, seconds: float) -> float:
        """Return how many requests are drawn for a trace on average, if its load stays the highest.

        Those of sessions that begin before the trace, and of bursts, are among them.
        """
        lead = 0.0
        if self.sessions is not None:
            lead = SessionMaker(self.sessions, self.output_tokens).lead_seconds
        bursts = self.bursts
        in_bursts = 0.0 if bursts is None else bursts.requests * seconds / bursts.every_seconds
        return rate * self.highest_load * (lead + seconds) + in_bursts

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """All adapters, including that of the crowd."""
        names = adapter_names(self.adapters)
        return (*names, CROWD_ADAPTER) if self.crowd else names


CROWD_ADAPTER = "adapter-of-the-crowd"


def adapter_names(count: int) -> tuple[str, ...]:
    """Return the names of so many adapters."""
    return tuple(f"adapter-{number:03d}" for number in range(count))


def make_trace(workload: Workload, *, rate: float, seconds: float, seed: int) -> Iterator[Arrival]:
    """Generate requests.

    Args:
        workload: The traffic.
        rate: Requests per second, without those of ``bursts``.
        seconds: Length of the trace.
        seed: The same seed gives the same requests.
    """
    requests = _requests(workload, rate, seconds, seed)
    if workload.bursts is None:
        return requests
    bursts = _bursts(workload, workload.bursts, seconds, seed)
    return heapq.merge(requests, bursts, key=lambda arrival: arrival.at)


def _bursts(workload: Workload, bursts: Bursts, seconds: float, seed: int) -> Iterator[Arrival]:
    rng = random.Random(f"bursts {seed}")
    names = adapter_names(workload.adapters)
    number = 1
    while (start := number * bursts.every_seconds) < seconds:
        model = rng.choice(names)
        for at in sorted(
            start + rng.random() * bursts.within_seconds for _ in range(bursts.requests)
        ):
            yield Arrival(
                at, model, workload.prompt_tokens.draw(rng), workload.output_tokens.draw(rng)
            )
        number += 1


def _requests(workload: Workload, rate: float, seconds: float, seed: int) -> Iterator[Arrival]:
    rng = random.Random(seed)
    names = list(adapter_names(workload.adapters))
    rng.shuffle(names)
    popularity = list(accumulate((n + 1) ** -workload.zipf for n in range(len(names))))
    shuffle_at = workload.shuffle_seconds or float("inf")
    crowd = workload.crowd
    crowd_from, crowd_until, crowd_share = -1.0, -1.0, 0.0
    if crowd is not None:
        crowd_from = crowd.at * seconds
        crowd_until = crowd_from + crowd.lasts * seconds
        # In addition to the other requests, which continue.
        crowd_share = crowd.share
    chats = None if workload.sessions is None else _Chats(workload.sessions, workload, rng, seconds)
    if chats is not None:
        rate /= chats.requests_per_start
    gap = _gaps(rng, rate, workload.burstiness)
    at = next(gap) - (0.0 if chats is None else chats.lead_seconds)
    while at < seconds:
        if chats is not None:
            yield from chats.until(at)
        if at >= shuffle_at:
            rng.shuffle(names)
            shuffle_at += workload.shuffle_seconds or float("inf")
        if crowd_from <= at < crowd_until and rng.random() < crowd_share:
            model = CROWD_ADAPTER
        elif workload.base_share and rng.random() < workload.base_share:
            model = BASE_MODEL
        else:
            model = names[bisect(popularity, rng.random() * popularity[-1])]
        if chats is not None and chats.begins(at, model):
            pass
        elif at >= 0.0:
            yield Arrival(
                at, model, workload.prompt_tokens.draw(rng), workload.output_tokens.draw(rng)
            )
        at += next(gap) / workload.load_at(at / seconds) if workload.load else next(gap)
    if chats is not None:
        yield from chats.until(seconds)


class _Chats:
    """The sessions of a trace that is being made."""

    def __init__(
        self, sessions: Sessions, workload: Workload, rng: random.Random, seconds: float
    ) -> None:
        self._sessions = sessions
        self._maker = SessionMaker(sessions, workload.output_tokens)
        self._rng = rng
        self._seconds = seconds
        self._coming: list[tuple[float, int, str, Turn, Iterator[Turn]]] = []
        """The next request of each session, by its time. A number makes the order unique."""
        self._begun = 0
        self.requests_per_start = sessions.requests_per_start
        self.lead_seconds = self._maker.lead_seconds

    def begins(self, at: float, model: str) -> bool:
        """Begin a session at this moment, or leave it to a single request: by chance."""
        if self._rng.random() >= self._sessions.share_of_starts:
            return False
        self._begun += 1
        self._schedule(at, self._begun, model, self._maker.turns(self._rng, model))
        return True

    def until(self, time: float) -> Iterator[Arrival]:
        """Yield the requests of sessions up to a moment, in order."""
        while self._coming and self._coming[0][0] <= time:
            at, number, model, turn, rest = heapq.heappop(self._coming)
            if at >= 0.0:
                yield Arrival(
                    at,
                    model,
                    turn.prompt_tokens,
                    turn.output_tokens,
                    turn.blocks,
                    self._sessions.block_tokens,
                )
            self._schedule(at, number, model, rest)

    def _schedule(self, at: float, number: int, model: str, turns: Iterator[Turn]) -> None:
        turn = next(turns, None)
        if turn is not None and at + turn.after < self._seconds:
            heapq.heappush(self._coming, (at + turn.after, number, model, turn, turns))


def _gaps(rng: random.Random, rate: float, burstiness: float) -> Iterator[float]:
    """Yield times between requests: exponential, or drawn at random from two exponentials."""
    if burstiness <= 1.0:
        while True:
            yield rng.expovariate(rate)
    # A hyperexponential of two phases with balanced means (Allen 1990, "Probability, Statistics,
    # and Queueing Theory", 3.2.9) has the required mean and variation.
    share = 0.5 * (1.0 + ((burstiness - 1.0) / (burstiness + 1.0)) ** 0.5)
    while True:
        yield rng.expovariate(2 * (share if rng.random() < share else 1.0 - share) * rate)
