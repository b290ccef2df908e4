"""``shuffle-shard``: a few pods for each adapter, always the same ones.

The first attempt at placement in llm-d-router (pull request 720) works this way.
"""

from collections.abc import Mapping

from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.least_request import least_loaded

OPTION = "shuffle_shard_k"
DEFAULT_PODS = 2


class ShuffleShard:
    """Keep each adapter on ``k`` pods, in these steps.

    1. A request for a base model can run anywhere: least-request over all candidates.
    2. The adapter's shard: its first ``k`` candidates by rendezvous hashing, all of them if there
       are fewer. A pod that leaves or joins changes the shards it is in and no others.
    3. Within the shard: fewest requests in flight, ties at random.

    It reads no metrics, so routers agree without hearing of each other; nor does it see that a pod
    of the shard is full while others are idle. ``k`` is 2, or ``shuffle_shard_k`` among the
    ``algorithm_options``.
    """

    name = "shuffle-shard"
    option_names = (OPTION,)

    def __init__(self, options: AlgorithmOptions) -> None:
        self._pods = _pods_for_each(options.extra)
        self._random = options.rng

    def pick(self, request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
        """Choose."""
        adapter = request.adapter
        if adapter is None:
            pods = candidates.shortlist(None, self._random)
            return Pick(least_loaded(pods, self._random), "base-model")
        shard = candidates.first(adapter, self._pods)
        return Pick(least_loaded(shard, self._random), "shard")


def _pods_for_each(options: Mapping[str, str]) -> int:
    text = options.get(OPTION)
    if text is None:
        return DEFAULT_PODS
    try:
        pods = int(text)
    except ValueError:
        pods = 0
    if pods < 1:
        raise ValueError(f"{OPTION}={text}: must be a whole number, at least 1")
    return pods
