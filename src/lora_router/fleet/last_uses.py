"""When the adapters of one pod were last used: a mapping in order of last use, oldest first.

The values are seconds on the router's monotonic clock. The request path has no clock at hand. It
writes ``HERE`` instead, which is later than every time, and ``date`` replaces it with the time when
the router reports to its peers.
"""

import math
import sys
from collections.abc import Mapping, Set
from itertools import islice

HERE = math.inf
"""A request of this router used the adapter since the last report."""
ELSEWHERE = sys.float_info.max
"""A request of somebody else did."""
_SLACK_SECONDS = 1.0
"""Routers learn of the same use at different times. A report that is later by less has no news."""


def use(uses: dict[str, float], adapter: str, at: float, most: int) -> str | None:
    """Record a use. Return the adapter that is forgotten because there would be too many."""
    uses.pop(adapter, None)
    uses[adapter] = at
    if len(uses) <= most:
        return None
    oldest = next(iter(uses))
    del uses[oldest]
    return oldest


def date(uses: dict[str, float], now: float) -> list[str]:
    """Give the uses since the last call their time.

    Return the adapters that this router used, the one that it used last at the end.
    """
    mine = []
    for name in reversed(uses):
        at = uses[name]
        if at < ELSEWHERE:
            break
        if at == HERE:
            mine.append(name)
        uses[name] = now
    mine.reverse()
    return mine


def latest(uses: dict[str, float], without: Set[str], most: int, now: float) -> dict[str, float]:
    """Return the seconds since the last use of the adapters that were used last, except some."""
    if without:
        found = [name for name in reversed(uses) if name not in without][:most]
    else:
        found = list(islice(reversed(uses), most))
    found.reverse()
    return {name: now - at if (at := uses[name]) < now else 0.0 for name in found}


def later(
    reported: Mapping[str, float], uses: dict[str, float], without: Set[str], after: float
) -> dict[str, float]:
    """Return the uses that a peer reported and that are later than those that are known.

    A peer knows what was used before this router began, and what came and went between two reports.

    Args:
        reported: What the peer reported.
        uses: What is known.
        without: Adapters about which the peer is not believed.
        after: When the server had nothing loaded. Earlier uses do not count.
    """
    return {
        name: at
        for name, at in reported.items()
        if (name not in uses or uses[name] + _SLACK_SECONDS < at)
        and name not in without
        and at > after
    }


def merged(uses: dict[str, float], news: dict[str, float], most: int) -> dict[str, float]:
    """Return the uses together with later ones.

    No adapter is removed from the uses. The oldest new ones are removed from the news if there
    would be more than ``most``.
    """
    new = sorted((name for name in news if name not in uses), key=news.__getitem__)
    for name in new[: max(0, len(uses) + len(new) - most)]:
        del news[name]
    return dict(sorted({**uses, **news}.items(), key=_when))


def _when(use: tuple[str, float]) -> float:
    return min(use[1], ELSEWHERE)
