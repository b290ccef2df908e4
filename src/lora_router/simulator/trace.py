"""Requests over time: generated from a seed and a description, or read from a file.

The same seed and description give the same requests, so all algorithms are compared on them.
"""

import csv
import random
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

BASE_MODEL = "base"
MOST_TOKENS = 1_000_000
"""Tokens of a prompt, and of an answer."""
_LONGEST_SECONDS = 1_000_000.0
"""Length of a trace that is read from a file."""


class TraceError(ValueError):
    """A trace file cannot be used. The message says where and why."""


class Arrival(NamedTuple):
    """One request of a trace."""

    at: float
    """Seconds from the start."""
    model: str
    prompt_tokens: int
    output_tokens: int
    blocks: Sequence[int] = ()
    """Names of the prompt's blocks. Equal beginnings of two prompts have equal names."""
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
    prompt_tokens: tuple[int, int] = (50, 450)
    """Smallest and largest. Lengths are drawn evenly between them."""
    output_tokens: tuple[int, int] = (50, 250)
    shuffle_seconds: float | None = None
    """Interval at which popularity is dealt again among the adapters. ``None``: never."""
    burstiness: float = 1.0
    """Squared coefficient of variation of the time between requests. 1: Poisson arrivals."""
    crowd: Crowd | None = None
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

    @property
    def mean_output_tokens(self) -> float:
        """Average length of an answer in tokens."""
        return sum(self.output_tokens) / 2

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """All adapters, including that of the crowd."""
        names = [f"adapter-{number:03d}" for number in range(self.adapters)]
        return (*names, CROWD_ADAPTER) if self.crowd else tuple(names)


CROWD_ADAPTER = "adapter-of-the-crowd"


def make_trace(workload: Workload, *, rate: float, seconds: float, seed: int) -> Iterator[Arrival]:
    """Generate requests.

    Args:
        workload: The traffic.
        rate: Requests per second.
        seconds: Length of the trace.
        seed: The same seed gives the same requests.
    """
    rng = random.Random(seed)
    names = [f"adapter-{number:03d}" for number in range(workload.adapters)]
    rng.shuffle(names)
    popularity = list(accumulate((n + 1) ** -workload.zipf for n in range(len(names))))
    shuffle_at = workload.shuffle_seconds or float("inf")
    gap = _gaps(rng, rate, workload.burstiness)
    crowd = workload.crowd
    crowd_from, crowd_until, crowd_share = -1.0, -1.0, 0.0
    if crowd is not None:
        crowd_from = crowd.at * seconds
        crowd_until = crowd_from + crowd.lasts * seconds
        # In addition to the other requests, which continue.
        crowd_share = crowd.share
    at = next(gap)
    while at < seconds:
        if at >= shuffle_at:
            rng.shuffle(names)
            shuffle_at += workload.shuffle_seconds or float("inf")
        if crowd_from <= at < crowd_until and rng.random() < crowd_share:
            model = CROWD_ADAPTER
        elif workload.base_share and rng.random() < workload.base_share:
            model = BASE_MODEL
        else:
            model = names[bisect(popularity, rng.random() * popularity[-1])]
        yield Arrival(
            at, model, rng.randint(*workload.prompt_tokens), rng.randint(*workload.output_tokens)
        )
        at += next(gap) / workload.load_at(at / seconds) if workload.load else next(gap)


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


def read_trace(path: Path) -> tuple[Arrival, ...]:
    """Read a CSV file with the columns ``timestamp,model,prompt_tokens,output_tokens``.

    The first line names the columns. Other columns are ignored. Timestamps are in seconds and may
    start at any value; the first one becomes 0.

    Raises:
        TraceError: The file cannot be read or is not such a file.
    """
    try:
        with path.open(newline="") as file:
            return _rows(path, csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from None


def _rows(path: Path, reader: "csv.DictReader[str]") -> tuple[Arrival, ...]:
    needed = {"timestamp", "model", "prompt_tokens", "output_tokens"}
    missing = needed - set(reader.fieldnames or ())
    if missing:
        raise TraceError(f"{path}: no column {', '.join(sorted(missing))}")
    arrivals: list[Arrival] = []
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        try:
            at = float(row["timestamp"])
            tokens = int(row["prompt_tokens"]), int(row["output_tokens"])
        except (TypeError, ValueError):
            raise TraceError(f"{where}: timestamp and tokens must be numbers") from None
        if (
            not 0 <= at < float("inf")
            or not 0 <= tokens[0] <= MOST_TOKENS
            or not 1 <= tokens[1] <= MOST_TOKENS
            or not row["model"]
        ):
            raise TraceError(
                f"{where}: needs a time of 0 or more, a model, and at least one token of output, "
                f"at most {MOST_TOKENS:,} of each"
            )
        arrivals.append(Arrival(at, row["model"], *tokens))
    if not arrivals:
        raise TraceError(f"{path}: has no requests")
    ordered = _from_zero(sorted(arrivals))
    if ordered[-1].at > _LONGEST_SECONDS:
        raise TraceError(
            f"{path}: lasts {ordered[-1].at:,.0f} s, and may last at most {_LONGEST_SECONDS:,.0f} s"
        )
    return ordered


def _from_zero(arrivals: Sequence[Arrival]) -> tuple[Arrival, ...]:
    first = arrivals[0].at
    return tuple(arrival._replace(at=arrival.at - first) for arrival in arrivals)
