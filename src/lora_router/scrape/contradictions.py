"""Whether what a peer told of a pod contradicts what this router has read itself. No I/O.

Routers read a pod at different times, and what they read changes in between: requests and adapters
come and go, and a starved router reads late. So only what all readings of one side agree on counts:
a value of this router's readings that none of the peer's readings before, between and after them
shows. The more readings there are, the less can have changed unseen. Nothing that the peer tells
makes its readings less comparable.
A lie that is too small to be noticed is too small to matter.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from lora_router.fleet.catalog import Catalog
from lora_router.fleet.pod_metrics import PodMetrics

_REQUESTS = 8.0
"""Requests that may come and go between two reads."""
_SHARE = 0.5
"""The same as a share of all requests of the pod."""
_ADAPTERS = 3
"""Adapters that may become active or idle between two reads."""
_RESTART_SECONDS = 1.0

_Item = TypeVar("_Item")


def contradiction(
    own: Sequence[PodMetrics | Catalog], told: Sequence[PodMetrics | Catalog]
) -> str | None:
    """Return what contradicts, or ``None``.

    Args:
        own: What this router read.
        told: The same page as a peer read it before that, in between, and afterwards.
    """
    own_lists = [each for each in own if isinstance(each, Catalog)]
    told_lists = [each for each in told if isinstance(each, Catalog)]
    if own_lists or told_lists:
        is_comparable = len(own_lists) == len(own) and len(told_lists) == len(told)
        differ = is_comparable and _lists_differ(own_lists, told_lists)
        return "list of models" if differ else None
    return _pages_contradict(
        [each for each in own if isinstance(each, PodMetrics)],
        [each for each in told if isinstance(each, PodMetrics)],
    )


def _pages_contradict(own: Sequence[PodMetrics], told: Sequence[PodMetrics]) -> str | None:
    if _differ(own, told, lambda metrics: metrics.started_at, _RESTART_SECONDS):
        return "start of the server"
    if _differ(own, told, _slots, 0.0):
        return "number of slots"
    if _loads_differ([_requests(each) for each in own], [_requests(each) for each in told]):
        return "number of requests"
    if _adapters_differ(own, told):
        return "active adapters"
    return None


def _lists_differ(own: Sequence[Catalog], told: Sequence[Catalog]) -> bool:
    # Nearly always they are the same, and often the same object.
    if any(_same_models(one, other) for one in own for other in told):
        return False
    for models in (_base_models, _adapters):
        mine, theirs = [models(each) for each in own], [models(each) for each in told]
        if _on_one_side(mine, theirs) or _on_one_side(theirs, mine):
            return True
    return False


def _same_models(one: Catalog, other: Catalog) -> bool:
    return one is other or (one.base_models == other.base_models and one.adapters == other.adapters)


def _base_models(catalog: Catalog) -> Collection[str]:
    return catalog.base_models


def _adapters(catalog: Catalog) -> Collection[tuple[str, str | None]]:
    return catalog.adapters.items()


def _on_one_side(these: Sequence[Iterable[_Item]], those: Sequence[Iterable[_Item]]) -> set[_Item]:
    """Return what all of these have and none of those has."""
    always = set(these[0]).intersection(*these[1:])
    return always.difference(*those)


def _differ(
    own: Sequence[PodMetrics],
    told: Sequence[PodMetrics],
    value: Callable[[PodMetrics], float | None],
    slack: float,
) -> bool:
    mine, theirs = [value(each) for each in own], [value(each) for each in told]
    return all(
        one is not None and other is not None and abs(one - other) > slack
        for one in mine
        for other in theirs
    )


def _slots(metrics: PodMetrics) -> int | None:
    return None if metrics.lora is None else metrics.lora.max_lora


def _requests(metrics: PodMetrics) -> float:
    return (metrics.running or 0.0) + (metrics.waiting or 0.0)


def _loads_differ(own: Sequence[float], told: Sequence[float]) -> bool:
    for low, high in ((max(own), min(told)), (max(told), min(own))):
        if high - low > max(_REQUESTS, _SHARE * high):
            return True
    return False


def _adapters_differ(own: Sequence[PodMetrics], told: Sequence[PodMetrics]) -> bool:
    mine = [each.lora.active for each in own if each.lora is not None]
    theirs = [each.lora.active for each in told if each.lora is not None]
    if len(mine) < len(own) or len(theirs) < len(told):
        return False
    most = max(_ADAPTERS, _SHARE * max(map(len, mine)))
    concealed, invented = _on_one_side(mine, theirs), _on_one_side(theirs, mine)
    return len(concealed) > most or len(invented) > most
