"""The order of the pods, which is the same on all routers, and which of them list an adapter."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from lora_router.fleet.pod_state import PodState


class Listing(Protocol):
    """Which pods list which adapters."""

    @property
    def generation(self) -> int:
        """Another number after each change."""

    def pods_of(self, adapter: str) -> Collection[PodState]:
        """Return the pods that list an adapter.

        It is the same object for the adapters that the same pods list.
        """


class PodPositions:
    """The positions of the pods: numbers from 0."""

    def __init__(self, listing: Listing, on_change: Callable[[], None]) -> None:
        """Know of no pods.

        Args:
            listing: Which pods list which adapters.
            on_change: Called when positions are others, or other pods list an adapter.
        """
        self.of: Mapping[PodState, int] = {}
        self.by_name: Mapping[str, int] = {}
        self.in_order: Sequence[PodState] = ()
        self._listing = listing
        self._on_change = on_change
        self._generation = -1
        self._states: dict[str, PodState] = {}
        self._fits: dict[int, tuple[Collection[PodState], Sequence[int] | None]] = {}
        """By the identity of what ``Listing.pods_of`` returns."""

    def put(self, states: Mapping[str, PodState]) -> bool:
        """Put the pods in order, by name; return whether their positions are others."""
        if self._states == states:
            return False
        self._states = dict(states)
        self.in_order = [states[name] for name in sorted(states)]
        self.of = {state: position for position, state in enumerate(self.in_order)}
        self.by_name = {state.pod.name: position for state, position in self.of.items()}
        self._generation = -1
        return True

    def refresh(self) -> None:
        """Find out whether other pods list an adapter. To be called before ``fits_of``."""
        if self._generation != self._listing.generation:
            self._generation = self._listing.generation
            self._fits = {}
            self._on_change()

    def fits_of(self, adapter: str) -> Sequence[int] | None:
        """Return the positions of the pods that list an adapter; ``None``: all.

        It is the same object for all adapters on the same pods.
        """
        pods = self._listing.pods_of(adapter)
        found = self._fits.get(id(pods))
        if found is None:
            positions = self.of
            fits = [positions[pod] for pod in pods if pod in positions]
            found = self._fits[id(pods)] = pods, None if len(fits) == len(positions) else fits
        return found[1]
