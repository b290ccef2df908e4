"""Which pods have room for the requests of each algorithm, apart from slots (``pod_room``)."""

from collections.abc import Iterable, Sequence

from lora_router.clock import Clock
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import Algorithm
from lora_router.routing.pod_room import HOME_STRETCH, PodRoom


class AlgorithmRooms:
    """The room on the pods of one fleet (``pod_room.Rooms``)."""

    def __init__(self, room: PodRoom, fleet: Fleet, clock: Clock) -> None:
        """Create it. Until ``let_wait``, all algorithms may use pods on which requests wait."""
        self._room = room
        self._fleet = fleet
        self._clock = clock
        self._wait: frozenset[str] = frozenset()

    def let_wait(self, algorithms: Iterable[Algorithm]) -> None:
        """Hold requests of those algorithms that ask for it while requests wait on the pods."""
        self._wait = frozenset(
            each.name for each in algorithms if getattr(each, "waits_for_room", False)
        )

    def lets_wait(self, algorithm: str) -> bool:
        """Return whether requests of an algorithm are held while requests wait on the pods."""
        return algorithm in self._wait

    def may_be_full(self, pod: PodView) -> bool:
        """Return whether a pod may have no room."""
        return self._room.may_be_full(pod)

    def has_room(self, pod: PodView, algorithm: str) -> bool:
        """Return whether a pod has room for another request of an algorithm."""
        return self._has_room(pod, algorithm, 1.0)

    def may_join(self, pod: PodView, algorithm: str) -> bool:
        """Return whether a pod takes a request of an algorithm that would cost more elsewhere."""
        return self._has_room(pod, algorithm, HOME_STRETCH)

    def _has_room(self, pod: PodView, algorithm: str, stretch: float) -> bool:
        queued_too = algorithm in self._wait
        return not self._room.is_full(pod, self._clock.now(), stretch, queued_too=queued_too)

    def serving(self, model: str) -> Sequence[PodView]:
        """Return the ready pods that serve a model, whether they have room or not."""
        return self._fleet.serving(model).pods
