"""Which pods are asked for one token, so that they state how many adapter slots they have.

vLLM has no sample of ``vllm:lora_requests_info`` until it has served a request of any kind
(measured on 0.32.0), and the label ``max_lora`` of that sample is the only place where it states
the number. Until then a burst for more adapters than a pod has slots would look as if it fitted.
So a pod is asked if it lists adapters, and its number of slots is neither stated nor assumed.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState

MOST_ATTEMPTS = 3
"""How often a server is asked that still does not state the number. It may be another engine, or
the requests failed."""
_PAUSE_SECONDS = 5.0
_ENGINES = (None, "vllm")


@dataclass(slots=True)
class _Asked:
    """A pod that was asked."""

    attempts: int
    again_at: float


class FirstRequests:
    """The pods of one fleet that have served nothing yet."""

    def __init__(self, fleet: Fleet, ask: Callable[[PodState], None]) -> None:
        """Ask pods from now on.

        Args:
            fleet: The pods.
            ask: Sends a pod a request for one token. It must return at once.
        """
        self._fleet = fleet
        self._ask = ask
        self._asked: dict[PodState, _Asked] = {}
        fleet.changes.scraped.subscribe(self._scraped)
        fleet.changes.restarted.subscribe(self._restarted)
        fleet.changes.pods.subscribe(self._pods_changed)

    def _scraped(self, states: Collection[PodState]) -> None:
        for state in states:
            metrics = state.metrics
            if state.beliefs.slots is not None:
                self._asked.pop(state, None)
            elif metrics is not None and self._may_be_asked(state):
                self._ask_if_due(state, metrics.scraped_at)

    def _may_be_asked(self, state: PodState) -> bool:
        return (
            state.pod.ready
            and state.pod.engine in _ENGINES
            and bool(state.adapters)
            and bool(state.base_models)
        )

    def _ask_if_due(self, state: PodState, now: float) -> None:
        asked = self._asked.get(state)
        if asked is None:
            asked = self._asked[state] = _Asked(0, now)
        if asked.attempts < MOST_ATTEMPTS and now >= asked.again_at:
            asked.attempts += 1
            asked.again_at = now + _PAUSE_SECONDS
            self._ask(state)

    def _restarted(self, states: Collection[PodState]) -> None:
        for state in states:
            self._asked.pop(state, None)

    def _pods_changed(self, states: Collection[PodState]) -> None:
        for state in states:
            if self._fleet.get(state.pod.name) is not state:
                self._asked.pop(state, None)
