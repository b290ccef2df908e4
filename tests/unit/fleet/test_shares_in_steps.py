"""Shares that are applied to a few pods at a time, so that requests are served in between."""

import random
from dataclasses import replace

import pytest

from lora_router.fleet import peers, reported_uses
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare, PodShare, UsedShare
from lora_router.fleet.pod_state import PodState
from lora_router.peering.hub import Hub
from lora_router.peering.peer import Peer
from lora_router.steps import Steps
from tests.fleet import ManualClock, make_fleet, make_metrics, make_pod, state_of
from tests.parameters import mostly_slow

PODS = 10
NAMES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def _few_pods_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "AT_ONCE", 4)
    monkeypatch.setattr(reported_uses, "_AT_ONCE", 4)


def fleet_of(pods: int = PODS) -> Fleet:
    fleet = make_fleet(pods, adapters=NAMES)
    for state in fleet:
        fleet.put_metrics(state, make_metrics(max_lora=2))
    return fleet


def on(state: PodState, requests: int, adapter: str = "a") -> PodShare:
    return PodShare((state.pod.address, state.pod.uid), requests, {adapter: requests})


def share(
    fleet: Fleet, number: int, requests: int, held: dict[str, HeldShare] | None = None
) -> LedgerShare:
    """Return a share that has as many requests on each pod."""
    pods = {state.pod.name: on(state, requests) for state in fleet}
    return LedgerShare("there", number, 0.1, pods, held or {}, {})


def counted(fleet: Fleet) -> list[int]:
    """Return the requests of peers on each pod."""
    return [state.beliefs.peers.requests for state in fleet]


def do(steps: Steps[None]) -> int:
    """Do all steps; return their number."""
    return 1 + sum(1 for _ in steps)


class TestAShare:
    def test_changes_few_pods_in_one_step(self) -> None:
        fleet = fleet_of()
        told: list[int] = []
        fleet.changes.shared.subscribe(lambda states: told.append(len(states)))
        steps = fleet.take_share(share(fleet, 1, 3), 0.0)
        assert counted(fleet) == [0] * PODS
        next(steps)
        assert counted(fleet) == [3] * 4 + [0] * 6
        assert do(steps) == 2
        assert counted(fleet) == [3] * PODS
        assert max(told) <= 4
        assert sum(told) == PODS

    def test_takes_the_place_of_the_rest_of_the_one_before_it(self) -> None:
        fleet = fleet_of()
        first = fleet.take_share(share(fleet, 1, 3), 0.0)
        next(first)
        second = fleet.take_share(share(fleet, 2, 5), 0.1)
        assert list(first) == [], "nothing is left to do for it"
        assert counted(fleet) == [3] * 4 + [0] * 6
        do(second)
        assert counted(fleet) == [5] * PODS

    def test_that_arrives_again_changes_nothing(self) -> None:
        fleet = fleet_of()
        steps = fleet.take_share(share(fleet, 2, 3), 0.0)
        next(steps)
        do(fleet.take_share(share(fleet, 2, 9), 0.0))
        do(steps)
        assert counted(fleet) == [3] * PODS

    def test_of_a_router_that_was_started_again_replaces_all_of_the_old_one(self) -> None:
        fleet = fleet_of()
        next(fleet.take_share(share(fleet, 7, 3), 0.0))
        again = LedgerShare("there", 1, 0.1, {"pod-9": on(state_of(fleet, 9), 1)}, {}, {})
        do(fleet.take_share(again, 0.1))
        assert counted(fleet) == [0] * 8 + [1, 0]

    def test_is_acknowledged_once_it_is_applied(self) -> None:
        """The peer takes a slot because of that, so this router must leave the slot to it."""
        fleet = fleet_of()
        steps = fleet.take_share(share(fleet, 1, 3, {"b": HeldShare(1.0)}), 0.0)
        next(steps)
        assert "there" not in fleet.report_to_peers("here", 0.1, {}, 0.0).heard
        do(steps)
        assert fleet.report_to_peers("here", 0.1, {}, 0.0).heard["there"] == 1

    def test_reaches_pods_that_joined_meanwhile(self) -> None:
        fleet, larger = fleet_of(), fleet_of(PODS + 1)
        steps = fleet.take_share(share(larger, 1, 3), 0.0)
        do(steps)
        fleet.upsert(state_of(larger, PODS + 1).pod)
        steps = fleet.take_share(share(larger, 2, 4), 0.1)
        next(steps)
        fleet.report_to_peers("here", 0.1, {}, 0.1)
        do(steps)
        assert counted(fleet) == [4] * (PODS + 1)

    def test_that_is_late_is_applied_in_one_step(self) -> None:
        """Otherwise a busy router would never acknowledge one, as a newer one always comes."""
        fleet = fleet_of()
        for number in range(1, 6):
            next(fleet.take_share(share(fleet, number, number), number / 10), None)
        assert "there" not in fleet.report_to_peers("here", 0.1, {}, 0.5).heard
        next(fleet.take_share(share(fleet, 7, 7), 0.7), None)
        assert counted(fleet) == [7] * PODS
        assert fleet.report_to_peers("here", 0.1, {}, 0.7).heard["there"] == 7

    def test_explains_what_a_scrape_showed_before_the_one_that_it_replaces(self) -> None:
        """Otherwise the same requests would count as those of a stranger, too."""
        fleet = fleet_of()
        last = state_of(fleet, PODS)
        shown = make_metrics(("a",), max_lora=2, scraped_at=0.9)
        fleet.put_metrics(last, replace(shown, running=3.0))
        next(fleet.take_share(share(fleet, 1, 3), 1.0))
        assert last.beliefs.foreign_requests == 3
        do(fleet.take_share(share(fleet, 2, 3), 1.1))
        assert last.beliefs.peers.requests == 3
        assert last.beliefs.foreign_requests == 3

    def test_lists_idle_adapters_of_few_pods_in_one_step(self) -> None:
        fleet = fleet_of()
        idle = {
            state.pod.name: UsedShare((state.pod.address, state.pod.uid), {"a": 1.0})
            for state in fleet
        }
        steps = fleet.take_share(LedgerShare("there", 1, 0.1, {}, {}, {}, idle=idle), 0.0)
        next(steps)
        assert sum("a" in state.beliefs.last_uses for state in fleet) == 4
        do(steps)
        assert all("a" in state.beliefs.last_uses for state in fleet)

    def test_tells_of_the_pods_that_the_share_before_it_changed_last(self) -> None:
        """The steps of the one before it are not continued."""
        fleet = fleet_of()
        told: set[PodState] = set()
        fleet.changes.shared.subscribe(told.update)
        fleet.report_to_peers("here", 0.1, {}, 0.0)
        first = fleet.take_share(share(fleet, 1, 3), 0.0)
        while "there" not in fleet.report_to_peers("here", 0.1, {}, 0.0).heard:
            next(first)
        told.clear()
        fleet.peers._untold.update(dict.fromkeys(fleet))
        do(fleet.take_share(share(fleet, 2, 3), 0.1))
        assert told == set(fleet)

    def test_adds_to_what_is_left_of_the_uses_that_an_earlier_one_reported(self) -> None:
        fleet = fleet_of()

        def used(number: int, adapter: str) -> LedgerShare:
            uses = {
                state.pod.name: UsedShare((state.pod.address, state.pod.uid), {adapter: 0.0})
                for state in fleet
            }
            return LedgerShare("there", number, 0.1, {}, {}, {}, used=uses)

        first = fleet.take_share(used(1, "a"), 0.0)
        next(first)
        assert sum("a" in state.beliefs.last_uses for state in fleet) == 4
        do(fleet.take_share(used(2, "b"), 0.1))
        assert all({"a", "b"} <= set(state.beliefs.last_uses) for state in list(fleet)[4:])
        assert all("b" in state.beliefs.last_uses for state in fleet)

    def test_leaves_a_bounded_number_of_uses_to_be_applied(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reported_uses, "_MAX_LEFT", 30)
        fleet = fleet_of()
        for number in range(1, 50):
            uses = {f"pod-{number}-{k}": UsedShare(("x", ""), {"a": 0.0}) for k in range(10)}
            fleet.take_share(LedgerShare("there", number, 0.1, {}, {}, {}, used=uses), 0.0)
        assert len(fleet._reported_uses._left["there"].used) <= 15


class TestAPeerThatIsForgotten:
    def test_is_forgotten_on_few_pods_in_one_step(self) -> None:
        fleet = fleet_of()
        fleet.put_peer(share(fleet, 1, 3), 0.0)
        steps = fleet.drop_peer("there", 0.1)
        next(steps)
        assert counted(fleet) == [0] * 4 + [3] * 6
        do(steps)
        assert counted(fleet) == [0] * PODS

    def test_leaves_nothing_of_a_share_that_was_half_applied(self) -> None:
        fleet = fleet_of()
        arriving = fleet.take_share(share(fleet, 1, 3), 0.0)
        next(arriving)
        leaving = fleet.drop_peer("there", 0.1)
        do(arriving)
        do(leaving)
        assert counted(fleet) == [0] * PODS

    def test_may_be_there_again_before_all_of_it_is_forgotten(self) -> None:
        fleet = fleet_of()
        told: set[PodState] = set()
        fleet.put_peer(share(fleet, 5, 3), 0.0)
        fleet.changes.shared.subscribe(told.update)
        leaving = fleet.drop_peer("there", 0.1)
        next(leaving)
        again = LedgerShare("there", 1, 0.1, {"pod-1": on(state_of(fleet, 1), 2)}, {}, {})
        do(fleet.take_share(again, 0.2))
        do(leaving)
        assert counted(fleet) == [2] + [0] * 9
        assert told == set(fleet)

    def test_that_is_there_again_is_forgotten_in_steps_all_the_same(self) -> None:
        fleet = fleet_of()
        fleet.put_peer(share(fleet, 5, 3), 0.0)
        next(fleet.drop_peer("there", 0.1))
        again = fleet.take_share(LedgerShare("there", 1, 0.1, {}, {}, {}), 0.2)
        assert counted(fleet) == [0] * 4 + [3] * 6
        next(again)
        assert counted(fleet) == [0] * 8 + [3] * 2
        do(again)
        assert counted(fleet) == [0] * PODS

    def test_because_it_is_quiet_is_forgotten_on_few_scraped_pods_in_one_step(self) -> None:
        fleet = fleet_of()
        for number in range(1, 6):
            fleet.report_to_peers("here", 0.1, {}, number / 10)
            if number == 1:
                fleet.put_peer(replace(share(fleet, 1, 3), every=10.0), 0.1)
        for state in fleet:
            fleet.put_metrics(state, make_metrics(max_lora=2, scraped_at=0.55))
        fleet.report_to_peers("here", 0.1, {}, 0.6)
        assert counted(fleet) == [0] * 4 + [3] * 6
        do(fleet.peers.fade())
        assert counted(fleet) == [0] * PODS

    def test_because_it_is_quiet_counts_again_when_it_is_heard_between_two_steps(self) -> None:
        fleet = fleet_of()
        for number in range(1, 6):
            fleet.report_to_peers("here", 0.1, {}, number / 10)
            if number == 1:
                fleet.put_peer(replace(share(fleet, 1, 3), every=10.0), 0.1)
        for state in fleet:
            fleet.put_metrics(state, make_metrics(max_lora=2, scraped_at=0.55))
        fleet.report_to_peers("here", 0.1, {}, 0.6)
        do(fleet.take_share(share(fleet, 2, 3), 0.6))
        do(fleet.peers.fade())
        assert counted(fleet) == [3] * PODS


@pytest.mark.parametrize("seed", mostly_slow(range(200), quick=30))
def test_in_any_order_of_steps_the_last_share_of_each_peer_counts_once(seed: int) -> None:
    chance = random.Random(seed)
    fleet = fleet_of()
    works: list[Steps[None]] = []
    last: dict[str, LedgerShare] = {}
    numbers = {"x": 0, "y": 0}
    sent: dict[str, list[PodShare]] = {"x": [], "y": []}
    for event in range(60):
        what, router = chance.random(), chance.choice("xy")
        if what < 0.3:
            numbers[router] = 1 if chance.random() < 0.1 else numbers[router] + 1
            pods = {
                state.pod.name: on(state, chance.randint(1, 5), chance.choice(NAMES))
                for state in fleet
                if chance.random() < 0.7
            }
            before = {} if router not in last else dict(last[router].pods)
            kept = {name: before[name] for name in pods if name in before and chance.random() < 0.5}
            new = LedgerShare(router, numbers[router], 0.1, pods | kept, {}, {})
            last[router] = new
            sent[router] += new.pods.values()
            works.append(fleet.take_share(new, 0.0))
        elif what < 0.36:
            last.pop(router, None)
            numbers[router] = 0
            works.append(fleet.drop_peer(router, 0.0))
        elif what < 0.42:
            fleet.upsert(make_pod(chance.randint(1, 14), uid=chance.choice(["", "new"])))
        elif what < 0.46:
            fleet.remove(f"pod-{chance.randint(1, 14)}")
        elif what < 0.54:
            fleet.report_to_peers("here", 0.1, {}, 0.0)
        elif works:
            work = chance.choice(works)
            if next(work, "done") == "done":
                works.remove(work)
        for state in fleet:
            shares = [state.beliefs.peers.share_of(each) for each in "xy"]
            known = [each for each in shares if each is not None]
            assert state.beliefs.peers.requests == sum(each.requests for each in known), event
            assert all(each in sent["x"] + sent["y"] for each in known)
    chance.shuffle(works)
    for work in works:
        do(work)
    fleet.report_to_peers("here", 0.1, {}, 0.0)

    for state in fleet:
        server = state.pod.address, state.pod.uid
        expected = {
            router: found
            for router, each in last.items()
            if (found := each.pods.get(state.pod.name)) is not None and found.server == server
        }
        counts = state.beliefs.peers
        assert {each: counts.share_of(each) for each in "xy" if counts.share_of(each)} == expected
        assert counts.requests == sum(each.requests for each in expected.values())
        assert counts.adapters == {name for each in expected.values() for name in each.adapters}


class TestTheHub:
    def test_does_one_step_in_each_turn_of_the_loop(self) -> None:
        fleet, clock = fleet_of(), ManualClock()
        hub = Hub("here", fleet, dict, clock)
        for name in ("there", "elsewhere"):
            peer = hub.met(name, "", 8)
            assert isinstance(peer, Peer)
            new = share(fleet, 1, 3)
            hub.reported(peer, LedgerShare(name, 1, 0.1, new.pods, {}, {}))
        assert counted(fleet) == [3] * 4 + [0] * 6
        before = sum(counted(fleet))
        while sum(counted(fleet)) < 2 * 3 * PODS:
            clock.advance_to_next(0.0)
            assert 0 <= sum(counted(fleet)) - before <= 3 * 4
            before = sum(counted(fleet))

    def test_keeps_one_work_for_each_peer(self) -> None:
        """Otherwise a busy router would never apply a report, and need more and more memory."""
        fleet, clock = fleet_of(), ManualClock()
        hub = Hub("here", fleet, dict, clock)
        for name in ("there", "elsewhere"):
            peer = hub.met(name, "", 8)
            assert isinstance(peer, Peer)
            for number in range(1, 30):
                new = share(fleet, number, number)
                hub.reported(peer, LedgerShare(name, number, 0.1, new.pods, {}, {}))
        assert len(hub._turns) == 2
        clock.advance(0.0)
        assert counted(fleet) == [29 * 2] * PODS

    def test_follows_soon_from_claims_what_was_put_off(self) -> None:
        fleet, clock = fleet_of(), ManualClock()
        hub = Hub("here", fleet, dict, clock)
        fleet.report_to_peers("here", 0.1, {}, clock.now())
        for number in (1, 2):
            for name in ("there", "elsewhere"):
                peer = hub.met(name, "", 8)
                assert isinstance(peer, Peer)
                held = {"b": HeldShare(float(number))}
                hub.reported(peer, LedgerShare(name, number, 0.1, {}, held, {}))
        clock.advance(0.0)
        assert fleet.peers.allotments._renewed_at == 100.0
        clock.advance(0.01)
        assert 100.0 < fleet.peers.allotments._renewed_at < 100.01

    def test_forgets_a_peer_in_the_same_way(self) -> None:
        fleet, clock = fleet_of(), ManualClock()
        hub = Hub("here", fleet, dict, clock)
        peer = hub.met("there", "", 8)
        assert isinstance(peer, Peer)
        hub.reported(peer, share(fleet, 1, 3))
        hub.left(peer)
        assert counted(fleet) != [0] * PODS
        clock.advance(0.0)
        assert counted(fleet) == [0] * PODS
