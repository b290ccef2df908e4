"""``weighted-scores``: the pod with the highest weighted sum of scores, as in profiles of llm-d.

For comparison, and for those who come from llm-d or from the Gateway API Inference Extension and
want to keep their weights.
"""

import math
import random
from collections.abc import Mapping, Sequence

from lora_router.routing.algorithm import (
    AlgorithmOptions,
    Cost,
    InferenceRequest,
    Pick,
    Sight,
)
from lora_router.routing.candidates import Candidates
from lora_router.routing.pod_scores import SCORERS, Seen

PROFILE = "weighted_scores"
PICKER = "weighted_scores_picker"
DEFAULT = "prefix:3 lora:1 queue:2"
MAX_SCORE, WEIGHTED_RANDOM = "max-score", "weighted-random"
_MOST_WEIGHT = 1000.0


class WeightedScores:
    """Adds the scores of a profile, each times its weight.

    1. The profile names scorers and their weights (option ``weighted_scores``). The default is
       ``prefix:3 lora:1 queue:2``: llm-d's weights of the prefix cache and of the queue, and its
       adapter scorer with the weight that its documentation shows. llm-d's own default profile has
       no adapter scorer: ``prefix:3 queue:2 kv:2`` (llm-d-router 0.9 and its chart, commit ebab687
       of 2026-08-21; Gateway API Inference Extension 1.2 to 1.5).
    2. ``pod_scores`` defines the scores: ``prefix``, ``lora``, ``queue``, ``kv`` and ``requests``.
       All but ``prefix`` and ``requests`` come from the last scrape.
    3. The *picker* (option ``weighted_scores_picker``) is ``max-score``: the pod with the highest
       sum, with ties at random; or ``weighted-random``: a random pod, with probabilities that rise
       with the sums (Efraimidis and Spirakis, 2006).

    llm-d scrapes pods every 50 ms. The queue and KV scores are as old as this router's last scrape
    (``scrape_interval``).
    """

    name = "weighted-scores"
    option_names = (PROFILE, PICKER)
    interface_version = 2
    reads_prompts = True

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random = options.rng
        self._max_age = options.metrics_max_age
        self._weights = read_profile(options.extra.get(PROFILE, DEFAULT))
        self._is_random = _read_picker(options.extra.get(PICKER, MAX_SCORE)) == WEIGHTED_RANDOM

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick:
        """Return a pick of the pod with the highest sum, or of a random one by the sums."""
        cached = candidates.cached(request.model, request.prompt)
        pods = candidates.shortlist(request.adapter, self._random, cached)
        metrics = [pod.fresh_metrics(now, self._max_age) for pod in pods]
        sums = self._sums(Seen(request, pods, metrics, cached))
        position = (weighted_random if self._is_random else highest)(sums, self._random)
        pod = pods[position]
        return Pick(pod, "prefix" if pod in cached else "no-prefix")

    def _sums(self, seen: Seen) -> list[float]:
        sums = [0.0] * len(seen.pods)
        for name, weight in self._weights.items():
            for position, score in enumerate(SCORERS[name](seen)):
                sums[position] += weight * score
        return sums

    def terms(
        self,
        request: InferenceRequest,
        sights: Sequence[Sight],
        candidates: Candidates | None,
        now: float,
    ) -> Sequence[Cost]:
        """Return the weighted scores as negative costs (``Explains``).

        The scores of a past decision are not known: the snapshots and caches have changed since.
        """
        pods = [sight.view for sight in sights if sight.view is not None]
        if candidates is None or len(pods) < len(sights):
            return [Cost()] * len(sights)
        cached = candidates.cached(request.model, request.prompt)
        metrics = [pod.fresh_metrics(now, self._max_age) for pod in pods]
        seen = Seen(request, pods, metrics, cached)
        scores = {name: SCORERS[name](seen) for name in self._weights} if pods else {}
        return [
            Cost(
                {
                    f"{name}-score": -weight * scores[name][position]
                    for name, weight in self._weights.items()
                }
            )
            for position in range(len(sights))
        ]


def highest(sums: Sequence[float], rng: random.Random) -> int:
    """Return the position of the highest sum, with ties at random."""
    most = max(sums)
    ties = [position for position, value in enumerate(sums) if value == most]
    return ties[0] if len(ties) == 1 else rng.choice(ties)


def weighted_random(sums: Sequence[float], rng: random.Random) -> int:
    """Return a random position, each with a probability in proportion to its sum.

    If no sum is above 0, all positions are equally likely.
    """
    if max(sums) <= 0.0:
        return int(rng.random() * len(sums))
    # Of U ** (1 / weight) the largest is as likely that of an item as its weight says.
    keys = [rng.random() ** (1.0 / value) if value > 0.0 else -1.0 for value in sums]
    return keys.index(max(keys))


def read_profile(text: str) -> Mapping[str, float]:
    """Return the weights of a profile by the names of its scorers, without those of weight 0.

    Raises:
        ValueError: The text is not a profile. The message says what is allowed.
    """
    weights: dict[str, float] = {}
    for part in text.split():
        name, _, written = part.partition(":")
        try:
            weight = float(written)
        except ValueError:
            weight = math.nan
        if name not in SCORERS or name in weights or not 0.0 <= weight <= _MOST_WEIGHT:
            raise ValueError(
                f"{PROFILE}={text}: must be NAME:WEIGHT, separated by spaces, such as {DEFAULT}; "
                f"the names are {', '.join(SCORERS)}, each at most once, and weights are numbers "
                f"from 0 to {_MOST_WEIGHT:.0f}"
            )
        weights[name] = weight
    kept = {name: weight for name, weight in weights.items() if weight > 0.0}
    if not kept:
        raise ValueError(f"{PROFILE}={text}: at least one weight must be above 0")
    return kept


def _read_picker(text: str) -> str:
    if text not in {MAX_SCORE, WEIGHTED_RANDOM}:
        raise ValueError(f"{PICKER}={text}: must be {MAX_SCORE} or {WEIGHTED_RANDOM}")
    return text
