"""``llm-d-default``: the default profile of llm-d-router, which has no score for adapters."""

from dataclasses import replace

from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.weighted_scores import PROFILE, WeightedScores
from lora_router.simulator.engine_options import EngineOptions


class LlmdDefault(WeightedScores):
    """``weighted-scores`` with other weights."""

    name = "llm-d-default"

    def __init__(self, options: AlgorithmOptions, _engine: EngineOptions) -> None:
        profile = {PROFILE: "prefix:3 queue:2 kv:2"}
        super().__init__(replace(options, extra=profile))
