"""What a pod of the fault tests can be told to do."""

from dataclasses import dataclass
from typing import Literal

Page = Literal["well", "silent", "garbage", "empty", "huge", "endless", "digits", "error"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a pod treats its clients. The defaults are those of a pod that is well."""

    listens: bool = True
    """``False``: connections are reset, and new ones are refused."""
    reachable: bool = True
    """``False``: as if the network dropped all packets. Nothing is refused, and nothing arrives."""
    answers: Literal["well", "silent", "garbage", "error"] = "well"
    """Of completions. ``silent``: a request is read and never answered."""
    slowness: float = 1.0
    """Factor of the time that a completion takes."""
    adapters: tuple[str, ...] | None = None
    """What it has loaded; ``None``: what it was started with. Others are answered with 404."""
    metrics: Page = "well"
    models: Page = "well"
    slots: int = 4
    """Adapters that can be in one batch, as ``/metrics`` reports."""
    keep_alive_seconds: float = 3600.0
    """A request on a connection that was idle for longer is answered with a reset: the pod was just
    about to close it."""
