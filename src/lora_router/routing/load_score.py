"""The load score, which some algorithms add to their score for the adapter."""

import random
from collections.abc import Sequence

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import Cost, Sight
from lora_router.routing.least_request import load_of


def load_scores(pods: Sequence[PodView]) -> list[float]:
    """Return a score for each pod by its requests in flight.

    The pod with the fewest requests scores 1, the pod with the most scores 0, and the scale between
    them is linear. If all pods are equal, all score 1. This is the queue score of the Gateway API
    Inference Extension, but computed from the counts of this router and its peers instead of the
    server's queue at the last scrape.
    """
    return scores_of([pod.in_flight + pod.beliefs.peers.requests for pod in pods])


def scores_of(counts: Sequence[int]) -> list[float]:
    """Return the same scores for pods with some numbers of requests in flight."""
    most = max(counts)
    spread = most - min(counts)
    if spread == 0:
        return [1.0] * len(counts)
    return [(most - count) / spread for count in counts]


def highest_sum(scores: Sequence[float], others: Sequence[float], rng: random.Random) -> int:
    """Return the position at which the sum of both scores is highest, with ties at random."""
    sums = [one + other for one, other in zip(scores, others, strict=True)]
    highest = max(sums)
    ties = [position for position, value in enumerate(sums) if value == highest]
    return ties[0] if len(ties) == 1 else rng.choice(ties)


def score_costs(scores: Sequence[float], sights: Sequence[Sight]) -> list[Cost]:
    """Return costs that explain ``highest_sum`` of some scores for adapters and of load scores."""
    loads = scores_of([load_of(sight) for sight in sights]) if sights else []
    return [
        Cost({"adapter-score": -score, "load-score": -load})
        for score, load in zip(scores, loads, strict=True)
    ]
