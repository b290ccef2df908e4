"""The answer to the question which pods have how much of a prompt."""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeVar, overload

from lora_router.fleet.pod_state import PodState

FEW_PODS = 32
"""The answer about so many pods is a dictionary, which is the fastest to ask. In a larger fleet, an
algorithm asks about a dozen pods, and a dictionary of more takes longer to make than that."""
NO_PODS: Mapping[PodState, float] = {}

_Default = TypeVar("_Default")

Level = tuple[int, float]
"""The bits of some pods, and how many tokens of the prompt they have at least."""


class Numbered(Protocol):
    """What is known of a pod that has a number."""

    @property
    def state(self) -> PodState:
        """The pod."""

    @property
    def bit(self) -> int:
        """The bit of its number."""


def matches(
    levels: Sequence[Level], numbered: Sequence[Numbered], pods: Mapping[PodState, Numbered]
) -> Mapping[PodState, float]:
    """Return how many tokens each pod has, the pods with the most first.

    Args:
        levels: What pods have, the most first.
        numbered: The pods by their numbers.
        pods: The pods that are known.
    """
    everyone = 0
    for having, _ in levels:
        everyone |= having
    if everyone.bit_count() <= FEW_PODS:
        return _found(levels, numbered)
    return _Matches(levels, numbered, pods, everyone.bit_count())


class _Matches(Mapping[PodState, float]):
    """The answer about many pods: what each of them has is worked out when it is asked."""

    __slots__ = ("_count", "_levels", "_numbered", "_pods")

    def __init__(
        self,
        levels: Sequence[Level],
        numbered: Sequence[Numbered],
        pods: Mapping[PodState, Numbered],
        count: int,
    ) -> None:
        self._levels = levels
        self._numbered = numbered
        self._pods = pods
        self._count = count

    def __getitem__(self, state: PodState) -> float:
        tokens = self.get(state, -1.0)
        if tokens < 0.0:
            raise KeyError(state)
        return tokens

    @overload
    def get(self, state: PodState, default: None = None, /) -> float | None: ...
    @overload
    def get(self, state: PodState, default: float, /) -> float: ...
    @overload
    def get(self, state: PodState, default: _Default, /) -> float | _Default: ...

    def get(self, state: PodState, default: object = None, /) -> object:
        """Return what a pod has. That of ``Mapping`` takes three times as long."""
        pod = self._pods.get(state)
        if pod is not None:
            bit = pod.bit
            for having, end in self._levels:
                if having & bit:
                    return end
        return default

    def most(self, share: float, count: int, rng: random.Random) -> list[PodState]:
        """Return some pods that have a share of what the best one has: see ``with_most``."""
        least = share * self._levels[0][1]
        found: list[PodState] = []
        seen = 0
        for having, end in self._levels:
            if end < least:
                break
            new = having & ~seen
            seen |= having
            # From a random bit down, and then from the top.
            lower = new & ((2 << int(rng.random() * new.bit_length())) - 1)
            for run in (lower, new ^ lower):
                if self._add(run, count, found):
                    return found
        return found

    def _add(self, run: int, count: int, found: list[PodState]) -> bool:
        """Add pods by their bits. Return whether there are enough."""
        while run:
            number = run.bit_length() - 1
            found.append(self._numbered[number].state)
            if len(found) == count:
                return True
            run ^= 1 << number
        return False

    def __iter__(self) -> Iterator[PodState]:
        return (state for state, _ in _each(self._levels, self._numbered))

    def __len__(self) -> int:
        return self._count


def with_most(
    found: Mapping[PodState, float], share: float, count: int, rng: random.Random
) -> list[PodState]:
    """Return pods that have nearly as much of a prompt as the best one.

    Args:
        found: An answer of ``matches``.
        share: The share of what the best one has.
        count: How many pods to return at most. Of more, a random run is returned.
        rng: The source of the choice.
    """
    if isinstance(found, _Matches):
        return found.most(share, count, rng)
    pods: list[PodState] = []
    least = 0.0
    for pod, tokens in found.items():
        least = least or share * tokens
        if tokens < least:
            break
        pods.append(pod)
    return random_run(pods, count, rng)


def random_run(pods: list[PodState], count: int, rng: random.Random) -> list[PodState]:
    """Return ``count`` neighbours in a list that has no end, from a random one on, or all."""
    size = len(pods)
    if size <= count:
        return pods
    start = int(rng.random() * size)
    run = pods[start : start + count]
    return run if len(run) == count else run + pods[: count - len(run)]


def _found(levels: Sequence[Level], numbered: Sequence[Numbered]) -> dict[PodState, float]:
    """Return what ``_each`` yields, in a third of the time."""
    found: dict[PodState, float] = {}
    seen = 0
    for having, end in levels:
        new = having & ~seen
        seen |= having
        while new:
            number = new.bit_length() - 1
            found[numbered[number].state] = end
            new ^= 1 << number
    return found


def _each(
    levels: Sequence[Level], numbered: Sequence[Numbered]
) -> Iterator[tuple[PodState, float]]:
    """Yield each pod, with the most that it has."""
    seen = 0
    for having, end in levels:
        for number in bits(having & ~seen):
            yield numbered[number].state, end
        seen |= having


def bits(mask: int) -> Iterator[int]:
    """Yield the numbers of the bits that are set."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
