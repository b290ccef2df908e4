"""``prefix-cache``: AIBrix's routing by prefix cache, with its two guards against uneven load.

Source: AIBrix, ``pkg/plugins/gateway/algorithms/prefix_cache.go`` and ``prefix_cache_readme.md``,
commit e3e10f9 (2026-08-22), with the values of its manifests. The code's own defaults for settings
that no manifest sets are lower: 8 requests and a factor of 1.
"""

import math
import random
from collections.abc import Mapping, Sequence

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import (
    AlgorithmOptions,
    Cost,
    InferenceRequest,
    Pick,
    Sight,
)
from lora_router.routing.candidates import FULL_LOOK, Candidates
from lora_router.routing.fallback import accepts_any
from lora_router.routing.least_request import least_loaded, load_costs, requests_in_flight
from lora_router.routing.prefix_share import cached_share

IMBALANCE = "prefix_cache_imbalance_requests"
FACTOR = "prefix_cache_deviation_factor"
_DEFAULT_IMBALANCE = 16.0
_DEFAULT_FACTOR = 2.0
_MOST = 1_000_000.0
_SAMPLE = 32
"""Of a large fleet, how many random pods stand for all in the mean and the standard deviation."""


class PrefixCache:
    """Prefers pods that have the beginning of the prompt, unless they have too many requests.

    1. If the pods with the most and the fewest requests in flight differ by more than
       ``prefix_cache_imbalance_requests`` (default: 16), the load is *imbalanced*, and only the
       pods with the fewest requests are considered in step 2.
    2. The pods that have a part of the prompt are sorted by the share that they have, in whole
       percent, the highest first, and then by their requests in flight. The first one with at most
       ``mean + factor * standard deviation`` requests is picked. Mean and deviation are those of
       all pods, and the factor is ``prefix_cache_deviation_factor`` (default: 2).
    3. If there is none, the pod with the fewest requests in flight is picked.

    Ties are broken at random. Adapters and their slots are not considered, except that prompts of
    different models have nothing in common. AIBrix reads these two options from
    ``AIBRIX_PREFIX_CACHE_POD_RUNNING_REQUEST_IMBALANCE_ABS_COUNT`` and
    ``AIBRIX_PREFIX_CACHE_STANDARD_DEVIATION_FACTOR``, hashes blocks of 128 characters, and forgets
    them after 20 minutes. Here the router's own index of prefixes is used.
    """

    name = "prefix-cache"
    option_names = (IMBALANCE, FACTOR)
    interface_version = 2
    reads_prompts = True
    accepts = staticmethod(accepts_any)

    def __init__(self, options: AlgorithmOptions) -> None:
        self._random: random.Random = options.rng
        self._imbalance = _number(options.extra, IMBALANCE, _DEFAULT_IMBALANCE)
        self._factor = _number(options.extra, FACTOR, _DEFAULT_FACTOR)

    def pick(self, request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
        """Return a pick by the steps above."""
        cached = candidates.cached(request.model, request.prompt)
        pods = candidates.shortlist(request.adapter, self._random, cached)
        if not cached:
            return Pick(least_loaded(pods, self._random), "no-match")
        counts = [requests_in_flight(pod) for pod in pods]
        fewest = min(counts)
        imbalanced = max(counts) - fewest > self._imbalance
        limit = fewest if imbalanced else self._limit(candidates, counts)
        best: list[PodView] = []
        best_rank = (0, 0)
        matched = False
        for pod, count in zip(pods, counts, strict=True):
            percent = _percent(cached, pod, request)
            if not percent:
                continue
            matched = True
            rank = percent, -count
            if count > limit or rank < best_rank:
                continue
            if rank > best_rank:
                best, best_rank = [], rank
            best.append(pod)
        if best:
            return Pick(best[0] if len(best) == 1 else self._random.choice(best), "prefix-match")
        reason = "imbalanced" if imbalanced else "match-overloaded" if matched else "no-match"
        return Pick(least_loaded(pods, self._random), reason)

    def _limit(self, candidates: Candidates, counts: Sequence[int]) -> float:
        """Return the most requests in flight with which a pod that matches is picked."""
        if len(candidates) > FULL_LOOK:
            some = self._random.sample(candidates, _SAMPLE)
            counts = [requests_in_flight(pod) for pod in some]
        return _limit(counts, self._factor)

    def terms(
        self,
        request: InferenceRequest,
        sights: Sequence[Sight],
        candidates: Candidates | None,
        _now: float,
    ) -> Sequence[Cost]:
        """Return the share of the prompt in percent as a negative cost, and the requests in flight.

        The requests decide between pods with the same share, so they are given in thousandths. The
        share of a past decision is not known. Only its requests are returned.
        """
        costs = load_costs(sights)
        cached = {} if candidates is None else candidates.cached(request.model, request.prompt)
        if not cached or not sights:
            return costs
        counts = [cost.terms["requests"] for cost in costs]
        fewest = min(counts)
        imbalanced = max(counts) - fewest > self._imbalance
        limit = fewest if imbalanced else _limit(counts, self._factor)
        shares = [
            0 if sight.view is None else _percent(cached, sight.view, request) for sight in sights
        ]
        found: list[Cost] = []
        for share, count in zip(shares, counts, strict=True):
            if count > limit:
                found.append(Cost(excluded=_TOO_MANY[imbalanced]))
            elif not share:
                found.append(Cost(excluded="has nothing of the prompt"))
            else:
                found.append(Cost({"prefix-percent": -share, "requests": count / 1000}))
        return found if any(not cost.excluded for cost in found) else costs


_TOO_MANY = {
    True: "the load is imbalanced, and other pods have fewer requests",
    False: "more requests than the mean and some standard deviations",
}


def _percent(cached: Mapping[PodView, float], pod: PodView, request: InferenceRequest) -> int:
    return int(100 * cached_share(cached, pod, request))


def _limit(counts: Sequence[float], factor: float) -> float:
    mean = sum(counts) / len(counts)
    if len(counts) < 2:
        return mean
    variance = sum([(count - mean) ** 2 for count in counts]) / (len(counts) - 1)
    return mean + factor * math.sqrt(variance)


def _number(options: Mapping[str, str], name: str, default: float) -> float:
    text = options.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= _MOST:
        raise ValueError(f"{name}={text}: must be a number from 0 to {_MOST:.0f}")
    return value
