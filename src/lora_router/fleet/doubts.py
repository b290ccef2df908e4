"""Models that a pod was believed to serve, and that it answered 404 for.

Until the pod's list of models has been read again, other pods are preferred for that model.
"""

from collections.abc import Collection, Iterable

from lora_router.fleet.pod_state import PodState

_MAX_MODELS = 1024
"""How many models may be doubted at the same time."""
_NONE: frozenset[PodState] = frozenset()


class Doubts:
    """The doubts of one fleet."""

    def __init__(self) -> None:
        self._pods: dict[str, set[PodState]] = {}

    def about(self, model: str) -> Collection[PodState]:
        """Return the pods that are doubted to serve a model."""
        return self._pods.get(model, _NONE) if self._pods else _NONE

    def add(self, state: PodState, model: str) -> bool:
        """Doubt that a pod serves a model; return whether that changes anything."""
        pods = self._pods.get(model)
        if pods is None:
            if len(self._pods) >= _MAX_MODELS:
                return False
            pods = self._pods[model] = set()
        if state in pods:
            return False
        pods.add(state)
        return True

    def settle(self, state: PodState) -> Iterable[str]:
        """Forget all doubts about a pod, whose list has been read; return their models."""
        settled = [model for model, pods in self._pods.items() if state in pods]
        for model in settled:
            pods = self._pods[model]
            pods.discard(state)
            if not pods:
                del self._pods[model]
        return settled
