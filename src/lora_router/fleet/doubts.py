"""Models that a pod was believed to serve, and that it answered 404 for.

Until the pod's list of models has been read again, other pods are preferred for that model. If the
list still has the model and the pod answers 404 again, the doubt lasts longer each time.
"""

from collections.abc import Callable, Collection, Iterable

from lora_router.fleet.pod_state import PodState

LONGEST_SECONDS = 60.0
"""The longest doubt in a model that is in the pod's list."""
FORGET_SECONDS = 120.0
"""After this long without a 404, the next one is the first again."""
_MAX_MODELS = 1024
"""How many models may be doubted at the same time."""
_MAX_DENIALS = 4096
"""How many pairs of a pod and a model have their denials counted."""
_NONE: frozenset[PodState] = frozenset()


class Doubts:
    """The doubts of one fleet."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._pods: dict[str, dict[PodState, float]] = {}
        """For each model, the doubted pods, each with the time until which the doubt lasts whatever
        the pod's list says."""
        self._denials: dict[tuple[str, PodState], tuple[int, float]] = {}
        """How often a pod denied a model, and when it did last."""

    def about(self, model: str) -> Collection[PodState]:
        """Return the pods that are doubted to serve a model."""
        return self._pods.get(model, _NONE) if self._pods else _NONE

    def add(self, state: PodState, model: str) -> bool:
        """Doubt that a pod serves a model; return whether that changes anything."""
        pods = self._pods.get(model)
        if pods is None:
            if len(self._pods) >= _MAX_MODELS:
                return False
            pods = self._pods[model] = {}
        if state in pods:
            return False
        pods[state] = self._until(state, model)
        return True

    def settle(self, state: PodState) -> Iterable[str]:
        """Forget the doubts about a pod whose list has been read; return their models."""
        now = self._now()
        return self._forget(
            [
                (model, state)
                for model, pods in self._pods.items()
                if pods.get(state, now + 1) <= now
            ]
        )

    def expire(self) -> Iterable[str]:
        """Forget the doubts that lasted long enough; return their models."""
        if not self._pods:
            return ()
        now = self._now()
        return self._forget(
            [
                (model, state)
                for model, pods in self._pods.items()
                for state, until in pods.items()
                if 0 < until <= now
            ]
        )

    def leave(self, state: PodState) -> None:
        """Forget a pod that has left."""
        if not self._denials:
            return
        self._forget([(model, state) for model, pods in self._pods.items() if state in pods])
        for key in [key for key in self._denials if key[1] is state]:
            del self._denials[key]

    def _until(self, state: PodState, model: str) -> float:
        now, key = self._now(), (model, state)
        count, last = self._denials.pop(key, (0, now))
        if now - last > FORGET_SECONDS:
            count = 0
        elif len(self._denials) >= _MAX_DENIALS:
            del self._denials[next(iter(self._denials))]
        self._denials[key] = count + 1, now
        return now + min(2.0**count, LONGEST_SECONDS) if count else 0.0

    def _forget(self, found: Collection[tuple[str, PodState]]) -> Collection[str]:
        for model, state in found:
            pods = self._pods[model]
            del pods[state]
            if not pods:
                del self._pods[model]
        return {model for model, _ in found}
