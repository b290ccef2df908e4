"""The reasons of decisions in words. A plug-in's reasons are not among them."""

from collections.abc import Mapping

REASONS: Mapping[str, str] = {
    # lora-placement
    "joined": "the adapter has requests in flight there",
    "placed": "it is the cheapest pod with a free slot",
    "spread": "a further slot is cheaper than the load of the pods that run the adapter",
    "no-slot": "no pod has a free slot for the adapter, and it can join none",
    "no-slot-near": "no pod with the adapter in host memory has a free slot; others would load it",
    "no-slot-in-time": "no slot became free in time",
    "base-model": "a base model needs no slot",
    # lora-affinity
    "affinity": "of the pods that have the adapter, it has the fewest requests",
    "capacity": "of the pods with room for the adapter, it has the fewest requests",
    "all-full": "no pod has the adapter or room for it, so one is taken at random",
    # the others
    "least-request": "it has the fewest requests in flight",
    "power-of-two": "it has fewer requests in flight than another pod, both taken at random",
    "only-pod": "there is no other",
    "random": "it is taken at random",
    "shard": "of the adapter's shard, it has the fewest requests in flight",
    "active": "its scores are the highest, and the adapter runs there",
    "waiting": "its scores are the highest, and the adapter waits there",
    "none": "its scores are the highest, although it is full",
    "gpu": "its scores are the highest, and the adapter is in a slot",
    "cpu": "its scores are the highest, and the adapter is in host memory",
    "free-slot": "its scores are the highest, and it has a free slot",
    "evictable": "its scores are the highest, and an idle adapter can be evicted",
    "saturated": "its scores are the highest, although every slot is busy",
    # the router
    "body-too-large": "its body is too large, which the client is told with status 413",
    "bad-model-name": "the name is not valid, which the client is told with status 400",
    "algorithm-failed": "the algorithm failed, so the pod with the fewest requests is taken",
    "base-fallback": "the adapter has no pod, so its base model answers",
    "pass-through": "the request names no model, and the pod has the fewest requests",
    "client-left": "the client left",
    "unknown-model": "no pod lists the model",
    "no-model": "it names no model",
    "unknown-algorithm": "there is no such algorithm",
    "bad-selector": "the filter cannot be read",
    "models-unknown": "no pod is known to serve the model, and some have not listed theirs yet",
    "no-ready-pod": "no pod that serves the model is ready",
    "none-selected": "the filter or the gateway's subset leaves no pod",
    "model-elsewhere": "the pod that made the ID does not serve the model",
    "overloaded": "no pod had room for as long as it may be held",
    "too-many-held": "as many requests as may be held are held already",
    "shutting-down": "the router is shutting down",
}
