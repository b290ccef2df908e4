"""The adapter slots of a pod and its host memory, each evicted in order of least recent use."""

from collections import OrderedDict
from collections.abc import Iterable

from lora_router.simulator.engine_options import EngineOptions


class AdapterSlots:
    """Which adapters are loaded, with how many running requests each."""

    def __init__(self, options: EngineOptions) -> None:
        self.resident: OrderedDict[str, int] = OrderedDict()
        """Adapters in slots, least recently used first, with their running requests."""
        self.host_memory: OrderedDict[str, None] = OrderedDict()
        """Adapters in host memory, those in slots included, least recently used first."""
        self.loads = 0
        """Adapters loaded into a slot since the start."""
        self.evictions = 0
        self.active = 0
        """Slots with a running request."""
        self._unloaded: set[str] = set()
        """Adapters that were unloaded while requests ran. They leave with the last of them."""
        self._options = options
        self._usable_at: dict[str, float] = {}

    @property
    def free(self) -> int:
        """Slots without a running request."""
        return self._options.max_loras - self.active

    def has_room_for(self, adapter: str | None) -> bool:
        """Return whether a request of an adapter (``None``: of the base model) can run now."""
        return (
            adapter is None
            or bool(self.resident.get(adapter))
            or self.active < self._options.max_loras
        )

    def preload(self, adapters: Iterable[str]) -> None:
        """Put adapters into host memory, as if they had been used before."""
        for adapter in adapters:
            self._use(adapter)

    def usable_at(self, adapter: str) -> float:
        """Return when the load of a resident adapter is complete, in seconds of the simulation."""
        return self._usable_at[adapter]

    def take(self, adapter: str, now: float) -> float:
        """Count a request on its adapter's slot; return the seconds that a load takes, if any."""
        resident = self.resident
        running = resident.get(adapter)
        if running is not None:
            self.active += not running
            resident[adapter] = running + 1
            resident.move_to_end(adapter)
            self._use(adapter)
            return 0.0
        options = self._options
        if len(resident) >= options.max_loras:
            self._evict(next(name for name, count in resident.items() if not count))
        self.loads += 1
        in_host_memory = adapter in self.host_memory
        seconds = options.host_load_seconds if in_host_memory else options.disk_load_seconds
        resident[adapter] = 1
        self.active += 1
        self._usable_at[adapter] = now + seconds
        self._use(adapter)
        return seconds

    def load(self, adapter: str, now: float) -> float:
        """Load an adapter before its first request, as ``load_lora_adapter`` does.

        It goes into a slot too, if one is not in use. Return the seconds that it takes.
        """
        self._unloaded.discard(adapter)
        if self.has_room_for(adapter):
            seconds = self.take(adapter, now)
            self.leave(adapter)
            return seconds
        options = self._options
        in_host_memory = adapter in self.host_memory
        self._use(adapter)
        return options.host_load_seconds if in_host_memory else options.disk_load_seconds

    def leave(self, adapter: str) -> None:
        """Take a request off its adapter's slot. The adapter stays resident."""
        resident = self.resident
        resident[adapter] -= 1
        self.active -= not resident[adapter]
        resident.move_to_end(adapter)
        self._use(adapter)
        if adapter in self._unloaded and not resident.get(adapter):
            self.unload(adapter)

    def unload(self, adapter: str) -> None:
        """Unload an adapter by a call. Its running requests end first."""
        if self.resident.get(adapter):
            self._unloaded.add(adapter)
            return
        self._unloaded.discard(adapter)
        self.host_memory.pop(adapter, None)
        if adapter in self.resident:
            self._evict(adapter)

    def _use(self, adapter: str) -> None:
        """Mark an adapter as the most recently used one in host memory; evict if that is full."""
        memory = self.host_memory
        memory[adapter] = None
        memory.move_to_end(adapter)
        if len(memory) > self._options.max_cpu_loras:
            oldest = next(
                (name for name in memory if not self.resident.get(name) and name != adapter),
                adapter,
            )
            del memory[oldest]
            # As in vLLM, an adapter in a slot is in host memory too. It leaves both.
            if oldest in self.resident:
                self._evict(oldest)

    def _evict(self, adapter: str) -> None:
        self.evictions += 1
        del self.resident[adapter]
        del self._usable_at[adapter]
