"""The priorities of requests. A request names an objective, or states its priority.

An objective is an ``InferenceObjective`` of the Gateway API Inference Extension, and has a
priority. Clients choose the name, so a name that is unknown is a request without one.

A header with a priority is read if a setting names it (``priority_header``). It takes precedence.
A value that is no whole number, or out of bounds, is counted and ignored.
"""

import logging
from collections.abc import Callable, Mapping

from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.routing")

DEFAULT = 0
"""The priority of a request that states none, and whose objective is unknown or has none."""
MOST = 1000
"""Priorities that a header states are between this and its negative."""
_LONGEST = len(str(-MOST))
_SHOWN = 32


class Priorities:
    """The priority of each objective. Discovery replaces them as a whole."""

    def __init__(self) -> None:
        self.by_objective: Mapping[str, int] = {}
        self.on_change: Callable[[], None] = _nothing
        """Called after they were replaced by others."""
        self.ignored = 0
        """Requests whose header stated no valid priority."""
        self._limit = LogLimit(600.0)

    def put(self, by_objective: Mapping[str, int]) -> None:
        """Replace the objectives. Requests that wait keep the priority with which they came."""
        if by_objective != self.by_objective:
            self.by_objective = dict(by_objective)
            self.on_change()

    def of(self, objective: str, stated: str = "") -> int:
        """Return the priority of a request.

        Args:
            objective: The objective that it names. Empty: none.
            stated: What its header says. Empty: nothing.
        """
        if not objective and not stated:
            return DEFAULT
        if stated:
            priority = _read(stated)
            if priority is not None:
                return priority
            self._ignore(stated)
        return self.by_objective.get(objective, DEFAULT)

    def _ignore(self, stated: str) -> None:
        self.ignored += 1
        self._limit.log(
            log,
            logging.WARNING,
            "priority",
            "a request states the priority %r: must be a whole number from %d to %d; it is ignored",
            stated[:_SHOWN],
            -MOST,
            MOST,
        )


def within_bounds(priority: int) -> int:
    """Return the nearest priority that clients may state. Those of objectives may be beyond."""
    return max(-MOST, min(MOST, priority))


def _read(stated: str) -> int | None:
    """Return a priority; ``None``: it is no valid one."""
    digits = stated[1:] if stated[0] in "+-" else stated
    if len(stated) > _LONGEST or not (digits.isascii() and digits.isdigit()):
        return None
    priority = int(stated)
    return priority if -MOST <= priority <= MOST else None


def _nothing() -> None:
    """Do nothing."""
