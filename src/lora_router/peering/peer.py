"""One peer: another router."""

from collections.abc import Collection


class Peer:
    """A router that is heard. The hub forgets it when it is silent or leaves."""

    __slots__ = (
        "acknowledged",
        "acknowledged_awake",
        "heard_at",
        "heard_awake",
        "held",
        "may_load",
        "name",
        "number",
        "release",
    )

    def __init__(self, name: str, release: str, now: float, awake: float) -> None:
        self.name = name
        self.release = release
        self.number = 0
        """The number of the peer's last report."""
        self.heard_at = now
        """When it arrived. Before the first report: when the peer was met."""
        self.heard_awake = awake
        """The same on the clock of ``Hub.awake``."""
        self.acknowledged = 0
        """The number of this router's last report that arrived at the peer."""
        self.acknowledged_awake = awake
        """When that number grew, on the clock of ``Hub.awake``."""
        self.held: Collection[str] = ()
        """The adapters that it holds requests for."""
        self.may_load = True
        """Whether it loads adapters if no router precedes it. True until it reports otherwise."""
