"""``sticky-sessions``: a session stays on one of the adapter's two pods."""

import random

from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.least_request import least_loaded
from lora_router.routing.prefix_share import cached_share
from lora_router.simulator.engine_options import EngineOptions

PODS = 2
_SESSION_SHARE = 0.5
"""The share of a prompt that was there before if the prompt continues a session. A system prompt
alone is usually less."""


class StickySessions:
    """Keeps each adapter on two pods by hash, and each session on one of them.

    Shuffle sharding with sticky sessions, as gateways offer them by cookie or header. Requests of a
    simulation name no session. A prompt that begins with half of its tokens as an earlier one does,
    of the same model, continues that one's session. A new session begins on the pod of the two with
    fewer requests in flight. Sessions of a base model have all pods.
    """

    name = "sticky-sessions"
    reads_prompts = True

    def __init__(self, options: AlgorithmOptions, _engine: EngineOptions) -> None:
        self._random: random.Random = options.rng

    def pick(self, request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
        """Return the session's pod."""
        adapter = request.adapter
        pods = candidates if adapter is None else candidates.first(adapter, PODS)
        cached = candidates.cached(request.model, request.prompt)
        shares = [cached_share(cached, pod, request) for pod in pods]
        most = max(shares)
        if most < _SESSION_SHARE:
            return Pick(least_loaded(pods, self._random), "new-session")
        same = [pod for pod, share in zip(pods, shares, strict=True) if share == most]
        return Pick(least_loaded(same, self._random), "session")
