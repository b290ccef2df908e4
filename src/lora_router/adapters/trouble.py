"""What hinders the loads of one adapter, for the search for places. Records only."""

from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import TypeAlias

from lora_router.fleet.pod_state import PodState


@dataclass(frozen=True, slots=True)
class Trouble:
    """Pods failed to load an adapter, and have not loaded it since."""

    pods: Set[PodState]
    """These pods. It belongs on them only if it may be on no other one."""
    is_nowhere: bool
    """Whether no pod has it. It may be that none can load it, so it comes after all others."""
    may_evict: bool
    """Whether others may make room for it now."""


Troubles: TypeAlias = Callable[[str], Trouble | None]
"""Returns what hinders the loads of an adapter by its served name, if something does."""


def no_trouble(_: str) -> Trouble | None:
    """Return ``None``: nothing is known to fail."""
    return None
