"""The load score that policies of scorers add to what they think of a pod's adapters."""

import random
from collections.abc import Sequence

from lora_router.fleet.pod_state import PodView


def load_scores(pods: Sequence[PodView]) -> list[float]:
    """Score each pod by its requests in flight: 1 for the fewest, 0 for the most, linear between.

    All pods score 1 when they are equal. It is the queue score of the Gateway API Inference
    Extension, over this router's own count instead of the server's queue a scrape ago.
    """
    counts = [pod.in_flight for pod in pods]
    most = max(counts)
    spread = most - min(counts)
    if spread == 0:
        return [1.0] * len(counts)
    return [(most - count) / spread for count in counts]


def highest_sum(scores: Sequence[float], others: Sequence[float], rng: random.Random) -> int:
    """Return the position at which two scores add up to the most, ties at random."""
    sums = [one + other for one, other in zip(scores, others, strict=True)]
    highest = max(sums)
    ties = [position for position, value in enumerate(sums) if value == highest]
    return ties[0] if len(ties) == 1 else rng.choice(ties)
