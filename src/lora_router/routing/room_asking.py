"""Asks an algorithm where pods may have no room apart from slots (``pod_room``).

The answer is one about all candidates if its pod has room. Otherwise it is one about those that
have room, unless the request costs the fleet much more there:

- A pod with room would process what the full pod has of the prompt. If conversations moved to the
  next pod with room, each of them would be processed again from its beginning. The pods would be
  busier then, and more of them full, so that more conversations move, until no cache is of any use.
- A pod with room would load the adapter from disk. That stops its batch, so that more pods are
  full, and evicts another adapter, which has to be loaded in its turn.

Then the full pod takes the request, until it has ``HOME_STRETCH`` times as many as it may have.
``max_requests_per_pod`` holds all the same.

In a large fleet, the pods with room are known at any time, so the algorithm is asked about these
first, and most answers are final. It is asked about all candidates only if that may change the
answer: if it holds the request, or if a full pod may take it.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice

from lora_router.fleet.index import FleetIndex
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import Algorithm, Hold, InferenceRequest, Pick, WakesOn
from lora_router.routing.answer_check import AlgorithmCaller
from lora_router.routing.candidates import FULL_LOOK, Candidates
from lora_router.routing.overload import AS_LONG_AS_ALLOWED, NO_ROOM
from lora_router.routing.pod_room import HOME_STRETCH, PodRoom
from lora_router.routing.slot_closing import in_flight
from lora_router.routing.terms.adapter import shared

MOVE_SECONDS = 0.1
"""A request stays with a full pod if another one would be busy with its prompt and its adapter for
so much longer. A lower value lets a full pod have more requests. A higher value lets prompts be
processed again that are in a cache, and adapters be loaded again."""


class RoomAsking:
    """One question to an algorithm."""

    __slots__ = (
        "_algorithm",
        "_cached",
        "_caller",
        "_candidates",
        "_now",
        "_queued_too",
        "_request",
        "_room",
    )

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
        self._cached: Mapping[PodView, float] | None = None
        """What pods have of the prompt, once somebody asked."""

    def answer(self) -> Pick | Hold:
        """Return the answer, which is no pick of a pod that has no room."""
        candidates = self._candidates
        index = candidates.fleet_index
        if index is None:
            first = self._ask(candidates)
            if isinstance(first, Hold) or not self._is_full(first.pod):
                return first
            some = self._each_with_room()
            return self._instead(first, None if some is None else self._ask(some))
        answer = self._about_roomy(index)
        if isinstance(answer, Pick) and not (
            self._may_load(answer, index) or self._may_lack(answer)
        ):
            return answer
        first = self._ask(candidates)
        if isinstance(first, Hold) or not self._is_full(first.pod):
            return first
        return self._instead(first, answer)

    def _ask(self, candidates: Candidates) -> Pick | Hold:
        return self._caller.ask(self._algorithm, self._request, candidates, self._now)

    def _is_full(self, pod: PodView, stretch: float = 1.0) -> bool:
        return self._room.is_full(pod, self._now, stretch, queued_too=self._queued_too)

    def _each_with_room(self) -> Candidates | None:
        return self._room.with_room(self._candidates, self._now, queued_too=self._queued_too)

    def _about_roomy(self, index: FleetIndex) -> Pick | Hold | None:
        """Return the answer about the candidates of a large fleet with room; ``None``: none has."""
        candidates = self._candidates
        roomy = self._room.roomy(index, queued_too=self._queued_too)
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
        if self._stays(first, answer):
            return first
        if answer is None:
            if self._request.may_hold or room.is_at_limit(first.pod):
                return self._no_room(first)
            return first
        if isinstance(answer, Hold):
            return replace(answer, reason=NO_ROOM)
        return answer

    def _no_room(self, first: Pick) -> Hold:
        home = first.pod if self._takes_longer(first, None) else None
        return Hold(NO_ROOM, AS_LONG_AS_ALLOWED, wakes_on=WakesOn.ROOM, home=home)

    def _stays(self, first: Pick, answer: Pick | Hold | None) -> bool:
        """Return whether a pick of a full pod stands. The arguments are those of ``_instead``."""
        if isinstance(answer, Hold) or not self._takes_longer(first, answer):
            return False
        return not self._is_full(first.pod, HOME_STRETCH)

    def _takes_longer(self, first: Pick, answer: Pick | None) -> bool:
        """Return whether a request takes a pod much longer elsewhere than on its first pod.

        If no pod has room (``None``), nobody knows where it goes later: it is taken to be a pod
        that has nothing of the prompt.
        """
        pod = (answer or first).pod
        seconds = 0.0
        if cached := self._having():
            has = 0.0 if answer is None else cached.get(pod, 0.0)
            seconds = (cached.get(first.pod, 0.0) - has) / pod.work.tokens_a_second
        if answer is not None and self._is_far(answer):
            seconds += self._more_to_load(first.pod, pod)
        return seconds > MOVE_SECONDS

    def _more_to_load(self, first: PodView, pod: PodView) -> float:
        """Return how much longer a pod loads the adapter than the first one, for each request."""
        adapter = self._request.adapter or ""
        more = pod.beliefs.seconds_to_load(adapter) - first.beliefs.seconds_to_load(adapter)
        return shared(more, in_flight(first, adapter))

    def _may_lack(self, answer: Pick) -> bool:
        """Return whether a pod that has much more of the prompt may take it, although it is full.

        Otherwise the algorithm need not be asked about it, which takes as long as the first answer.
        """
        cached = self._having()
        home = next(iter(cached), None)
        return (
            home is not None
            and cached[home] - cached.get(answer.pod, 0.0)
            > MOVE_SECONDS * answer.pod.work.tokens_a_second
            and not self._is_full(home, HOME_STRETCH)
        )

    def _may_load(self, answer: Pick, index: FleetIndex) -> bool:
        """Return whether a full pod may take the request, because the adapter runs there.

        Some of the pods that run the adapter are looked at.
        """
        if not self._is_far(answer):
            return False
        running = index.running(self._request.adapter or "")
        return any(not self._is_full(pod, HOME_STRETCH) for pod in islice(running, FULL_LOOK))

    def _having(self) -> Mapping[PodView, float]:
        """Return how much of the prompt pods have, the one with the most first."""
        if self._cached is None:
            self._cached = self._candidates.cached(self._request.model, self._request.prompt)
        return self._cached

    def _is_far(self, answer: Pick) -> bool:
        """Return whether the pod of a pick has to load the adapter for long."""
        adapter, pod = self._request.adapter, answer.pod
        return (
            adapter is not None
            and adapter not in pod.in_flight_adapters  # Usual, and known at once.
            and pod.beliefs.seconds_to_load(adapter) > MOVE_SECONDS
        )
