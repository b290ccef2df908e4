"""*Peers*: what it costs that several routers decide about the same pods.

Two routers that exchange shares may place an adapter on two pods at the same time. The pod that
already runs more of its requests is cheaper, so that the other copy drains. A slot in another
router's allotment (``fleet/slot_allotment.py``) is worth a short wait.
"""

from lora_router.fleet.pod_state import PodView
from lora_router.routing.slot_closing import in_flight

TURN_PRICE = 8.0
"""Price of waiting for a slot in another router's allotment. A lower value makes requests wait to
avoid a load that takes no longer than the wait. A higher value makes pods fetch adapters from a
remote store although another pod has them."""
TWIN_PRICE = 2.0
"""Reduction of a pod's load in the choice of a pod to join, for each request of the adapter on that
pod, up to ``TWIN_REQUESTS`` requests. With a lower value, adapters that two routers placed at the
same time keep two slots. A higher value makes their pods busier, and for longer."""
TWIN_REQUESTS = 12


def reduction(pod: PodView, adapter: str) -> float:
    """Return by what a pod is cheaper to join that runs requests of the adapter already.

    It is 0 unless this router exchanges shares with others.
    """
    if pod.beliefs.peers.allotment is None:
        return 0.0
    return TWIN_PRICE * min(in_flight(pod, adapter), TWIN_REQUESTS)
