"""The keys of a scenario that describe its traffic, and the limits of a good request."""

from collections.abc import Mapping
from dataclasses import dataclass

from lora_router.simulator.goodput import Goodput
from lora_router.simulator.key_kinds import Number, Range, Whole, WrongValueError, refuse
from lora_router.simulator.key_records import Record, key
from lora_router.simulator.lengths import Even, Lengths, Lognormal, Mixed
from lora_router.simulator.router_keys import SHARE
from lora_router.simulator.sessions import BLOCK_TOKENS, Sessions
from lora_router.simulator.trace import MOST_TOKENS, Bursts, Crowd, LoadPoint

_LENGTH = Whole(1, MOST_TOKENS)
_LIMITS = Goodput()
_MOST_SECONDS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LognormalKeys:
    """A heavy-tailed length, in place of ``[smallest, largest]``."""

    median: float = key(Number(1, MOST_TOKENS), "Half of the lengths are below it.")
    sigma: float = key(
        Number(0, 5), "Standard deviation of the natural logarithm of the length. 0: all alike."
    )
    most: int = key(_LENGTH, "The largest length. The distribution is cut off there.")


@dataclass(frozen=True, slots=True)
class LengthsKind:
    """Lengths that are drawn evenly between two, or from a lognormal distribution."""

    def __str__(self) -> str:
        return f"{Range(_LENGTH)}, or {Record(LognormalKeys)}"

    def read(self, value: object) -> Lengths:
        """Return the distribution."""
        if isinstance(value, Mapping):
            keys = Record(LognormalKeys).read(value)
            if keys.median > keys.most:
                raise WrongValueError(
                    f"must not be above most ({keys.most:,}), not {keys.median:,g}", "median"
                )
            return Lognormal(keys.median, keys.sigma, keys.most)
        if isinstance(value, list) and len(value) == 2:
            return Even(*Range(_LENGTH).read(value))
        raise refuse(self, value)


LENGTHS = LengthsKind()


@dataclass(frozen=True, slots=True, kw_only=True)
class LongPromptKeys:
    """``long_prompts``: prompts of another length among the others."""

    share: float = key(SHARE, "Share of the prompts that are long.")
    tokens: Lengths = key(LENGTHS, "Their length.")  # noqa: RUF009 -- as above


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKeys:
    """``sessions``: chats whose prompts grow."""

    turns: tuple[int, int] = key(Range(Whole(1, 1_000)), "Requests of a session.")
    first_prompt_tokens: Lengths = key(LENGTHS, "Length of the first message of a session.")  # noqa: RUF009
    growth_tokens: Lengths = key(  # noqa: RUF009
        LENGTHS,
        "What a prompt is longer than the previous one of its session: the answer and the next "
        "message. At least the answer.",
    )
    think_seconds: float = key(
        Number(0, _MOST_SECONDS),
        "From the end of an answer to the next request, on average. Exponentially distributed.",
    )
    share: float = key(
        SHARE,
        "Share of all requests that belong to sessions. The others are single ones, of "
        "`prompt_tokens`.",
        default=1.0,
    )
    system_tokens: int = key(
        Whole(0, MOST_TOKENS),
        "Tokens of a system prompt with which all sessions of an adapter begin.",
        default=0,
    )
    answer_tokens_per_second: float = key(
        Number(0.01, _MOST_SECONDS),
        "How fast an answer is taken to come. The trace does not depend on the fleet: a session "
        "goes on at the times that are drawn for it.",
        default=30.0,
    )
    block_tokens: int = key(
        Whole(1, 65_536), "Tokens of a block that has a name.", default=BLOCK_TOKENS
    )

    def sessions(self) -> Sessions:
        """Return the sessions."""
        return Sessions(
            turns=Even(*self.turns),
            first_prompt=self.first_prompt_tokens,
            growth=self.growth_tokens,
            think_seconds=self.think_seconds,
            share=self.share,
            answer_tokens_per_second=self.answer_tokens_per_second,
            system_tokens=self.system_tokens,
            block_tokens=self.block_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CrowdKeys:
    """``crowd``: a burst of requests for one adapter that had no requests before."""

    at: float = key(SHARE, "Start, as a share of the duration.")
    lasts: float = key(SHARE, "Length, as a share of the duration. It ends before the trace.")
    share: float = key(SHARE, "Share of the requests that it adds to during that time.")

    def __post_init__(self) -> None:
        """Check the keys that depend on each other.

        Raises:
            WrongValueError: It would last beyond the end.
        """
        if self.at + self.lasts > 1 + 1e-9:
            allowed = f"must end with the trace, at most {1 - self.at:.3g} after at ({self.at:g})"
            raise WrongValueError(f"{allowed}, not {self.lasts:g}", "lasts")

    def crowd(self) -> Crowd:
        """Return the crowd."""
        return Crowd(self.at, self.lasts, self.share)


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstKeys:
    """``bursts``: many requests at once for one adapter, again and again."""

    every_seconds: float = key(
        Number(0.1, _MOST_SECONDS),
        "From one burst to the next, and from the start to the first one. The adapter of each "
        "burst is drawn evenly.",
    )
    requests: int = key(Whole(1, 100_000), "Requests of a burst.")
    within_seconds: float = key(
        Number(0, _MOST_SECONDS), "Time in which they arrive. At most `every_seconds`.", default=0.0
    )

    def bursts(self) -> Bursts:
        """Return the bursts."""
        return Bursts(self.every_seconds, self.requests, self.within_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadKeys:
    """One of ``load``: the load at one moment."""

    at: float = key(SHARE, "When, as a share of the duration. Later than the one before.")
    times: float = key(Number(0.001, 1_000), "How many times `rate`.")

    def point(self) -> LoadPoint:
        """Return the point."""
        return LoadPoint(self.at, self.times)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodputKeys:
    """``goodput``: the limits of a good request."""

    ttft_seconds: float = key(
        Number(0.001, _MOST_SECONDS),
        "Longest time to the first token.",
        default=_LIMITS.ttft_seconds,
    )
    tpot_ms: float = key(
        Number(0.01, _MOST_SECONDS),
        "Longest time for each further token, on average over the request.",
        default=_LIMITS.tpot_seconds * 1000,
    )

    def limits(self) -> Goodput:
        """Return the limits."""
        return Goodput(self.ttft_seconds, self.tpot_ms / 1000)


def prompt_lengths(usual: Lengths, long: LongPromptKeys | None) -> Lengths:
    """Return the lengths of prompts, with the long ones among them."""
    return usual if long is None else Mixed(usual, long.tokens, long.share)
