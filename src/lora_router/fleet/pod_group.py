"""The pods that serve the same models, together with the fleet's index."""

from collections.abc import Iterable

from lora_router.fleet.index import FleetIndex
from lora_router.fleet.pod_state import PodState


class PodGroup(tuple[PodState, ...]):  # noqa: SLOT001 -- a tuple cannot have slots
    """Ready pods in a fixed order, from which an algorithm can choose without inspecting all.

    Models that are served by the same pods share one group. A group lives until pods or models
    change.
    """

    _index: FleetIndex
    members: frozenset[PodState]
    is_everyone: bool
    """Whether the group contains all ready pods."""
    name_hashes: list[int]
    """Hashes of the pods' names. The first rendezvous computation fills this list."""
    first: dict[str, tuple[PodState, ...]]
    """The first pods in the rendezvous order, by adapter. They depend on names only."""

    @property
    def fleet(self) -> FleetIndex:
        """The index of all ready pods, up to date."""
        self._index.refresh()
        return self._index

    @classmethod
    def of(cls, pods: Iterable[PodState], fleet: FleetIndex, *, is_everyone: bool) -> "PodGroup":
        """Return a group of these pods."""
        group = cls(pods)
        group._index = fleet
        group.members = frozenset(group)
        group.is_everyone = is_everyone
        group.name_hashes = []
        group.first = {}
        return group
