"""How many calls the loader makes at the same time.

All pods may read adapters from the same store, so that the number of loads is limited. But a call
may hang until its timeout, and who waits must not wait for that. Rules, for a limit of ``at_once``:

- Calls for adapters that nobody waits for begin while fewer than ``at_once`` calls are under way. A
  call that has taken ``SLOW_SECONDS`` no longer counts, up to twice ``at_once`` calls in all.
- Loads of adapters for which requests wait, and unloads, which are short, begin while fewer than
  ``MOST`` times ``at_once`` calls are under way.
"""

from collections.abc import Iterable

SLOW_SECONDS = 10.0
"""With a higher value, pods that hang hold up others for longer. With a lower one, a slow store
gets more loads at the same time than was set."""
MOST = 3
"""Times the limit that is set: the calls that may be under way in all."""
POD_SHARE = 4
FEWEST = 8
"""If no limit is set, every fourth pod may load, and at least eight."""


def limit_of(at_once: int | None, pods: int) -> int:
    """Return the limit for a fleet.

    Args:
        at_once: The limit that is set, if any.
        pods: The pods that take loads.
    """
    return max(FEWEST, pods // POD_SHARE) if at_once is None else at_once


class CallsLeft:
    """How many calls may begin now."""

    __slots__ = ("_any", "_others")

    def __init__(self, limit: int, began: Iterable[float], now: float) -> None:
        """Count the calls under way.

        Args:
            limit: The limit for the fleet.
            began: When each of them began.
            now: The time.
        """
        ages = [now - at for at in began]
        young = sum(age < SLOW_SECONDS for age in ages)
        self._any = MOST * limit - len(ages)
        self._others = min(limit - young, 2 * limit - len(ages))

    @property
    def for_others(self) -> bool:
        """Whether a call may begin for which nobody waits."""
        return self._others > 0

    def take(self, *, is_waited_for: bool) -> bool:
        """Count one more call if it may begin; return whether it may."""
        if (self._any if is_waited_for else self._others) <= 0:
            return False
        self._any -= 1
        self._others -= 1
        return True
