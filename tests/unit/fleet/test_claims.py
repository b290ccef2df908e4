"""Claims of held adapters to slots, as routers learn of them."""

from dataclasses import replace

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.claims import Claims
from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare, PodShare
from lora_router.fleet.peer_shares import PeerShares, Received
from tests.fleet import make_fleet, make_metrics, state_of
from tests.unit.fleet.two_routers import EVERY, TwoRouters


def test_a_claim_to_the_last_slot_of_a_pod_is_granted_once_the_peer_acknowledged_it() -> None:
    routers = TwoRouters()
    for router in (routers.here, routers.there):
        router.ledger.reserve(state_of(router, 1), "a")
    routers.exchange()
    routers.exchange()
    here, there = (state_of(router, 1).beliefs for router in (routers.here, routers.there))
    assert here.may_take_slot("c")

    routers.exchange({"b": HeldShare(1.0, wanted="pod-1")})
    assert (here.may_take_slot("c"), there.may_take_slot("b")) == (False, False)

    routers.exchange({"b": HeldShare(1.1, wanted="pod-1")})
    assert (here.may_take_slot("c"), there.may_take_slot("b")) == (False, True)


def test_the_claims_of_a_silent_peer_do_not_count() -> None:
    """One of three routers holds an adapter for the last slot of the fleet, and falls silent."""
    fleets = {name: make_fleet(1, adapters=("a", "b")) for name in ("here", "silent", "third")}
    for fleet in fleets.values():
        fleet.put_metrics(state_of(fleet, 1), replace(make_metrics(max_lora=1), running=0.0))
    pod = state_of(fleets["here"], 1)
    claim = {"b": HeldShare(7.0, wanted="pod-1")}
    may_take = []
    for step in range(8):
        now = step * EVERY
        for name, fleet in fleets.items():
            if name == "silent" and step > 2:
                continue
            held, every = (claim, 1.0) if name == "silent" else ({}, EVERY)
            share = fleet.report_to_peers(name, every, held, now)
            for other, others in fleets.items():
                if other not in (name, "silent"):
                    others.put_peer(share, now)
        may_take.append(pod.beliefs.may_take_slot("a"))

    assert not any(may_take[1:5]), "the slot is claimed"
    assert may_take[-1], "no slot waits for a router that cannot take it"
    assert pod.beliefs.peers.allotment is not None, "the third router still talks"


def claims_of(held: dict[str, HeldShare], other: LedgerShare) -> list[tuple[str, str, float]]:
    """Return the claims of this router, which has held adapters since share 1, and of a peer."""
    shares = PeerShares()
    claims = Claims(shares)
    claims.report(held, 1, 10.0)
    shares.own = Received(LedgerShare("here", 1, EVERY, {}, held, {}), 10.0)
    shares.received["there"] = Received(other, 10.0)
    listed_by = {"not-listed": ()}
    found = claims.of({"there"}, {"pod-1": 0}, listed_by.get, 10.0)
    return [(claim.adapter, claim.router, claim.since) for claim in found]


def test_the_claims_of_a_peer_are_made_once_for_each_of_its_shares_and_in_steps() -> None:
    shares = PeerShares()
    claims = Claims(shares)
    held = {f"a{number}": HeldShare(1.0) for number in range(600)}
    asked: list[str] = []
    share = Received(LedgerShare("there", 1, EVERY, {}, held, {}), 10.0)
    steps = claims.make(share, {}, asked.append)
    next(steps)
    assert 0 < len(asked) < 300
    for _ in steps:
        assert len(asked) <= 600
    shares.received["there"] = share
    for _ in range(3):
        assert len(claims.of({"there"}, {}, asked.append, 10.0)) == 600
    assert len(asked) == 600

    claims.forget_made()
    claims.of({"there"}, {}, asked.append, 10.0)
    assert len(asked) == 1200, "what pods list may be another now"


def test_the_claim_of_an_adapter_is_that_of_the_router_that_has_held_it_longest() -> None:
    held = {"a": HeldShare(1.0), "b": HeldShare(5.0)}
    other = LedgerShare("there", 1, EVERY, {}, {"a": HeldShare(2.0), "b": HeldShare(3.0)}, {})

    assert claims_of(held, other) == [("a", "there", 8.0), ("b", "here", 5.0)]


def test_the_claim_of_an_adapter_is_that_of_the_highest_priority() -> None:
    held = {"a": HeldShare(1.0, priority=1)}
    other = LedgerShare("there", 1, EVERY, {}, {"a": HeldShare(2.0)}, {})
    assert claims_of(held, other) == [("a", "here", 9.0)]


def test_an_adapter_that_needs_no_slot_claims_none() -> None:
    sent = HeldShare(1.0, closed=("pod-1", "b"))
    pods = {"pod-1": PodShare(("10.0.0.1:8000", ""), 1, {"a": 1})}

    assert claims_of({}, LedgerShare("there", 1, EVERY, pods, {"a": sent}, {})) == []
    assert (
        claims_of({"not-listed": HeldShare(1.0)}, LedgerShare("there", 1, EVERY, {}, {}, {})) == []
    )


def test_a_claim_takes_no_slot_of_a_pod_that_does_not_list_the_adapter() -> None:
    """Such a slot would be left to a router that has no use for it."""
    routers = TwoRouters()
    for router in (routers.here, routers.there):
        router.put_models(state_of(router, 2), [ServedModel("other"), ServedModel("x", "other")])
        for adapter in ("a", "b"):
            router.ledger.reserve(state_of(router, 1), adapter)
    for _ in range(3):
        routers.exchange({name: HeldShare(9.0) for name in ("c", "d", "e")})
    here = state_of(routers.here, 2).beliefs
    allotment = here.peers.allotment
    assert allotment is not None
    assert (allotment.slots, allotment.may_reuse) == (1, True)
    first = state_of(routers.here, 1).beliefs.peers.allotment
    assert first is not None
    assert not first.may_reuse
