"""Calls by which the loader changes what a pod has loaded. Records and protocols only."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from lora_router.fleet.pod_state import PodState

Action: TypeAlias = Literal["load", "unload"]
Outcome: TypeAlias = Literal[
    "done", "already", "refused", "cannot-load", "timeout", "unreachable", "failed"
]
"""What became of a call:

- ``done``: the pod did it.
- ``already``: the pod says that it has the adapter (a load), or does not know it (an unload).
- ``refused``: the pod cannot load this adapter: its source has none, or one that does not fit.
- ``cannot-load``: the pod has no such call, or does not allow it.
- ``timeout``, ``unreachable``: it is unknown whether the pod did it.
- ``failed``: anything else.
"""
OUTCOMES: tuple[Outcome, ...] = (
    "done",
    "already",
    "refused",
    "cannot-load",
    "timeout",
    "unreachable",
    "failed",
)
MAX_MESSAGE_LENGTH = 300
"""Characters of what a pod says that are kept."""


@dataclass(frozen=True, slots=True)
class Call:
    """One load or unload."""

    state: PodState
    action: Action
    name: str
    """The name under which the pod serves the adapter."""
    base_model: str | None = None
    source: str = ""
    """From where a load reads it."""
    in_place: bool = False
    """Whether a load replaces an adapter that the pod has under this name."""
    is_doubted: bool = False
    """Whether only the pod's list shows that a load succeeded: it said so before, and did not list
    the adapter. A load that succeeds is then ``already``."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a call."""

    outcome: Outcome
    seconds: float
    """How long it took."""
    message: str = ""
    """Why it failed: a sentence, at most ``MAX_MESSAGE_LENGTH`` characters."""

    @property
    def is_unknown(self) -> bool:
        """Whether only the pod's list tells what it has loaded now."""
        return self.outcome in {"already", "timeout", "unreachable", "failed"}


class LoadsAdapters(Protocol):
    """Calls pods, and tells the fleet what the calls changed."""

    def start(self, call: Call, on_done: Callable[[Result], None]) -> None:
        """Begin a call, which ends in a bounded time.

        ``on_done`` is called later, once. The fleet has the new list of the pod by then. After an
        unload, or a load of the same adapter, the adapter is no longer withdrawn.
        """

    def withdraw(self, state: PodState, names: Collection[str]) -> None:
        """Take adapters out of the fleet's list of a pod, so that requests go elsewhere.

        They stay so, whatever the pod lists, until ``restore`` or the end of an unload.
        """

    def restore(self, state: PodState, names: Collection[str]) -> None:
        """Put adapters that were withdrawn into the fleet's list again, if the pod lists them."""

    def read_again(self, state: PodState) -> None:
        """Read the list of a pod soon."""
