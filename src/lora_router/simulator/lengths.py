"""Lengths of prompts and answers, in tokens, as they are drawn for a trace."""

import math
import random
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple, Protocol

_NORMAL = NormalDist()
_LEAST, _MOST = 1e-300, 1.0 - 2.0**-53
"""The normal distribution has no values at 0 and 1."""


class Lengths(Protocol):
    """A distribution of lengths."""

    @property
    def mean(self) -> float:
        """Return the average length, or a little more."""
        ...

    @property
    def most(self) -> int:
        """Return the largest length."""
        ...

    def draw(self, rng: random.Random) -> int:
        """Return a length of at least one token."""
        ...


class Even(NamedTuple):
    """All lengths from the smallest to the largest are equally likely."""

    least: int
    most: int

    @property
    def mean(self) -> float:
        """Return the average length."""
        return (self.least + self.most) / 2

    def draw(self, rng: random.Random) -> int:
        """Return a length."""
        return rng.randint(self.least, self.most)


@dataclass(frozen=True, slots=True)
class Lognormal:
    """A distribution with a heavy tail: the logarithm of a length is normally distributed.

    It is cut off above, and a length is at least 1.
    """

    median: float
    """Half of the lengths are below it, without regard to the cut."""
    sigma: float
    """Standard deviation of the natural logarithm."""
    most: int
    """The largest length. Larger ones are not drawn, so there are not more of this length."""

    @property
    def mean(self) -> float:
        """Return the average length without regard to the cut."""
        return min(self.most, self.median * math.exp(self.sigma**2 / 2))

    def draw(self, rng: random.Random) -> int:
        """Return a length."""
        if not self.sigma:
            return max(1, min(self.most, round(self.median)))
        # The inverse of the distribution function, on the part of its range below the cut.
        below = _NORMAL.cdf(math.log(self.most / self.median) / self.sigma)
        share = min(_MOST, max(_LEAST, rng.random() * below))
        length = self.median * math.exp(self.sigma * _NORMAL.inv_cdf(share))
        return max(1, min(self.most, round(length)))


@dataclass(frozen=True, slots=True)
class Mixed:
    """Most lengths are of one distribution, and a share of them is of another one."""

    usual: Lengths
    other: Lengths
    share: float
    """Share of the lengths that are of the other one."""

    @property
    def mean(self) -> float:
        """Return the average length."""
        return self.usual.mean + self.share * (self.other.mean - self.usual.mean)

    @property
    def most(self) -> int:
        """Return the largest length."""
        return max(self.usual.most, self.other.most)

    def draw(self, rng: random.Random) -> int:
        """Return a length."""
        return (self.other if rng.random() < self.share else self.usual).draw(rng)
