"""``random``: any candidate, all alike."""

from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates


class RandomPod:
    """Any of the candidates, each as likely as the others. The floor to compare with."""

    name = "random"

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random = options.rng

    def pick(self, _request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
        """Choose."""
        return Pick(self._random.choice(candidates), "random")
