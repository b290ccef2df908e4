"""What an algorithm is asked about a request: algorithm, model, filter, subset and priority.

Requests that ask the same question get the same answer.
"""

from typing import NamedTuple

from lora_router.routing.selection import Selection


class Question(NamedTuple):
    """What an algorithm is asked."""

    algorithm: str
    model: str
    pod_filter: str | None
    subset: frozenset[str] | None
    priority: int = 0
    tenant: int = 0
    """Who asks, as a hash; 0: nobody in particular."""

    @property
    def selection(self) -> Selection:
        """The pods to which requests that ask it may go."""
        return Selection(self.pod_filter, self.subset)


WHO_ASKS = Question._fields.index("priority")
"""The fields from here on say who asks. The others decide which pods there are to choose from."""
