"""What the loader can do next on a pod (``steps``), and why it does not. Records only."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from lora_router.adapters.adapter_place import Place
from lora_router.adapters.pod_loads import Why

Reason: TypeAlias = Literal["stall", "memory", "failing", "cannot-load", "unread", "in-use"]
PutOff: TypeAlias = Reason | Literal[""]
REASONS: tuple[Reason, ...] = ("stall", "memory", "failing", "cannot-load", "unread", "in-use")
"""Why a step is put off:

- ``stall``: the pod serves requests, and loads have stalled it enough.
- ``memory``: its host memory is full, and nothing in it can be unloaded now.
- ``failing``: what is missing there failed, and is tried again later.
- ``cannot-load``: the pod does not take such calls.
- ``unread``: it is unknown what the pod has loaded, until its list has been read.
- ``in-use``: an older version still has requests there.
"""


@dataclass(frozen=True, slots=True)
class Load:
    """Load an adapter."""

    place: Place
    is_first_use: bool
    """Whether requests wait for it."""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Send an adapter no more requests on the pod, because it is to be unloaded there."""

    name: str
    why: Why


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload the adapter that was withdrawn."""

    name: str


@dataclass(frozen=True, slots=True)
class Restore:
    """Let the adapter that was withdrawn serve again, because it is in use."""

    name: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again at a time."""

    until: float
    reason: PutOff
    """Empty: nothing is put off."""


Step: TypeAlias = Load | Withdraw | Unload | Restore | Wait | None
"""``None``: there is nothing to do until something changes."""
