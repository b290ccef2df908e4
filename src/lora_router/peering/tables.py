"""What one router has reported, in the form in which it is sent: positions in tables of names.

The sender and the receiver of reports both keep one. A report is the difference of two states of
it.
"""

from typing import NamedTuple


class PodKey(NamedTuple):
    """A pod's name and server, as in ``PodShare``."""

    name: str
    address: str
    uid: str


class HeldRow(NamedTuple):
    """Requests that are held for one adapter. Positions are plus 1, and 0 means none."""

    since_ms: int
    wanted_pod: int
    closed_pod: int
    closed_adapter: int
    priority: int


class Tables:
    """The names, and the rows that refer to them by their positions."""

    __slots__ = (
        "acknowledged",
        "adapters",
        "counts",
        "ejected",
        "held",
        "may_load",
        "name_bytes",
        "number",
        "pods",
        "requests",
        "routers",
        "rows",
    )

    def __init__(self) -> None:
        self.number = 0
        """The number of the report that these are the state of; 0: there was none."""
        self.pods: list[PodKey] = []
        self.adapters: list[str] = []
        self.routers: list[str] = []
        self.name_bytes = 0
        self.requests: dict[int, int] = {}
        """The number of requests in flight by pod, if it is not 0."""
        self.counts: dict[int, dict[int, int]] = {}
        """The number of requests by pod and adapter, if it is not 0."""
        self.rows = 0
        """The number of rows in ``counts``."""
        self.held: dict[int, HeldRow] = {}
        """By adapter."""
        self.acknowledged: list[int] = []
        """For each router, the number of its last report."""
        self.ejected: set[int] = set()
        """Pods."""
        self.may_load = True
        """Whether the router would load adapters."""
