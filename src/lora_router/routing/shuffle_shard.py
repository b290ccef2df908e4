"""``shuffle-shard``: a few pods for each adapter, always the same ones.

The first attempt at placement in llm-d-router (pull request 720) works this way.
"""

from collections.abc import Mapping, Sequence

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import (
    AlgorithmOptions,
    Cost,
    InferenceRequest,
    Pick,
    Sight,
)
from lora_router.routing.candidates import Candidates
from lora_router.routing.least_request import least_loaded, load_of

OPTION = "shuffle_shard_k"
DEFAULT_PODS = 2


class ShuffleShard:
    """Keeps each adapter on ``k`` pods.

    1. A request for a base model can run anywhere. It is routed by least-request over all
       candidates.
    2. The shard of an adapter consists of its first ``k`` candidates by rendezvous hashing, or of
       all candidates if there are fewer. A pod that leaves or joins changes only the shards that
       contain it.
    3. Within the shard, the pod with the fewest requests in flight is picked. Ties are broken at
       random.

    The algorithm reads no metrics, so routers agree without communication. For the same reason it
    does not see that a pod of the shard is full while other pods are idle. Set ``k`` with
    ``shuffle_shard_k`` in ``algorithm_options`` (default: 2).
    """

    name = "shuffle-shard"
    option_names = (OPTION,)

    def __init__(self, options: AlgorithmOptions) -> None:
        self._pods = _pods_for_each(options.extra)
        self._random = options.rng

    def pick(self, request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
        """Return the least loaded pod of the adapter's shard."""
        adapter = request.adapter
        if adapter is None:
            pods = candidates.shortlist(None, self._random)
            return Pick(least_loaded(pods, self._random), "base-model")
        shard = candidates.first(adapter, self._pods)
        return Pick(least_loaded(shard, self._random), "shard")

    def terms(
        self,
        request: InferenceRequest,
        sights: Sequence[Sight],
        candidates: Candidates | None,
        _now: float,
    ) -> Sequence[Cost]:
        """Return the requests in flight of the pods in the adapter's shard (``Explains``).

        The shard of a past decision is not known.
        """
        shard: Sequence[PodView] | None = None
        if request.adapter is not None and candidates is not None:
            shard = candidates.first(request.adapter, self._pods)
        return [
            Cost({"requests": load_of(sight)})
            if shard is None or sight.view in shard
            else Cost(excluded="not in the adapter's shard")
            for sight in sights
        ]


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
