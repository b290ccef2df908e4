"""The priorities of requests. A request names an objective, and the objective has a priority.

An objective is an ``InferenceObjective`` of the Gateway API Inference Extension. Clients choose the
name, so a name that is unknown is a request without one.
"""

from collections.abc import Callable, Mapping

DEFAULT = 0
"""The priority of a request whose objective is unknown or has none."""


class Priorities:
    """The priority of each objective. Discovery replaces them as a whole."""

    def __init__(self) -> None:
        self.by_objective: Mapping[str, int] = {}
        self.on_change: Callable[[], None] = _nothing
        """Called after they were replaced by others."""

    def put(self, by_objective: Mapping[str, int]) -> None:
        """Replace the objectives. Requests that wait keep the priority with which they came."""
        if by_objective != self.by_objective:
            self.by_objective = dict(by_objective)
            self.on_change()

    def of(self, objective: str) -> int:
        """Return the priority of requests that name an objective."""
        return self.by_objective.get(objective, DEFAULT)


def _nothing() -> None:
    """Do nothing."""
