"""How many slots are closed for adapters that wait, and for whom, with any limit of holding."""

import random
from dataclasses import replace
from functools import partial

import pytest

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare, PodShare
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.candidates import Candidates, FleetLoad
from lora_router.routing.least_request import LeastRequest
from lora_router.routing.misplaced import MOST_ON_A_POD, PATIENCE_SECONDS
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.overload import DRAIN_SECONDS, Overload, patience
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.slot_closing import CROWD, CROWDED_PATIENCE_SECONDS
from tests.fleet import make_fleet, make_metrics, state_of
from tests.unit.routing.router import Router

NAMES = [f"a{number}" for number in range(60)]


def full_fleet(pods: int, slots: int) -> Fleet:
    fleet = make_fleet(pods, adapters=NAMES)
    for state in fleet:
        fleet.put_metrics(state, make_metrics(max_lora=slots))
    return fleet


def occupied(router: Router, number: int) -> list[Routed]:
    """Fill so many slots, each with two requests of an adapter of its own."""
    return [router.routed(name) for name in NAMES[:number] for _ in range(2)]


class TestHowManySlots:
    @pytest.mark.parametrize(("share", "closed"), [(0.0, 0), (0.1, 2), (0.01, 1), (0.5, 10)])
    def test_only_a_share_is_closed(self, share: float, closed: int) -> None:
        router = Router(full_fleet(5, 4), overload=Overload(closed_slots_share=share))
        occupied(router, 20)
        for name in NAMES[20:40]:
            router.held(name)
        router.clock.advance(30.0)

        assert router.director.closed_slots == closed

    def test_the_next_slot_is_closed_for_the_one_that_asked_first(self) -> None:
        router = Router(full_fleet(2, 4))
        first = occupied(router, 8)
        router.held("a20")
        router.clock.advance(1.0)
        router.held("a21")
        router.held("a22")
        router.clock.advance(8.0)
        (drains,) = [
            share.closed for share in router.director.held_adapters().values() if share.closed
        ]
        for routed in first:
            if routed.model == drains[1]:
                routed.reservation.release()
        router.clock.advance(0.0)

        assert router.late_names == ["a20"]
        closed = [name for name, held in router.director.held_adapters().items() if held.closed]
        assert closed == ["a21"]

    def test_an_emptied_slot_goes_to_whom_it_was_closed_for(self) -> None:
        """Not back to the adapter in it, although that is the cheapest to serve there."""
        router = Router(full_fleet(1, 1), max_hold_seconds=6.0)
        first = occupied(router, 1)
        router.held("a9")
        router.clock.advance(3.0)
        router.held("a0")
        for routed in first:
            routed.reservation.release()
        assert router.late_names == ["a9"]

    def test_the_adapter_of_an_emptied_slot_asks_after_those_that_asked_before(self) -> None:
        router = Router(full_fleet(1, 1))
        first = occupied(router, 1)
        for name in ("a8", "a9"):
            router.held(name)
            router.clock.advance(0.5)
        router.clock.advance(5.5)
        router.held("a0")
        router.clock.advance(6.5)
        for routed in first:
            routed.reservation.release()
        router.clock.advance(0.0)

        assert router.late_names == ["a8"]
        closed = [name for name, held in router.director.held_adapters().items() if held.closed]
        assert closed == ["a9"]

    def test_the_slots_that_peers_closed_count(self) -> None:
        router, peer = Router(full_fleet(5, 4)), full_fleet(5, 4)
        occupied(router, 20)
        router.fleet.report_to_peers("here", 0.1, {}, 0.0)
        held = {
            f"a{number}": HeldShare(7.0, closed=("pod-1", NAMES[number])) for number in range(2)
        }
        router.fleet.put_peer(peer.report_to_peers("there", 0.1, held, 0.0), 0.0)
        router.held("a30")
        router.clock.advance(7.0)
        assert router.director.closed_slots == 0

        router.fleet.put_peer(peer.report_to_peers("there", 0.1, {}, 0.1), 0.1)
        router.clock.advance(3.0)
        assert router.director.closed_slots == 1


@pytest.mark.parametrize(
    ("max_hold_seconds", "seconds"), [(0.0, 0.0), (5.0, 2.5), (12.0, 6.0), (600.0, 6.0)]
)
def test_patience_is_never_longer_than_half_of_the_hold(
    max_hold_seconds: float, seconds: float
) -> None:
    assert patience(max_hold_seconds) == seconds


class TestAdaptersThatWaitOnPods:
    def test_a_slot_of_the_pod_is_closed_for_one_until_it_has_a_slot(self) -> None:
        router = Router(full_fleet(2, 2), max_hold_seconds=0.0)
        first = occupied(router, 4)
        rare = router.routed("a9")
        assert rare.reason == "no-slot-in-time"
        pod = rare.reservation.state
        router.clock.advance(PATIENCE_SECONDS)
        first.pop(0).reservation.release()
        assert router.director.closed_slots == 1

        drains = next(iter(router.director.held_adapters().values())).closed
        assert drains is not None
        assert drains[0] == pod.pod.name
        # The adapter in it goes elsewhere, although its slot is on that pod.
        assert router.routed(drains[1]).reservation.state is not pod

        for routed in first:
            if routed.model == drains[1]:
                routed.reservation.release()
        assert router.director.closed_slots <= 1
        assert "a9" not in router.director.held_adapters()

    def test_its_further_requests_wait_on_the_same_pod(self) -> None:
        router = Router(full_fleet(4, 1), max_hold_seconds=0.0)
        occupied(router, 4)
        pods = {router.routed("a9").reservation.state.pod.name for _ in range(5)}
        assert len(pods) == 1

    def test_its_further_requests_take_a_slot_that_is_free_elsewhere(self) -> None:
        router = Router(full_fleet(2, 1), max_hold_seconds=0.0)
        first = occupied(router, 2)
        waits_on = router.routed("a9").reservation.state
        for routed in first:
            if routed.reservation.state is not waits_on:
                routed.reservation.release()

        assert router.routed("a9").reservation.state is not waits_on

    def test_no_slot_stays_closed_when_the_one_that_waits_has_left(self) -> None:
        router = Router(full_fleet(1, 2), max_hold_seconds=0.0)
        first = occupied(router, 2)
        rare = router.routed("a9")
        router.clock.advance(PATIENCE_SECONDS)
        first.pop().reservation.release()
        assert router.director.closed_slots == 1

        rare.reservation.release()
        assert router.director.closed_slots == 0
        assert not router.director.held_adapters()

    def test_where_only_its_own_slot_drains_an_adapter_is_refused_for_a_while(self) -> None:
        router = Router(full_fleet(1, 1), max_hold_seconds=0.0)
        first = occupied(router, 1)
        router.routed("a9")
        router.clock.advance(PATIENCE_SECONDS)
        first.pop().reservation.release()

        refused = router.send("a0")
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.OVERLOADED
        router.clock.advance(DRAIN_SECONDS + 1.0)
        assert isinstance(router.send("a0"), Routed)

    def test_a_slot_closed_for_held_requests_stays_closed_when_their_time_is_up(self) -> None:
        router = Router(full_fleet(1, 1), max_hold_seconds=4.0)
        hot = occupied(router, 1)
        router.held("a9")
        router.clock.advance(3.0)
        assert router.director.closed_slots == 1
        router.held("a0", "waits while its slot is closed")
        router.clock.advance(1.0)
        assert router.late_names == ["a9"]
        assert router.director.closed_slots == 1

        for each in hot:
            each.reservation.release()
        assert router.director.closed_slots == 0

    def test_a_free_slot_is_that_of_the_one_that_waits_first_there(self) -> None:
        router = Router(
            full_fleet(1, 2), max_hold_seconds=0.0, overload=Overload(closed_slots_share=1.0)
        )
        first = occupied(router, 2)
        router.routed("a8")
        router.routed("a9")
        router.clock.advance(PATIENCE_SECONDS)
        first.pop(0).reservation.release()
        assert router.director.closed_slots == 2
        closed_for = {
            share.closed[1]: adapter
            for adapter, share in router.director.held_adapters().items()
            if share.closed is not None
        }
        for each in first:
            if closed_for.get(each.model) == "a9":
                each.reservation.release()

        waits_on = router.director.reception.room.waits_on
        assert not waits_on("a8")
        assert waits_on("a9")
        assert router.director.closed_slots == 1

    def test_few_are_remembered(self) -> None:
        router = Router(
            full_fleet(1, 1), max_hold_seconds=0.0, overload=Overload(closed_slots_share=0.0)
        )
        occupied(router, 1)
        for name in NAMES[1:]:
            router.routed(name)
        waits_on = router.director.reception.room.waits_on
        assert sum(bool(waits_on(name)) for name in NAMES) == MOST_ON_A_POD


def two_fleets(small: int, large: int, slots: int = 2) -> Fleet:
    """Return the pods of two base models: the first few serve ``a…``, the others ``b…``."""
    fleet = full_fleet(small + large, slots)
    for number, state in enumerate(fleet):
        base, letter = ("one", "a") if number < small else ("two", "b")
        names = [f"{letter}{n}" for n in range(2 * slots * (small + large))]
        fleet.put_models(state, [ServedModel(base), *(ServedModel(name, base) for name in names)])
    return fleet


class TestFleetsOfTwoBaseModels:
    """Slots that are closed on the pods of one are of no use to the other."""

    def short_of_slots(self, router: Router, slots: int) -> None:
        """Close as many slots of the second base model as may be."""
        for number in range(slots):
            router.routed(f"b{number}")
            router.routed(f"b{number}")
        for number in range(slots, slots + 4):
            router.held(f"b{number}")
        router.clock.advance(10.0)

    def test_slots_are_closed_for_each_of_them(self) -> None:
        router = Router(two_fleets(1, 12))
        self.short_of_slots(router, 24)
        assert router.director.closed_slots == 2
        for name in ("a0", "a0", "a1", "a1"):
            router.routed(name)
        router.held("a2")
        router.clock.advance(10.0)

        assert router.director.held_adapters()["a2"].closed is not None
        assert router.director.closed_slots == 3

    def test_adapters_that_wait_on_their_pods_get_their_slots(self) -> None:
        router = Router(two_fleets(1, 12), max_hold_seconds=0.0)
        for letter, slots in (("b", 24), ("a", 2)):
            for number in range(slots):
                router.routed(f"{letter}{number}")
                router.routed(f"{letter}{number}")
        for name in (*(f"b{number}" for number in range(24, 40)), "a2"):
            router.routed(name)
        router.clock.advance(PATIENCE_SECONDS)
        for state in router.fleet:
            router.fleet.changes.scraped.send((state,))
        router.fleet.changes.shared.send(tuple(router.fleet))

        assert router.director.held_adapters()["a2"].closed is not None
        assert router.director.closed_slots == 3

    def test_the_next_slot_is_closed_for_an_adapter_of_the_same_one(self) -> None:
        router = Router(two_fleets(1, 1))
        for name in ("a0", "a1", "b0", "b1"):
            router.routed(name)
            router.routed(name)
        for name in ("b2", "a2", "b3", "a3"):
            router.held(name)
        router.clock.advance(10.0)
        closed = {
            name: held.closed[1]
            for name, held in router.director.held_adapters().items()
            if held.closed
        }
        assert closed.keys() == {"a2", "b2"}

    def test_copies_drain_only_while_requests_wait_for_the_same_one(self) -> None:
        """Of two copies, the one with more requests is cheaper while others need slots."""
        router = Router(two_fleets(2, 1))
        first, second = (state for state in list(router.fleet)[:2])
        for state, requests in ((first, 3), (second, 1)):
            for _ in range(requests):
                router.fleet.ledger.reserve(state, "a0")
        for name in ("b0", "b1"):
            router.routed(name)

        router.held("b2")
        assert router.routed("a0").reservation.state is second

        for number, state in enumerate((first, second)):
            router.fleet.ledger.reserve(state, f"a{number + 1}")
        router.held("a9")
        assert router.routed("a0").reservation.state is first

    def test_those_that_peers_closed_count_for_the_base_model_of_their_pods(self) -> None:
        router = Router(two_fleets(1, 12))
        fleet, now = router.fleet, router.clock.now()
        fleet.report_to_peers("here", 0.1, {}, now)
        held = {f"b{n}": HeldShare(1.0, closed=(f"pod-{n}", "b0")) for n in range(2, 9)}
        fleet.put_peer(LedgerShare("there", 1, 0.1, {}, held, {}), now)
        room, a, b = router.director.reception.room, frozenset({"one"}), frozenset({"two"})
        assert room.may_close(a, 2)
        assert not room.may_close(b, 24)

    def test_in_a_large_fleet_the_load_is_that_of_the_base_model(self) -> None:
        fleet = two_fleets(40, 40)
        for state in list(fleet)[:40]:
            fleet.ledger.reserve(state, "a0")
        finder = Router(fleet).director.reception.finder
        one, two = (finder.among(fleet.serving(name).pods, None, None) for name in ("a0", "b0"))
        assert isinstance(one, Candidates)
        assert isinstance(two, Candidates)
        assert one.load() == FleetLoad(pods=40, in_flight=40, slots=80, free_slots=40)
        assert two.load() == FleetLoad(pods=40, in_flight=0, slots=80, free_slots=80)

        fleet.ledger.reserve(next(iter(fleet)), None)
        fleet.replace(state.pod for state in list(fleet)[:79])

        one = finder.among(fleet.serving("a0").pods, None, None)
        two = finder.among(fleet.serving("b0").pods, None, None)
        assert isinstance(one, Candidates)
        assert isinstance(two, Candidates)
        assert one.load().in_flight == 41
        assert two.load() == FleetLoad(pods=39, in_flight=0, slots=78, free_slots=78)
        some = finder.among(fleet.serving("b0").pods, None, frozenset({"10.0.0.50"}))
        assert isinstance(some, Candidates)
        assert (len(some), some.fleet_slots) == (1, 78)


def hear(router: Router, number: int, *in_flight: str, closed: tuple[str, str] | None) -> None:
    """Exchange shares with a peer that has adapters on the first pod; the last one waits there."""
    fleet, now = router.fleet, router.clock.now()
    fleet.report_to_peers("here", 0.1, router.director.held_adapters(), now)
    pod = state_of(fleet, 1).pod
    requests = dict.fromkeys(in_flight, 1)
    share = PodShare((pod.address, pod.uid), len(requests), requests)
    held = {} if closed is None else {in_flight[-1]: HeldShare(1.0, closed=closed)}
    fleet.put_peer(LedgerShare("there", number, 0.1, {"pod-1": share}, held, {}), now)


class TestAdaptersOfPeersThatWaitOnPods:
    def test_an_adapter_is_refused_for_a_while_where_a_peer_has_its_only_slot_emptied(self) -> None:
        router = Router(full_fleet(1, 1), max_hold_seconds=0.0)
        router.routed("a0")
        hear(router, 1, "a9", closed=("pod-1", "a0"))

        refused = router.send("a0")

        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.OVERLOADED
        for number in range(2, 2 + int((DRAIN_SECONDS + 1.0) / 0.1)):
            router.clock.advance(0.1)
            hear(router, number, "a9", closed=("pod-1", "a0"))
        assert isinstance(router.send("a0"), Routed)

    def test_a_scrape_shows_that_it_waits_no_longer_although_those_of_peers_do(self) -> None:
        router = Router(full_fleet(1, 1), max_hold_seconds=0.0)
        hear(router, 1, "a1", "a2", closed=None)
        router.routed("a0")
        room = router.director.reception.room
        assert room.waits_on("a0")

        router.clock.advance(1.0)
        at = router.clock.now()
        router.fleet.put_metrics(
            state_of(router.fleet, 1), make_metrics(["a0"], max_lora=1, scraped_at=at)
        )

        assert not room.waits_on("a0")

    def test_a_scrape_from_before_it_was_sent_shows_nothing(self) -> None:
        router = Router(full_fleet(1, 1), max_hold_seconds=0.0)
        hear(router, 1, "a1", "a2", closed=None)
        before = router.clock.now()
        router.clock.advance(0.1)
        router.routed("a0")
        router.fleet.put_metrics(
            state_of(router.fleet, 1), make_metrics(["a0"], max_lora=1, scraped_at=before)
        )
        assert router.director.reception.room.waits_on("a0")

    def test_peers_are_told_of_a_closed_slot_although_further_requests_are_held(self) -> None:
        router = Router(full_fleet(1, 1), max_hold_seconds=4.0)
        occupied(router, 1)
        router.held("a9")
        router.clock.advance(4.0)
        assert router.late_names == ["a9"]

        router.held("a9")

        assert router.director.held_adapters()["a9"].closed == ("pod-1", "a0")


class TestAdaptersThatWaitOnPodsBecauseSlotsWereNotKnown:
    """Two adapters were sent to a pod before its first scrape, which shows that it has one slot."""

    def overfull(self, shown: PodMetrics) -> Router:
        router = Router(make_fleet(1, adapters=NAMES))
        for name in ("hot", "hot", "rare"):
            router.routed({"hot": "a0", "rare": "a1"}[name])
        router.fleet.put_metrics(state_of(router.fleet, 1), shown)
        return router

    def test_get_the_slot_of_the_adapter_that_never_pauses(self) -> None:
        router = self.overfull(make_metrics(["a0"], max_lora=1))
        assert router.director.reception.room.waits_on("a1")
        router.clock.advance(PATIENCE_SECONDS)
        router.fleet.put_metrics(state_of(router.fleet, 1), make_metrics(["a0"], max_lora=1))
        assert router.director.held_adapters()["a1"].closed == ("pod-1", "a0")

    def test_are_not_taken_for_the_ones_with_a_slot(self) -> None:
        """What has had a first token has a slot, whichever came first."""
        router = self.overfull(make_metrics(["a1"], max_lora=1))
        waits_on = router.director.reception.room.waits_on
        assert waits_on("a0")
        assert not waits_on("a1")

    @pytest.mark.parametrize(
        "shown",
        [
            make_metrics(["a0"], max_lora=2),
            make_metrics(["a0", "a1"], max_lora=1),
            replace(make_metrics(["a0"], max_lora=1), deferred=0.0),
            replace(make_metrics(["a0"], max_lora=1), lora=None),
        ],
        ids=["enough slots", "both ran", "nobody waits", "not told"],
    )
    def test_are_those_that_the_scrape_shows(self, shown: PodMetrics) -> None:
        router = self.overfull(shown)
        assert not router.director.reception.room.waits_on("a1")

    def test_are_of_no_interest_to_algorithms_that_do_not_keep_slots(self) -> None:
        router = Router(full_fleet(1, 1), LeastRequest(AlgorithmOptions(rng=random.Random(1))))
        router.routed("a0")
        router.routed("a1")
        router.fleet.put_metrics(state_of(router.fleet, 1), make_metrics(["a0"], max_lora=1))
        assert not router.director.reception.room.waits_on("a1")


def test_peers_hear_of_a_slot_that_is_closed_for_a_later_request_of_an_adapter() -> None:
    router = Router(full_fleet(1, 2))
    occupied(router, 2)
    router.held("a9", tenant=1, priority="0")
    router.clock.advance(patience(600.0))
    router.held("a9", priority="1")

    (share,) = router.director.held_adapters().values()
    assert share.priority == 1, "it is served first"
    assert share.closed is not None


class TestSlotsThatWillNotBeEmptyByThemselves:
    @pytest.mark.parametrize(("requests", "closed"), [(CROWD, 1), (CROWD - 1, 0)])
    def test_are_closed_sooner(self, requests: int, closed: int) -> None:
        router = Router(full_fleet(1, 2))
        for name in NAMES[:2] * requests:
            router.routed(name)
        router.held("a9")
        router.clock.advance(CROWDED_PATIENCE_SECONDS)
        assert router.director.closed_slots == closed
        router.clock.advance(patience(600.0) - CROWDED_PATIENCE_SECONDS)
        assert router.director.closed_slots == 1


@pytest.mark.parametrize("max_hold_seconds", [0.0, 1.0, 5.0, 30.0])
def test_a_rare_adapter_gets_in_with_any_limit_of_holding(max_hold_seconds: float) -> None:
    """Two hot adapters overlap their requests for ever, and a third one is asked for."""
    generation = 5.0
    fleet = full_fleet(1, 2)
    router = Router(fleet, max_hold_seconds=max_hold_seconds)
    clock, rng = router.clock, random.Random(1)
    running: dict[str, int] = {}
    """Requests that generate on the pod, by adapter. It has two slots, as vLLM."""
    waiting: list[Routed] = []
    started: dict[str, float] = {}

    def schedule() -> None:
        for routed in tuple(waiting):
            if routed.model in running or len(running) < 2:
                waiting.remove(routed)
                running[routed.model] = running.get(routed.model, 0) + 1
                started.setdefault(routed.model, clock.now())
                clock.call_later(generation, partial(end, routed))

    def end(routed: Routed) -> None:
        running[routed.model] -= 1
        if not running[routed.model]:
            del running[routed.model]
        schedule()
        routed.reservation.release()

    def send(model: str) -> None:
        def decided(outcome: object) -> None:
            if isinstance(outcome, Routed):
                waiting.append(outcome)
                schedule()

        decided(router.director.route(RouteQuery(model), decided))

    for tick in range(60):
        clock.call_later(tick + rng.random(), lambda: send("a1"))
        clock.call_later(tick + rng.random(), lambda: send("a2"))
    asked_at = clock.now() + 10.0
    clock.call_later(10.0, lambda: send("a3"))
    clock.advance(60.0)

    assert started["a3"] - asked_at <= 12.0
    assert router.director.closed_slots == 0
