"""Whether what a peer told of a pod contradicts what this router has read itself. No I/O.

Both read at different times, so that numbers may differ. A reading of this router is compared with
the peer's readings before and after it, and only a large difference from both is a contradiction.
A lie that is too small to be noticed is too small to matter.
"""

from lora_router.fleet.catalog import Catalog
from lora_router.fleet.pod_metrics import PodMetrics

_REQUESTS = 8.0
"""Requests that may come and go between two reads."""
_SHARE = 0.5
"""The same as a share of all requests of the pod."""
_ADAPTERS = 3
"""Adapters that may become active or idle between two reads."""
_RESTART_SECONDS = 1.0


def contradiction(
    own: PodMetrics | Catalog, before: PodMetrics | Catalog, after: PodMetrics | Catalog
) -> str | None:
    """Return what contradicts, or ``None``.

    Args:
        own: What this router read.
        before: The same page as a peer read it before, and
        after: as it read it afterwards.
    """
    if isinstance(own, Catalog):
        if isinstance(before, Catalog) and isinstance(after, Catalog):
            differs = not (_same_models(own, before) or _same_models(own, after))
            return "list of models" if differs else None
        return None
    if not isinstance(before, PodMetrics) or not isinstance(after, PodMetrics):
        return None
    if _differs(own.started_at, before.started_at, after.started_at, _RESTART_SECONDS):
        return "start of the server"
    if _differs(_slots(own), _slots(before), _slots(after), 0.0):
        return "number of slots"
    if _load_differs(own, before, after):
        return "number of requests"
    if _adapters_differ(own, before, after):
        return "active adapters"
    return None


def _same_models(one: Catalog, other: Catalog) -> bool:
    return one is other or (one.base_models == other.base_models and one.adapters == other.adapters)


def _differs(own: float | None, before: float | None, after: float | None, slack: float) -> bool:
    if own is None or before is None or after is None:
        return False
    return abs(own - before) > slack and abs(own - after) > slack


def _slots(metrics: PodMetrics) -> int | None:
    return None if metrics.lora is None else metrics.lora.max_lora


def _requests(metrics: PodMetrics) -> float:
    return (metrics.running or 0.0) + (metrics.waiting or 0.0)


def _load_differs(own: PodMetrics, before: PodMetrics, after: PodMetrics) -> bool:
    load, told = _requests(own), sorted((_requests(before), _requests(after)))
    slack = max(_REQUESTS, _SHARE * max(load, told[0]))
    return load < told[0] - slack or load > told[1] + slack


def _adapters_differ(own: PodMetrics, before: PodMetrics, after: PodMetrics) -> bool:
    if own.lora is None or before.lora is None or after.lora is None:
        return False
    active, first, last = own.lora.active, before.lora.active, after.lora.active
    invented, concealed = (first & last) - active, active - (first | last)
    return len(invented) > max(_ADAPTERS, _SHARE * len(active)) or len(concealed) > max(
        _ADAPTERS, _SHARE * len(active)
    )
