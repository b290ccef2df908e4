"""*Other copies*: what it is worth that all but one copy of an adapter drain.

An adapter that is in flight on several pods holds a slot on each of them, and requests that are
spread evenly over them hold these slots for ever. While others need slots, the pod that already
runs more of the adapter's requests is therefore cheaper to join, so that the other copies drain.
Others need slots

- while requests wait in this router, and
- where routers exchange shares, always: two of them may have placed an adapter at the same time.
"""

from lora_router.fleet.pod_state import PodView

COPY_PRICE = 2.0
"""Reduction of a pod's cost in the choice of a pod to join, for each request of the adapter on that
pod, up to ``MOST_REQUESTS`` requests. With a lower value, requests wait for slots while hot
adapters keep several. A higher value makes the pods of hot adapters busier, and for longer."""
MOST_REQUESTS = 20


def drains_copies(pod: PodView, held: int) -> bool:
    """Return whether other copies of an adapter on a pod should drain.

    Args:
        pod: The pod.
        held: Requests that wait in this router for pods of the same base model.
    """
    return held > 0 or pod.beliefs.peers.allotment is not None


def reduction(requests: int) -> float:
    """Return by what a pod is cheaper to join that runs requests of the adapter already.

    Args:
        requests: How many it runs.
    """
    counted = requests if requests < MOST_REQUESTS else MOST_REQUESTS  # noqa: FURB136 -- a call
    return COPY_PRICE * counted
