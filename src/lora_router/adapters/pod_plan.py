"""What is planned for the host memory of one pod."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from lora_router.adapters.declared import DeclaredAdapter
from lora_router.fleet.pod_state import PodState

Victim: TypeAlias = tuple[str, float]
"""An adapter to evict, and what is lost with it."""


class PodPlan:
    """The adapters that belong on one pod, and how much they ask of it."""

    __slots__ = (
        "_cheapest",
        "_loaded",
        "active",
        "adapters",
        "catalog",
        "load",
        "room",
        "slots",
        "speed",
        "state",
    )

    def __init__(self, state: PodState, room: int) -> None:
        self.state = state
        self.catalog = state.catalog
        """What it lists, as far as the plan knows."""
        self.room = room
        """How many more declared adapters fit. Negative: it has more than fit."""
        self.adapters: dict[str, DeclaredAdapter] = {}
        """The adapters that belong here, by served name."""
        self.slots = float(state.beliefs.slots or 1)
        self.speed = 1.0 / max(1.0, state.work.slowness)
        self.active = 0.0
        """Slots that they are expected to take on average."""
        self.load = 0.0
        """Requests that they are expected to bring on average."""
        self._cheapest: Victim | None = None
        self._loaded: dict[str, None] = {}
        """Those of them that it has loaded."""

    def put(self, adapter: DeclaredAdapter) -> None:
        """Add an adapter."""
        name = adapter.served_name
        self.adapters[name] = adapter
        if name in self.state.adapters:
            self._loaded[name] = None
        self.room -= 1
        self._cheapest = None

    def remove(self, name: str) -> None:
        """Take an adapter away."""
        del self.adapters[name]
        self._loaded.pop(name, None)
        self.room += 1
        self._cheapest = None

    def look(self) -> tuple[list[str], list[str]]:
        """Take in what the pod lists now.

        Returns:
            The adapters that do not belong there, which it has listed only since the last look, and
            those that belong there, which it lists no longer.
        """
        before, self.catalog = self.catalog.adapters, self.state.catalog
        now = self.state.adapters
        loaded = [name for name in now if name not in before and name not in self.adapters]
        unloaded = [name for name in self._loaded if name not in now]
        self._loaded = {name: None for name in self.adapters if name in now}
        self._cheapest = None
        return loaded, unloaded

    def weigh(self, active: float, load: float) -> None:
        """Add what an adapter asks of the pod, or take it away (below 0)."""
        self.active += active
        self.load += load

    def pressure(self, fleet_active: float, fleet_load: float) -> float:
        """Return how much is asked of the pod, in terms of what is asked of all.

        Args:
            fleet_active: Slots that are taken, as a share of all.
            fleet_load: Requests for each pod of usual speed.
        """
        slots = self.active / (self.slots * self.speed * fleet_active) if fleet_active > 0 else 0.0
        load = self.load / (self.speed * fleet_load) if fleet_load > 0 else 0.0
        return slots + load

    def is_idle(self, name: str) -> bool:
        """Return whether no request for an adapter is in flight here, as far as is known."""
        state = self.state
        return name not in state.in_flight_adapters and name not in state.beliefs.foreign_adapters

    @property
    def looks(self) -> int:
        """How many adapters ``victim`` probably looks at."""
        return 1 if self._cheapest is not None else len(self._loaded)

    def victim(self, lost: "Lost") -> Victim | None:
        """Return the adapter to evict, and what is lost with it; ``None``: none may be evicted.

        Args:
            lost: Returns what is lost with an adapter's copy here, in seconds. Infinity: it stays.
        """
        found = self._cheapest
        if found is not None and lost(found[0], self) == found[1] and self.is_idle(found[0]):
            return found
        # What was added is worth more than what comes later.
        self._cheapest = self._least(self._loaded, lost)
        return self._cheapest

    def victim_among(self, lost: "Lost", fits: Callable[[str], bool]) -> Victim | None:
        """Return the one of some adapters to evict. It costs a look at each one.

        Args:
            lost: As in ``victim``.
            fits: Returns whether an adapter is one of them.
        """
        return self._least(filter(fits, self._loaded), lost)

    def _least(self, names: Iterable[str], lost: "Lost") -> Victim | None:
        best, least = "", (True, float("inf"))
        for name in names:
            price = lost(name, self)
            if price < float("inf"):
                # One that is in use has to wait until its requests have ended.
                key = not self.is_idle(name), price
                if key < least:
                    best, least = name, key
        return (best, least[1]) if best else None


Lost: TypeAlias = Callable[[str, PodPlan], float]
