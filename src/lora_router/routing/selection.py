"""Which of the pods that serve its model a request may go to, by its filter and the gateway."""

from typing import NamedTuple


class Selection(NamedTuple):
    """What excludes pods for a request."""

    pod_filter: str | None = None
    """The client's label selector; ``None`` allows all."""
    subset: frozenset[str] | None = None
    """Endpoints that the gateway allows; ``None`` allows all."""


EVERY_POD = Selection()
