"""Allotment of free slots to routers, when several routers place adapters.

Between two exchanges, routers do not see each other's placements. If two routers place different
adapters into the same last free slot, one of the adapters waits on the pod for whole generations,
and nothing can undo that. Therefore each free slot is allotted to one router. All routers compute
the same allotments from the same shares, by these rules:

1. A slot is free if it is free according to all *shares*. What a router takes or frees after its
   last share counts only for that router until its next share.
2. Each held adapter *claims* one slot. Claims are served in order of waiting time, the longest
   first. Of the pods that list the adapter, a claim gets a slot on the one that it names, or
   otherwise on the one with the most free slots. The router that holds the adapter may take it
   once the router to which rule 3 would allot the slot has acknowledged the claim, because that
   router then leaves the slot alone.
3. Free slots without a claim are allotted in rotation, by the order of routers and pods. So every
   router can place immediately on some pods, and on the other pods after it has claimed a slot.
4. Any router may put an adapter that is still loaded on the pod into such a slot, if the pod has
   another unclaimed slot, or if the pod's free slots have not changed for so long that another
   router is unlikely to take one now. (Otherwise the adapter would be loaded again elsewhere, which
   costs more than the rare conflict.)
5. A router may reuse a slot that it frees on a pod until its next share, unless the oldest claim
   that found no slot on such pods is another router's.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple


class Claim(NamedTuple):
    """A held adapter's claim to a slot. Claims are ordered by waiting time."""

    since: float
    """When the adapter was first held, on this router's clock."""
    router: str
    adapter: str
    pod: int | None
    """The position of the pod on which a slot is wanted; ``None``: any pod."""
    heard_by: Collection[str]
    """Routers that have acknowledged the claim. Known only for this router's own claims."""
    fits: Sequence[int] | None = None
    """The positions of the pods that list the adapter; ``None``: all. It is the same object for all
    adapters on the same pods."""


class Allotments(NamedTuple):
    """The allotment of one router."""

    allotted: list[int]
    """For each pod, the number of free slots that this router may take."""
    unclaimed: list[int]
    """For each pod, the number of free slots that nobody claims."""
    may_reuse: list[bool]
    """For each pod, whether this router may reuse a slot that it frees there."""


def allotments_of(
    router: str, routers: Sequence[str], free: Sequence[int], claims: Iterable[Claim]
) -> Allotments:
    """Return one router's allotment of the free slots.

    Args:
        router: The router whose allotment is computed.
        routers: All routers, in an order that is the same on each of them.
        free: The number of free slots of each pod, in an order that is the same on all routers.
        claims: At most one claim for each adapter.
    """
    left = list(free)
    everywhere = range(len(left))
    allotted = [0] * len(left)
    whose: dict[int, str] = {}
    """For pods without a slot for some claim, the router of the oldest such claim."""
    full: set[int] = set()
    """The identities of pods, as in ``Claim.fits``, of which none has a slot left."""
    for claim in sorted(claims, key=_age):
        fits = everywhere if claim.fits is None else claim.fits
        if not fits or id(fits) in full:
            continue
        pod = claim.pod
        if pod is None or not left[pod]:
            pod = max(fits, key=left.__getitem__)
        if not left[pod]:
            full.add(id(fits))
            for each in fits:
                whose.setdefault(each, claim.router)
            continue
        left[pod] -= 1
        if claim.router == router:
            loser = routers[(pod + left[pod]) % len(routers)]
            allotted[pod] += loser == router or loser in claim.heard_by
    place = routers.index(router)
    for pod, unclaimed in enumerate(left):
        allotted[pod] += rotation(unclaimed, place, pod, len(routers))
    may_reuse = [whose.get(pod, router) == router for pod in everywhere]
    return Allotments(allotted, left, may_reuse)


def rotation(unclaimed: int, place: int, pod: int, routers: int) -> int:
    """Return how many slots that nobody claims one router may take on one pod (rule 3).

    Args:
        unclaimed: The number of these slots.
        place: The router's position.
        pod: The pod's position.
        routers: The number of routers.
    """
    return max(0, unclaimed - (place - pod) % routers + routers - 1) // routers


def _age(claim: Claim) -> tuple[float, str, str]:
    return claim.since, claim.router, claim.adapter
