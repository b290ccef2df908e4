"""When the adapters of one pod were last used: a mapping in order of last use, oldest first.

The values are seconds on the router's monotonic clock. The request path has no clock at hand. It
writes ``HERE`` instead, which is later than every time, and ``date`` replaces it with the time when
the router reports to its peers.
"""

import math
import sys
from collections.abc import Container, Mapping, Set

HERE = math.inf
"""A request of this router used the adapter since the last report."""
ELSEWHERE = sys.float_info.max
"""A request of somebody else did."""
_SLACK_SECONDS = 1.0
"""Routers learn of the same use at different times. A report that is later by less has no news."""


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


def latest(uses: dict[str, float], without: Container[str], most: int) -> dict[str, float]:
    """Return the adapters that were used last, oldest first, except some."""
    found: list[str] = []
    for name in reversed(uses):
        if name not in without:
            found.append(name)
            if len(found) == most:
                break
    return {name: uses[name] for name in reversed(found)}


def in_slots(
    uses: dict[str, float], busy: Set[str], seated: Container[str], slots: int
) -> dict[str, None]:
    """Return the adapters that are probably in slots, in order of last use.

    Args:
        uses: The last uses.
        busy: The adapters in flight. Each takes a slot, or waits for one.
        seated: Of those, the ones in a slot.
        slots: The number of slots. Those that are left have the adapters that were used last.
    """
    left, missing = slots - len(busy), len(busy)
    found = []
    for name in reversed(uses):
        if name in busy:
            missing -= 1
            if name in seated:
                found.append(name)
        elif left > 0:
            found.append(name)
            left -= 1
        if left <= 0 and missing <= 0:
            break
    return dict.fromkeys(reversed(found))


def merged(
    uses: dict[str, float], reported: Mapping[str, float], most: int
) -> dict[str, float] | None:
    """Return the uses with those that a peer reported, or ``None`` if it reported nothing new.

    A later use stands, whoever knows it. A report never removes an adapter: of new ones, the oldest
    are left out if there would be more than ``most``.
    """
    news = {
        name: at
        for name, at in reported.items()
        if name not in uses or uses[name] + _SLACK_SECONDS < at
    }
    if not news:
        return None
    new = sorted((name for name in news if name not in uses), key=news.__getitem__)
    for name in new[: max(0, len(uses) + len(new) - most)]:
        del news[name]
    return dict(sorted({**uses, **news}.items(), key=_when)) if news else None


def _when(use: tuple[str, float]) -> float:
    return min(use[1], ELSEWHERE)
