"""What slots alone cost: the time to first token in a fleet that wastes none of them.

All pods share their slots and their host memory, which has every adapter. So a request waits for a
slot only if all slots of the fleet are taken. Nothing stalls anybody, each request generates as
fast as one that is alone on a pod, and slots go to adapters in the order in which they were asked
for. A router that only decides where requests go has nothing better to offer. One that knew the
future could do better by letting a hundredth of the requests wait.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterable

from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.trace import BASE_MODEL, Arrival


class PerfectSlots:
    """The slots of a fleet, in simulated time."""

    def __init__(self, engine: EngineOptions, slots: int) -> None:
        """Create them free.

        Args:
            engine: How fast each request is.
            slots: How many there are in the fleet.
        """
        self.times: list[tuple[float, float]] = []
        """When requests arrived, and their seconds to first token."""
        self._engine = engine
        self._slots = slots
        self._ends: list[tuple[float, str]] = []
        self._running: dict[str, int] = {}
        self._resident: OrderedDict[str, None] = OrderedDict()
        """Adapters in slots, the one that was used last at the end."""
        self._waiting: OrderedDict[str, list[Arrival]] = OrderedDict()

    def play(self, trace: Iterable[Arrival]) -> None:
        """Serve requests, which are in the order of their arrival, until all have ended."""
        for arrival in trace:
            self._end_until(arrival.at)
            model = arrival.model
            if model == BASE_MODEL or model in self._running or self._has_free_slot:
                self._begin(arrival, arrival.at)
            else:
                self._waiting.setdefault(model, []).append(arrival)
        self._end_until(float("inf"))

    @property
    def _has_free_slot(self) -> bool:
        return len(self._running) < self._slots

    def _begin(self, arrival: Arrival, now: float) -> None:
        engine, model = self._engine, arrival.model
        step = engine.step_seconds + engine.step_seconds_per_request
        first = now + step + arrival.prompt_tokens * engine.prefill_seconds_per_token
        if model != BASE_MODEL:
            if model not in self._resident:
                first += engine.host_load_seconds
            self._use(model)
        self.times.append((arrival.at, first - arrival.at))
        heapq.heappush(self._ends, (first + (arrival.output_tokens - 1) * step, model))

    def _use(self, model: str) -> None:
        self._running[model] = self._running.get(model, 0) + 1
        self._resident[model] = None
        self._resident.move_to_end(model)
        if len(self._resident) > self._slots:
            del self._resident[next(name for name in self._resident if name not in self._running)]

    def _end_until(self, time: float) -> None:
        while self._ends and self._ends[0][0] <= time:
            now, model = heapq.heappop(self._ends)
            if model == BASE_MODEL:
                continue
            self._running[model] -= 1
            if self._running[model]:
                continue
            del self._running[model]
            if self._waiting:
                _, arrivals = self._waiting.popitem(last=False)
                for arrival in arrivals:
                    self._begin(arrival, now)
