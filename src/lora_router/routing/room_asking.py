"""Asks an algorithm where pods may have no room apart from slots (``pod_room``).

The answer is one about all candidates if its pod has room. Otherwise it is one about those that
have room.

In a large fleet, the pods with room are known at any time, so the algorithm is asked about these
first, and most answers are final. It is asked about all candidates only if that may change the
answer: if it holds the request, or if the pod may have more requests because the others would have
to load the adapter from disk.
"""

from dataclasses import replace

from lora_router.fleet.adapter_beliefs import AWAY
from lora_router.fleet.index import FleetIndex
from lora_router.routing.algorithm import Algorithm, Hold, InferenceRequest, Pick, WakesOn
from lora_router.routing.answer_check import AlgorithmCaller
from lora_router.routing.candidates import Candidates
from lora_router.routing.overload import NO_ROOM
from lora_router.routing.pod_room import FAR_STRETCH, PodRoom

_NO_ROOM = Hold(NO_ROOM, 86400.0, wakes_on=WakesOn.ROOM)


class RoomAsking:
    """One question to an algorithm."""

    __slots__ = ("_algorithm", "_caller", "_candidates", "_now", "_queued_too", "_request", "_room")

    def __init__(
        self,
        room: PodRoom,
        caller: AlgorithmCaller,
        algorithm: Algorithm,
        request: InferenceRequest,
        candidates: Candidates,
        now: float,
        *,
        queued_too: bool,
    ) -> None:
        """Prepare a question.

        Args:
            room: The room on pods.
            caller: Asks the algorithm.
            algorithm: The algorithm.
            request: The request.
            candidates: The pods that may take it.
            now: Seconds, monotonic.
            queued_too: Whether requests that wait on pods count.
        """
        self._room = room
        self._caller = caller
        self._algorithm = algorithm
        self._request = request
        self._candidates = candidates
        self._now = now
        self._queued_too = queued_too

    def answer(self) -> Pick | Hold:
        """Return the answer, which is no pick of a pod that has no room."""
        candidates = self._candidates
        index = candidates.fleet_index
        if index is None:
            first = self._ask(candidates)
            if isinstance(first, Hold) or not self._is_full(first):
                return first
            some = self._each_with_room()
            return self._instead(first, None if some is None else self._ask(some))
        answer = self._about_roomy(index)
        if isinstance(answer, Pick) and not self._may_be_far(answer):
            return answer
        first = self._ask(candidates)
        if isinstance(first, Hold) or not self._is_full(first):
            return first
        return self._instead(first, answer)

    def _ask(self, candidates: Candidates) -> Pick | Hold:
        return self._caller.ask(self._algorithm, self._request, candidates, self._now)

    def _is_full(self, pick: Pick) -> bool:
        return self._room.is_full(pick.pod, self._now, queued_too=self._queued_too)

    def _each_with_room(self) -> Candidates | None:
        return self._room.with_room(self._candidates, self._now, queued_too=self._queued_too)

    def _about_roomy(self, index: FleetIndex) -> Pick | Hold | None:
        """Return the answer about the candidates of a large fleet with room; ``None``: none has."""
        candidates = self._candidates
        roomy = self._room.roomy(index, self._now, queued_too=self._queued_too)
        some = candidates.with_room(roomy)
        if some is None:
            return None
        answer = self._ask(some)
        candidates.inspected = some.inspected
        if isinstance(answer, Pick) and not some.answers_about(answer.pod):
            # Some algorithms look at each pod of a large fleet, with or without room.
            answer = self._ask(self._each_with_room() or some)
        return answer

    def _instead(self, first: Pick, answer: Pick | Hold | None) -> Pick | Hold:
        """Return what becomes of a pick without room.

        Args:
            first: The pick.
            answer: The answer about the candidates with room; ``None``: none has.
        """
        room = self._room
        if answer is None:
            if self._request.may_hold or room.is_at_limit(first.pod):
                return _NO_ROOM
            return first
        if isinstance(answer, Hold):
            return replace(answer, reason=NO_ROOM)
        if (
            self._may_be_far(answer)
            and not room.is_at_limit(first.pod, FAR_STRETCH)
            and not room.is_queued(first.pod, self._now, queued_too=self._queued_too)
        ):
            return first
        return answer

    def _may_be_far(self, answer: Pick) -> bool:
        """Return whether a pick may be worse than one of a pod that has a little too much."""
        adapter = self._request.adapter
        return (
            adapter is not None
            and self._room.stretches
            and answer.pod.beliefs.where(adapter) == AWAY
        )
