"""A place of an adapter: the pod on which it belongs, and why."""

from dataclasses import dataclass

from lora_router.adapters.declared import DeclaredAdapter
from lora_router.fleet.pod_state import PodState


@dataclass(frozen=True, slots=True)
class Place:
    """One adapter that belongs on one pod."""

    adapter: DeclaredAdapter
    state: PodState
    reason: str
    """``everywhere``, ``copies``, ``demand``, ``first-use``, ``pinned`` or ``spare-memory``."""
    saves: float = 0.0
    """Seconds of waiting that it saves, as long as demand stays as it is. The same load makes those
    wait that have requests on the pod."""
