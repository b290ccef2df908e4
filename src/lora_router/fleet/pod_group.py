"""The pods that serve the same models, and the fleet's index beside them."""

from collections.abc import Iterable

from lora_router.fleet.index import FleetIndex
from lora_router.fleet.pod_state import PodState


class PodGroup(tuple[PodState, ...]):  # noqa: SLOT001 -- a tuple cannot have slots
    """Ready pods, in a fixed order: candidates of which an algorithm need not look at each.

    Models that the same pods serve share one group, which lives until pods or models change.
    """

    _index: FleetIndex
    members: frozenset[PodState]
    is_everyone: bool
    """Whether all ready pods are in it."""
    name_hashes: list[int]
    """Of the pods' names; filled by who weighs them first."""
    first: dict[str, tuple[PodState, ...]]
    """What was worked out of the names alone, by adapter."""

    @property
    def fleet(self) -> FleetIndex:
        """The index of all ready pods, up to date."""
        self._index.refresh()
        return self._index

    @classmethod
    def of(cls, pods: Iterable[PodState], fleet: FleetIndex, *, is_everyone: bool) -> "PodGroup":
        """Make a group."""
        group = cls(pods)
        group._index = fleet
        group.members = frozenset(group)
        group.is_everyone = is_everyone
        group.name_hashes = []
        group.first = {}
        return group
