"""``random``: any candidate, all alike."""

from collections.abc import Sequence

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick


class RandomPod:
    """Any of the candidates, each as likely as the others. The floor to compare with."""

    name = "random"

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random = options.rng

    def pick(self, _request: InferenceRequest, candidates: Sequence[PodView], _now: float) -> Pick:
        """Choose."""
        return Pick(self._random.choice(candidates), "random")
