"""Whose turn it is to take a free slot, when several routers place adapters.

Between two tellings routers place blindly. Of two that place different adapters into the same last
free slot, one has its adapter wait on the pod for whole generations, and nothing undoes that. So
free slots are shared out, by rules that all routers work out alike from what all were told:

1. A slot is free by what was *told*. What a router takes or frees since is its own affair until it
   tells.
2. Each adapter that is held *claims* a slot, the one that has waited longest first: on the pod that
   it wants, else on the one with the most free slots. The router that holds it may take that slot
   once the router whose slot it were (rule 3) is known to have heard of the claim, and so to leave
   it alone.
3. Free slots that nobody claims are each one router's, in turn by the order of routers and pods. So
   each can place at once on some pods, and on the others after it has claimed.
4. Into such a slot any router may put an adapter that is still loaded there, if the pod has another
   one, or if nobody has touched it for so long that nobody is likely to do so just now. (Else the
   adapter is loaded once more elsewhere, which costs more than the rare clash.)
5. A slot that a router frees is its own until it tells, unless another router has a claim that
   finds no slot.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple


class Claim(NamedTuple):
    """An adapter that is held. Claims sort by how long it has waited."""

    since: float
    """On this router's clock."""
    router: str
    adapter: str
    pod: int | None
    """The pod that it wants, by its position; ``None``: any."""
    heard_by: Collection[str]
    """Routers that are known to have heard of it. Known of this router's own claims only."""


class Turns(NamedTuple):
    """What comes of it for one router."""

    allotted: list[int]
    """For each pod, how many of its free slots are the router's to take."""
    unclaimed: list[int]
    """For each pod, how many of its free slots nobody claims."""
    may_reuse: bool
    """Whether a slot that the router frees is its own."""


def turns_of(
    router: str, routers: Sequence[str], free: Sequence[int], claims: Iterable[Claim]
) -> Turns:
    """Share out the free slots.

    Args:
        router: Whose part is asked for.
        routers: All of them, in an order that is the same for each.
        free: Free slots of each pod, in an order that is the same for all routers.
        claims: At most one for each adapter.
    """
    left = list(free)
    allotted = [0] * len(left)
    total = sum(left)
    may_reuse = True
    for claim in sorted(claims, key=_age):
        if not total:
            may_reuse = claim.router == router
            break
        pod = claim.pod
        if pod is None or not left[pod]:
            pod = max(range(len(left)), key=left.__getitem__)
        left[pod] -= 1
        total -= 1
        if claim.router == router:
            loser = routers[(pod + left[pod]) % len(routers)]
            allotted[pod] += loser == router or loser in claim.heard_by
    place = routers.index(router)
    for pod, unclaimed in enumerate(left):
        rank = (place - pod) % len(routers)
        allotted[pod] += max(0, unclaimed - rank + len(routers) - 1) // len(routers)
    return Turns(allotted, left, may_reuse)


def _age(claim: Claim) -> tuple[float, str, str]:
    return claim.since, claim.router, claim.adapter
