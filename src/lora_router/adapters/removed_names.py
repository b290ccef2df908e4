"""Names that pods should serve no longer, because they are declared no longer or by an order.

A name is forgotten once no pod lists it any more. From then on, an adapter of that name that
somebody loads by hand, or with ``--lora-modules``, is left alone, as each one that nobody declares.
"""

from collections.abc import Callable, Collection
from itertools import islice

from lora_router.adapters.declared import MAX_DECLARED
from lora_router.adapters.slices import Slices, Work
from lora_router.clock import Clock
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState

ROUND_SECONDS = 30.0
"""Time between two rounds that look for the names. A lower value forgets a name while a pod that
lists it is away for a moment."""
_ROUNDS = 2
"""A name that is not found in so many rounds in a row is forgotten."""
_PODS_AT_ONCE = 64
_NAMES_AT_ONCE = 1024


class RemovedNames:
    """The names that pods should serve no longer. It forgets them by itself."""

    def __init__(
        self,
        fleet: Fleet,
        clock: Clock,
        slices: Slices,
        withdrawn: Callable[[PodState], Collection[str]],
    ) -> None:
        """Create it without names.

        Args:
            fleet: The pods, and what they list.
            clock: Timers.
            slices: Does the rounds.
            withdrawn: Returns what a pod has, although the fleet does not list it.
        """
        self._fleet = fleet
        self._clock = clock
        self._slices = slices
        self._withdrawn = withdrawn
        self._names: dict[str, int] = {}
        """By name: in how many rounds in a row it was not found."""
        self._is_looking = False

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str) -> None:
        """Let pods serve a name no longer. If there are very many, the oldest one is forgotten."""
        self._names[name] = 0
        if len(self._names) > MAX_DECLARED:
            del self._names[next(iter(self._names))]
        if not self._is_looking:
            self._look_later()

    def discard(self, name: str) -> None:
        """Let pods serve a name again."""
        self._names.pop(name, None)

    def _look_later(self) -> None:
        self._is_looking = bool(self._names)
        if self._is_looking:
            self._clock.call_later(ROUND_SECONDS, lambda: self._slices.do(self._round()))

    def _round(self) -> Work:
        found: set[str] = set()
        states = tuple(self._fleet)
        for number, state in enumerate(states, 1):
            found |= self._names.keys() & state.adapters.keys()
            found |= self._names.keys() & self._withdrawn(state)
            if number % _PODS_AT_ONCE == 0:
                yield
        names = iter(tuple(self._names) if states else ())
        while some := tuple(islice(names, _NAMES_AT_ONCE)):
            for name in some:
                rounds = self._names.get(name)
                if rounds is None:
                    continue
                self._names[name] = rounds = 0 if name in found else rounds + 1
                if rounds >= _ROUNDS:
                    del self._names[name]
            yield
        self._look_later()
