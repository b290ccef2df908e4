"""Allotment of free slots to routers, when several routers place adapters.

Between two exchanges, routers do not see each other's placements. If two routers place different
adapters into the same last free slot, one of the adapters waits on the pod for whole generations,
and nothing can undo that. Therefore each free slot is allotted to one router. All routers compute
the same allotments from the same shares, by these rules:

1. A slot is free if it is free according to all *shares*. What a router takes or frees after its
   last share counts only for that router until its next share.
2. Each held adapter *claims* one slot. Claims are served by priority, and then in order of waiting
   time, the longest first. Of the pods that list the adapter, a claim gets a slot on the one that
   it names, or otherwise on the one with the most free slots. It keeps that slot while it is free,
   unless a claim before it finds no other: if a further slot on another pod moved it there, a
   router that has not heard of that slot yet would still take the first one. The router that holds
   the adapter may take it once the router to which rule 3 would allot the slot has acknowledged
   the claim, because that router then leaves the slot alone.
3. Free slots without a claim are allotted in rotation, by the order of routers and pods. So every
   router can place immediately on some pods, and on the other pods after it has claimed a slot.
4. Any router may put an adapter that is still loaded on the pod into such a slot, if the pod has
   another unclaimed slot, or if the pod's free slots have not changed for so long that another
   router is unlikely to take one now. (Otherwise the adapter would be loaded again elsewhere, which
   costs more than the rare conflict.)
5. A router may reuse a slot that it frees on a pod until its next share, unless the first claim
   that found no slot on such pods is another router's.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import NamedTuple


class Claim(NamedTuple):
    """A held adapter's claim to a slot. They are served by priority, and then by waiting time."""

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
    priority: int = 0
    """A higher one is served first."""


class Allotments(NamedTuple):
    """The allotment of one router."""

    allotted: list[int]
    """For each pod, the number of free slots that this router may take."""
    unclaimed: list[int]
    """For each pod, the number of free slots that nobody claims."""
    may_reuse: list[bool]
    """For each pod, whether this router may reuse a slot that it frees there."""
    places: Mapping[str, int]
    """For each claim that gets a slot, by its adapter: the position of the pod."""
    claims: Sequence[Claim]
    """The claims, in the order in which they are served."""
    granted: Mapping[int, int]
    """For each pod on which a claim of this router got slots that it may take: their number."""


_NOWHERE: Mapping[str, int] = {}


def allotments_of(
    router: str,
    routers: Sequence[str],
    free: Sequence[int],
    claims: Iterable[Claim],
    before: Mapping[str, int] = _NOWHERE,
) -> Allotments:
    """Return one router's allotment of the free slots.

    Args:
        router: The router whose allotment is computed.
        routers: All routers, in an order that is the same on each of them.
        free: The number of free slots of each pod, in an order that is the same on all routers.
        claims: At most one claim for each adapter.
        before: The positions of the pods on which claims had slots until now, by adapter.
    """
    left = list(free)
    granted: dict[int, int] = {}
    places: dict[str, int] = {}
    whose: dict[int, str] = {}
    """For pods without a slot for some claim, the router of the first such claim."""
    in_order = sorted(claims, key=place_of)
    for claim, pod in _places(left, in_order, before, whose):
        places[claim.adapter] = pod
        if claim.router == router:
            loser = routers[(pod + left[pod]) % len(routers)]
            if loser == router or loser in claim.heard_by:
                granted[pod] = granted.get(pod, 0) + 1
    allotted = _rotations(left, routers.index(router), len(routers))
    for pod, slots in granted.items():
        allotted[pod] += slots
    may_reuse = [True] * len(left)
    for pod, first in whose.items():
        may_reuse[pod] = first == router
    return Allotments(allotted, left, may_reuse, places, in_order, granted)


def _places(
    left: list[int], claims: Sequence[Claim], before: Mapping[str, int], whose: dict[int, str]
) -> Iterator[tuple[Claim, int]]:
    """Yield each claim that gets a slot, with its pod, after the slot was taken from ``left``."""
    everywhere = range(len(left))
    spare = list(left)
    """The free slots that no claim further down had until now."""
    for claim in claims if before else ():
        last = before.get(claim.adapter)
        if last is not None:
            spare[last] -= 1
    full: set[int] = set()
    """The identities of pods, as in ``Claim.fits``, of which none has a slot left."""
    for claim in claims:
        last = before.get(claim.adapter)
        if last is not None:
            spare[last] += 1
        fits = everywhere if claim.fits is None else claim.fits
        if not fits or id(fits) in full:
            continue
        if last is not None and left[last]:
            pod = last
        elif claim.pod is not None and spare[claim.pod] > 0:
            pod = claim.pod
        else:
            pod = max(fits, key=spare.__getitem__)
            if spare[pod] <= 0:  # It takes the slot of a claim further down, if there is one.
                pod = max(fits, key=left.__getitem__)
        if not left[pod]:
            full.add(id(fits))
            for each in fits:
                whose.setdefault(each, claim.router)
            continue
        left[pod] -= 1
        spare[pod] -= 1
        yield claim, pod


def _rotations(unclaimed: Sequence[int], place: int, routers: int) -> list[int]:
    """Return ``rotation`` for all pods."""
    shifts = cycle([routers - 1 - (place - pod) % routers for pod in range(routers)])
    return [(slots + shift) // routers for slots, shift in zip(unclaimed, shifts, strict=False)]


def rotation(unclaimed: int, place: int, pod: int, routers: int) -> int:
    """Return how many slots that nobody claims one router may take on one pod (rule 3).

    Args:
        unclaimed: The number of these slots.
        place: The router's position.
        pod: The pod's position.
        routers: The number of routers.
    """
    return max(0, unclaimed - (place - pod) % routers + routers - 1) // routers


def place_of(claim: Claim) -> tuple[int, float, str, str]:
    """Return a claim's place in the order in which claims are served: the lowest is first."""
    return -claim.priority, claim.since, claim.router, claim.adapter
