"""The waiting room: which requests are asked for when, at what cost, and that none is forgotten."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lora_router.fleet.adapter_beliefs import AdapterBeliefs
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.routing.agenda import AT_ONCE, PASSED_OVER
from lora_router.routing.algorithm import AlgorithmOptions, Hold, InferenceRequest, Pick, WakesOn
from lora_router.routing.candidates import FULL_LOOK, Candidates
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.routing.order_of_asking import COMPARED
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.overload import PATIENCE_SECONDS, Overload
from lora_router.routing.reception import Reception
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.roll import Limits
from lora_router.routing.waiting_lines import MAX_NARROWED, Lines
from lora_router.routing.waiting_queue import Held, Line
from tests.examples import examples
from tests.fleet import make_fleet, make_metrics, make_pod, state_of
from tests.parameters import mostly_slow
from tests.unit.routing.router import Router

MANY = Limits(requests=10_000, requests_per_model=10_000)


class CountingPlacement(LoraPlacement):
    """``lora-placement`` that counts its calls."""

    def __init__(self) -> None:
        super().__init__(AlgorithmOptions(rng=random.Random(1)))
        self.asked = 0

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick | Hold:
        self.asked += 1
        return super().pick(request, candidates, now)


class Picky(CountingPlacement):
    """Never sends requests for one adapter while they may wait, whatever is free."""

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick | Hold:
        answer = super().pick(request, candidates, now)
        if request.model == "picky" and request.may_hold:
            return Hold("picky", 600.0, wakes_on=WakesOn.FREE_SLOT)
        return answer


def idle_metrics(slots: int, scraped_at: float = 0.0) -> PodMetrics:
    return replace(make_metrics(max_lora=slots, scraped_at=scraped_at), running=0.0)


def fleet_of(pods: int, slots: int, adapters: list[str]) -> Fleet:
    """Return a fleet whose host memory holds all adapters, so that none waits near its copy."""
    fleet = make_fleet(pods, adapters=adapters, host_memory=len(adapters))
    for state in fleet:
        fleet.put_metrics(state, idle_metrics(slots))
    return fleet


def numbered(fleet: Fleet) -> Fleet:
    """Label each pod of a fleet with its number, as ``n``."""
    fleet.update([replace(each.pod, labels={"n": each.pod.name[4:]}) for each in fleet])
    return fleet


def with_many_filters(slots: int, adapters: list[str]) -> Fleet:
    """Return a fleet in which ``n!=1``, ``n!=2`` and so on leave one set of pods each."""
    return numbered(fleet_of(MAX_NARROWED + 2, slots, adapters))


class Saturated:
    """A fleet in which every slot has an adapter with two requests and other adapters wait."""

    def __init__(
        self, pods: int = 4, slots: int = 2, waiting: int = 6, closed_slots_share: float = 0.1
    ) -> None:
        self.running = [f"runs-{number}" for number in range(pods * slots)]
        self.waiting = [f"waits-{number}" for number in range(waiting)]
        self.algorithm = CountingPlacement()
        fleet = fleet_of(pods, slots, self.running + self.waiting)
        overload = Overload(closed_slots_share, sheds=True)
        self.router = Router(fleet, self.algorithm, limits=MANY, overload=overload)
        self.open = {
            name: [self.router.routed(name), self.router.routed(name)] for name in self.running
        }
        self.held = [self.router.held(name) for name in self.waiting]
        self.pod = state_of(fleet, 1)

    def end_one(self, name: str) -> None:
        self.open[name].pop().reservation.release()

    def asked(self, happens: Callable[[], object]) -> int:
        """Return how often the algorithm is asked because of an event, immediately and later."""
        before = self.algorithm.asked
        happens()
        self.router.clock.advance(0.1)
        return self.algorithm.asked - before


class TestWhatAChangeCosts:
    @pytest.mark.parametrize(("pods", "waiting"), mostly_slow([(4, 6), (32, 872), (200, 5000)]))
    def test_no_request_is_asked_when_none_can_go(self, pods: int, waiting: int) -> None:
        fleet = Saturated(pods, 4, waiting)
        router, pod = fleet.router, fleet.pod

        def joins_and_leaves() -> None:
            serves = ("base", *fleet.running, *fleet.waiting)
            router.fleet.upsert(make_pod(pods + 1, ready=False, models=serves))
            router.fleet.remove(f"pod-{pods + 1}")

        metrics = idle_metrics(4, 1.0)
        assert fleet.asked(lambda: fleet.end_one("runs-0")) == 0
        assert fleet.asked(lambda: router.fleet.put_metrics(pod, metrics)) == 0
        assert fleet.asked(joins_and_leaves) == 0
        changed = replace(pod.pod, labels={"gpu": "h100"})
        assert fleet.asked(lambda: router.fleet.upsert(changed)) == 0
        assert router.director.held == waiting

    @pytest.mark.parametrize(("pods", "waiting"), mostly_slow([(4, 6), (32, 872), (200, 5000)]))
    def test_one_is_asked_when_a_slot_is_free(self, pods: int, waiting: int) -> None:
        fleet = Saturated(pods, 4, waiting)
        fleet.end_one("runs-0")

        assert fleet.asked(lambda: fleet.end_one("runs-0")) == 1
        assert fleet.router.late_names == ["waits-0"]

    def test_what_a_peer_reports_of_many_pods_goes_through_the_lines_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not once for each pod: there may be as many lines as pods."""
        fleet = Saturated(8, 2, 6)
        gone_through = 0

        def each(lines: Lines) -> Iterator[Line]:
            nonlocal gone_through
            gone_through += 1
            return iterate(lines)

        iterate = Lines.__iter__
        monkeypatch.setattr(Lines, "__iter__", each)
        fleet.router.fleet.changes.shared.send(tuple(fleet.router.fleet))
        assert gone_through <= 2

    def test_a_new_pod_fills_with_the_requests_that_waited_longest(self) -> None:
        fleet = Saturated(4, 2, 100)
        serves = [ServedModel("base")]
        serves += [ServedModel(name, "base") for name in (*fleet.running, *fleet.waiting)]
        new = make_pod(5)
        fleet.router.fleet.upsert(new)
        state = state_of(fleet.router.fleet, 5)

        assert fleet.asked(lambda: fleet.router.fleet.put_models(state, serves)) <= 3
        assert fleet.router.late_names == ["waits-0", "waits-1"]

    @pytest.mark.slow
    def test_no_more_than_a_few_are_asked_in_one_turn(self) -> None:
        fleet = Saturated(2, 2, 4)
        for _ in range(10 * AT_ONCE):
            fleet.router.held("waits-0")
        fleet.end_one("runs-0")
        fleet.end_one("runs-0")
        in_this_turn = len(fleet.router.late)
        assert AT_ONCE - 1 <= in_this_turn <= AT_ONCE + 1

        fleet.router.clock.advance(0.0)
        assert fleet.router.late_names == ["waits-0"] * (10 * AT_ONCE + 1)

    def test_with_a_filter_fewer_are_asked_in_one_turn_the_more_pods_it_selects(self) -> None:
        fleet = Saturated(160, 1, 1)
        numbered(fleet.router.fleet)
        pods = fleet.router.fleet
        another = next(each for each in pods if "runs-0" not in each.in_flight_adapters)
        for _ in range(20):
            fleet.router.held("waits-0", pod_filter=f"n!={another.pod.labels['n']}")
        fleet.end_one("runs-0")
        fleet.end_one("runs-0")
        assert 0 < len(fleet.router.late) <= AT_ONCE * FULL_LOOK // 160 + 2

        fleet.router.clock.advance(0.0)
        assert fleet.router.late_names == ["waits-0"] * 21

    def test_after_a_change_of_pods_few_filters_are_put_to_all_pods_in_one_turn(self) -> None:
        fleet = Saturated(160, 1, 1)
        numbered(fleet.router.fleet)
        fleet.router.clock.advance(0.1)
        for number in range(1, 21):
            fleet.router.held("waits-0", pod_filter=f"n!={number}")
        lines = fleet.router.director.reception.room.lines
        assert len(list(lines)) == 21

        fleet.router.fleet.upsert(make_pod(161, models=("base",)))
        assert sum(not line.stale for line in lines) <= AT_ONCE * FULL_LOOK // 160 + 2

        fleet.router.clock.advance(0.0)
        assert not any(line.stale for line in lines)

    def test_a_question_that_takes_a_whole_turn_is_not_put_for_ever(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lora_router.routing.candidates.FULL_LOOK", 1)
        names = [f"runs-{number}" for number in range(40)]
        algorithm = Picky()
        router = Router(fleet_of(40, 1, [*names, "picky", "waits"]), algorithm, limits=MANY)
        running = [router.routed(name) for name in names]
        router.held("picky", pod_filter="!old")
        router.held("waits", pod_filter="!old")
        before = algorithm.asked

        running[0].reservation.release()
        router.clock.advance(0.1)

        assert router.late_names == ["waits"]
        assert algorithm.asked - before <= 4

    @pytest.mark.parametrize(("adapters", "tenants"), [(12, 5), (40, 1)])
    def test_a_turn_in_which_no_request_can_go_is_not_repeated(
        self, monkeypatch: pytest.MonkeyPatch, adapters: int, tenants: int
    ) -> None:
        names = [f"a{number}" for number in range(adapters)]
        fleet = make_fleet(1, adapters=names)
        state = state_of(fleet, 1)
        router = Router(fleet, overload=Overload(sheds=True))
        slots = make_metrics(max_lora=64)
        fleet.put_metrics(state, replace(slots, running=1.0, waiting=0.0))
        running = [router.routed(name) for name in names for _ in range(40 // adapters)]
        for _ in range(
            4
        ):  # The pod has no room for more, and those of its adapters may still join.
            busy = replace(slots, running=20.0, waiting=5.0, scraped_at=router.clock.now())
            fleet.put_metrics(state, busy)
            router.clock.advance(1.0)
        waiting = [router.held(name, tenant=n) for name in names for n in range(1, tenants + 1)]
        asked = set[Held]()
        times = 0

        def count(reception: Reception, held: Held) -> bool:
            nonlocal times
            asked.add(held)
            times += 1
            assert times < 1000, "the waiting room drops what fails, so that the test ends"
            return ask(reception, held)

        ask = Reception.ask
        monkeypatch.setattr(Reception, "ask", count)
        running[-1].reservation.release()
        router.clock.advance(0.2)

        assert len(asked) >= len(waiting) - 1, "all are asked for, but for what left the pod"
        assert times < 3 * len(waiting)

    def test_when_all_become_impatient_at_once_they_are_asked_in_turns(self) -> None:
        fleet = Saturated(4, 4, 200, closed_slots_share=0.5)
        before = fleet.algorithm.asked
        fleet.router.clock.advance_to_next(PATIENCE_SECONDS)
        assert 0 < fleet.algorithm.asked - before <= AT_ONCE

        fleet.router.clock.advance(PATIENCE_SECONDS)
        shares = fleet.router.director.held_adapters().values()
        closed = [share.closed for share in shares if share.closed is not None]
        assert len(set(closed)) == len(closed) == 8


class TestWhoIsNext:
    def test_the_request_that_waited_longest_goes_first_regardless_of_its_model(self) -> None:
        fleet = Saturated(1, 2, 3)
        fleet.router.held("waits-1", "second for waits-1")
        for name in ("runs-0", "runs-0", "runs-1", "runs-1"):
            fleet.end_one(name)

        assert fleet.router.late_names == ["waits-0", "waits-1", "second for waits-1"]
        assert fleet.router.director.held == 1

    def test_the_request_that_takes_a_slot_is_followed_by_others_of_its_adapter(self) -> None:
        fleet = Saturated(1, 1, 2)
        fleet.router.held("waits-0", "follows")
        fleet.end_one("runs-0")
        fleet.end_one("runs-0")

        assert fleet.router.late_names == ["waits-0", "follows"]

    def test_all_of_its_adapter_follow_before_the_slot_is_closed_for_the_next_adapter(self) -> None:
        """Those that follow are more than are asked for in one turn, and of other tenants."""
        router = Router(fleet_of(1, 2, ["x", "y", "first", "next"]))
        running = {name: [router.routed(name) for _ in range(60)] for name in "xy"}
        router.held("first", "first", priority="0")
        router.held("next", priority="0")
        for number in range(2 * AT_ONCE):
            router.held("first", "first", tenant=number % 3, priority=str(number % 2))
        router.clock.advance(PATIENCE_SECONDS + 1.0)
        (closed,) = [
            queue.closing for queue in router.director.reception.room.queues() if queue.closing
        ]

        for routed in running.pop(closed[1]):
            routed.reservation.release()
        router.clock.advance(0.5)

        assert router.late_names == ["first"] * (2 * AT_ONCE + 1)
        (closed,) = [
            queue.closing for queue in router.director.reception.room.queues() if queue.closing
        ]
        assert closed[1] in running, "the other slot is emptied next"

    def test_an_adapter_that_a_peer_started_can_be_joined(self) -> None:
        fleet = Saturated(1, 1, 2)
        there = fleet_of(1, 1, fleet.running + fleet.waiting)
        there.ledger.reserve(state_of(there, 1), "waits-1")
        fleet.router.fleet.put_peer(there.report_to_peers("there", 0.1, {}, 0.0), 0.0)

        assert fleet.router.late_names == ["waits-1"]

    def test_models_of_other_pods_are_not_in_the_way(self) -> None:
        fleet = Fleet()
        fleet.upsert(make_pod(1, models=("left", "a", "b")))
        fleet.upsert(make_pod(2, models=("right", "x", "y", *(f"w{n}" for n in range(50)))))
        for state in fleet:
            fleet.put_metrics(state, idle_metrics(1))
        algorithm = CountingPlacement()
        router = Router(fleet, algorithm)
        ends, _ = router.routed("a"), router.routed("x")
        for number in range(50):
            router.held(f"w{number}")
        router.held("b")
        asked = algorithm.asked

        ends.reservation.release()

        assert router.late_names == ["b"]
        assert algorithm.asked == asked + 1

    def test_a_filter_that_leaves_other_pods_is_not_in_the_way(self) -> None:
        fleet = fleet_of(2, 1, ["a", "b", "c", "d"])
        fleet.upsert(replace(state_of(fleet, 2).pod, labels={"gpu": "h100"}))
        router = Router(fleet)
        for name in ("a", "b"):
            first = router.routed(name)
            if first.address == "10.0.0.1:8000":
                ends = first
        router.held("c", pod_filter="gpu=h100")
        router.held("d")

        ends.reservation.release()

        assert router.late_names == ["d"]

    def test_models_that_move_to_other_pods_take_their_queues_along(self) -> None:
        names = ["a", "b", *(f"w{number}" for number in range(3 * AT_ONCE))]
        fleet = fleet_of(2, 1, names)
        router = Router(fleet)
        first, second = router.routed("a"), router.routed("b")
        for name in names[2:]:
            router.held(name)
        pod = first.reservation.state
        fleet.put_models(pod, [ServedModel("base"), ServedModel("a", "base")])
        router.clock.advance(0.1)

        first.reservation.release()
        assert router.late_names == []
        second.reservation.release()
        assert router.late_names == ["w0"]

    @pytest.mark.slow
    def test_a_pod_of_other_models_that_comes_asks_and_moves_nobody(self) -> None:
        fleet = Saturated(4, 2, 1000)
        lines = {held.queue.line for held in fleet.held if held.queue is not None}
        other = make_pod(5, models=("other", "x", "y"))

        assert fleet.asked(lambda: fleet.router.fleet.upsert(other)) == 0
        assert {held.queue.line for held in fleet.held if held.queue is not None} == lines
        fleet.end_one("runs-0")
        fleet.end_one("runs-0")
        assert fleet.router.late_names == ["waits-0"]

    def test_a_pod_with_one_more_adapter_moves_the_queues_of_its_models_only(self) -> None:
        fleet = Fleet()
        fleet.upsert(make_pod(1, models=("base", "a", "b", "c")))
        fleet.put_metrics(state_of(fleet, 1), idle_metrics(1))
        router = Router(fleet)
        ends = router.routed("a")
        router.held("b")
        router.held("c")
        fleet.upsert(make_pod(2, models=("base", "b", "more")))
        assert router.late_names == ["b"]

        ends.reservation.release()
        assert router.late_names == ["b", "c"]

    def test_a_slot_that_the_first_ones_leave_is_offered_to_all(self) -> None:
        """Queues that their algorithm continues to hold do not withhold a slot from the others."""

        class OnlyLast:
            name = "only-last"

            def pick(
                self, request: InferenceRequest, candidates: Candidates, _now: float
            ) -> Pick | Hold:
                if candidates.has_free_slot() and request.model in {"runs", "last"}:
                    return Pick(candidates[0], "mine")
                return Hold("not-mine", 60.0, wakes_on=WakesOn.FREE_SLOT)

        names = [f"w{number}" for number in range(4 * PASSED_OVER)]
        router = Router(fleet_of(1, 1, ["runs", *names, "last"]), OnlyLast())
        first = router.routed("runs")
        for name in (*names, "last"):
            router.held(name)
        first.reservation.release()
        assert router.late_names == []

        router.clock.advance(0.1)
        assert router.late_names == ["last"]


class TestPriorities:
    """Requests name objectives, which have priorities."""

    @staticmethod
    def saturated(pods: int = 1, slots: int = 1, waiting: int = 3) -> Saturated:
        fleet = Saturated(pods, slots, waiting)
        fleet.router.director.priorities.put({"chat": 10, "batch": -5})
        return fleet

    def test_a_higher_priority_goes_first_however_long_others_waited(self) -> None:
        fleet = self.saturated(1, 4, 4)
        fleet.router.held("waits-1", "batch", objective="batch")
        fleet.router.held("waits-3", "first chat", objective="chat")
        fleet.router.held("waits-2", "second chat", objective="chat")
        for name in fleet.running:
            for _ in range(2):
                fleet.end_one(name)

        # The others of an adapter follow the request that takes its slot.
        names = fleet.router.late_names
        assert names[:4] == ["first chat", "waits-3", "second chat", "waits-2"]
        assert names[4:] == ["waits-0", "waits-1", "batch"]

    def test_of_one_adapter_the_higher_priority_goes_first(self) -> None:
        fleet = self.saturated(1, 1, 1)
        fleet.router.held("waits-0", "batch", objective="batch")
        fleet.router.held("waits-0", "chat", objective="chat")
        for _ in range(2):
            fleet.end_one("runs-0")

        assert fleet.router.late_names == ["chat", "waits-0", "batch"]

    def test_an_unknown_objective_is_none(self) -> None:
        fleet = self.saturated(1, 1, 2)
        fleet.router.held("waits-1", "unknown", objective="no such objective")
        for _ in range(2):
            fleet.end_one("runs-0")

        assert fleet.router.late_names == ["waits-0"]

    def test_a_request_keeps_the_priority_with_which_it_came(self) -> None:
        fleet = self.saturated(1, 1, 2)
        fleet.router.held("waits-1", "chat", objective="chat")
        fleet.router.director.priorities.put({})
        for _ in range(2):
            fleet.end_one("runs-0")

        assert fleet.router.late_names == ["chat", "waits-1"]

    def test_algorithms_see_the_priority(self) -> None:
        seen: list[int] = []

        class Looks(CountingPlacement):
            def pick(
                self, request: InferenceRequest, candidates: Candidates, now: float
            ) -> Pick | Hold:
                seen.append(request.priority)
                return super().pick(request, candidates, now)

        router = Router(fleet_of(1, 1, ["a", "b"]), Looks())
        router.director.priorities.put({"chat": 7})
        first = router.routed("a", objective="chat")
        router.held("b", objective="chat")
        first.reservation.release()

        assert router.late_names == ["b"]
        assert set(seen) == {7}


class TestWhichQueueGetsAFreedSlot:
    """``near`` is in the pod's host memory, and ``far`` is not.

    It is the same whether the other pods have the same adapters, or each adapter has other pods.
    """

    @pytest.fixture(params=["the same pods", "other pods"])
    def router(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Router:
        seconds = {"near": 0.0, "far": 1.5}
        monkeypatch.setattr(
            AdapterBeliefs, "seconds_to_load", lambda _beliefs, adapter: seconds.get(adapter, 0.0)
        )
        fleet = fleet_of(1, 1, ["runs", "near", "far"])
        if request.param == "the same pods":
            return Router(fleet)
        fleet.upsert(make_pod(2))
        other = state_of(fleet, 2)
        fleet.put_metrics(other, make_metrics(max_lora=1))
        fleet.put_models(
            other,
            [
                ServedModel("base"),
                *(ServedModel(name, "base") for name in ("fills", "near")),
            ],
        )
        router = Router(fleet)
        router.routed("fills")
        return router

    @pytest.mark.parametrize(
        ("longer", "first"), [(0.0, "near"), (4.0, "near"), (5.0, "far"), (30.0, "far")]
    )
    def test_the_one_that_is_cheapest_to_load_there_and_waiting_counts(
        self, router: Router, longer: float, first: str
    ) -> None:
        runs = router.routed("runs")
        router.held("far")
        router.clock.advance(longer)
        router.held("near")
        runs.reservation.release()

        assert router.late_names == [first]

    def test_a_higher_priority_comes_first(self, router: Router) -> None:
        router.director.priorities.put({"chat": 1})
        runs = router.routed("runs")
        router.held("near")
        router.held("far", objective="chat")
        runs.reservation.release()

        assert router.late_names == ["far"]

    def test_few_are_compared_however_many_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compared: list[str] = []

        def seconds_to_load(_beliefs: AdapterBeliefs, adapter: str) -> float:
            compared.append(adapter)
            return 0.0

        fleet = Saturated(4, 4, 200)
        fleet.end_one("runs-0")
        monkeypatch.setattr(AdapterBeliefs, "seconds_to_load", seconds_to_load)
        assert fleet.asked(lambda: fleet.end_one("runs-0")) == 1
        assert compared[:COMPARED] == fleet.waiting[:COMPARED]
        assert len(compared) <= COMPARED + 1  # The one that was served, once more.


class TestHowLong:
    @pytest.mark.parametrize("scrape_seconds", [None, 1.0, 12.0, 60.0])
    def test_a_rare_adapter_waits_no_longer_than_patience_and_a_generation(
        self, scrape_seconds: float | None
    ) -> None:
        """Two hot adapters overlap their requests for ever, as in the measured starvation."""
        generation = 5.0
        fleet = fleet_of(1, 2, ["hot-1", "hot-2", "rare"])
        router = Router(fleet)
        clock = router.clock
        waits_for: list[float] = []

        def end(outcome: Routed) -> None:
            outcome.reservation.release()

        def send(model: str) -> None:
            def decided(outcome: Routed | Refused) -> None:
                assert isinstance(outcome, Routed)
                if model == "rare":
                    waits_for.append(clock.now())
                clock.call_later(generation, lambda: end(outcome))

            outcome = router.director.route(RouteQuery(model), decided)
            if isinstance(outcome, Routed):
                decided(outcome)

        for tick in range(60):
            clock.call_later(tick, lambda: send("hot-1"))
            clock.call_later(tick + 0.5, lambda: send("hot-2"))
        if scrape_seconds is not None:
            for tick in range(int(60 / scrape_seconds)):
                clock.call_later(
                    tick * scrape_seconds,
                    lambda: fleet.put_metrics(state_of(fleet, 1), idle_metrics(2)),
                )
        started = clock.now() + 10.0
        clock.call_later(10.0, lambda: send("rare"))
        clock.advance(60.0)

        (routed_at,) = waits_for
        assert routed_at - started <= PATIENCE_SECONDS + generation + 0.1

    def test_the_algorithm_says_when_it_wants_to_be_asked_again(self) -> None:
        class Patient:
            name = "patient"

            def pick(
                self, request: InferenceRequest, candidates: Candidates, now: float
            ) -> Pick | Hold:
                if request.held_since is not None and now - request.held_since >= 3.0:
                    return Pick(candidates[0], "patient-enough")
                return Hold("patience", 60.0, wakes_on=WakesOn.FREE_SLOT, ask_again=3.0)

        router = Router(fleet_of(1, 1, ["a"]), Patient())
        router.held("a")
        router.clock.advance(2.9)
        assert router.late_names == []
        router.clock.advance(0.2)
        assert router.late_names == ["a"]


class TestHowMany:
    def test_one_more_than_may_wait_is_refused(self) -> None:
        fleet = fleet_of(1, 1, ["a", "b", "c"])
        router = Router(fleet, limits=Limits(requests=2, requests_per_model=2))
        first = router.routed("a")
        router.held("b")
        leaves = router.held("c")
        refused = router.send("b")
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.TOO_MANY_HELD

        leaves.cancel()
        router.held("b")
        first.reservation.release()
        assert router.late_names == ["b", "b"]

    def test_one_model_cannot_take_the_whole_room(self) -> None:
        router = Router(fleet_of(1, 1, ["a", "b", "c"]), limits=Limits(10, requests_per_model=1))
        router.routed("a")
        router.held("b")
        refused = router.send("b")
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.TOO_MANY_HELD
        router.held("c")

    def test_one_model_cannot_take_the_whole_room_from_lower_priorities(self) -> None:
        others = [f"other-{number}" for number in range(4)]
        router = Router(fleet_of(1, 1, ["a", "b", *others]), limits=Limits(6, requests_per_model=2))
        router.routed("a")
        for name in others:
            router.held(name, priority="-1")
        router.held("b", "low", priority="0")
        router.held("b", "high", priority="1")
        assert isinstance(router.send("b", priority="0"), Refused)

        router.held("b", "higher", priority="1")

        assert [name for name, _ in router.late] == ["low"]
        assert router.director.held == 6

    def test_a_filter_that_nobody_else_has_waits_only_while_few_do(self) -> None:
        names = [f"a{number}" for number in range(4)]
        fleet = with_many_filters(1, names)
        router = Router(fleet, limits=MANY)
        running = [fleet.ledger.reserve(each, "a0") for each in fleet]
        filters = [f"n!={number}" for number in range(1, MAX_NARROWED + 2)]
        other = filters.pop()
        leaves = [router.held("a1", pod_filter=each) for each in filters][7]
        refused = router.send("a1", pod_filter=other)
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.TOO_MANY_HELD

        router.held("a2", pod_filter="n!=3")  # With a filter that others have.
        router.held("a3")  # And without one.
        leaves.cancel()
        router.held("a1", pod_filter=other)

        running[-1].release()
        router.clock.advance(1.0)
        assert router.late_names == ["a1"] * MAX_NARROWED

    def test_a_request_that_need_not_wait_is_routed_if_too_many_filters_wait(self) -> None:
        class Waits(CountingPlacement):
            def pick(
                self, request: InferenceRequest, candidates: Candidates, now: float
            ) -> Pick | Hold:
                if request.may_hold:
                    return Hold("near", 600.0, optional=request.model == "b")
                return super().pick(request, candidates, now)

        router = Router(with_many_filters(1, ["a", "b"]), Waits(), limits=MANY)
        for number in range(1, MAX_NARROWED + 1):
            router.held("a", pod_filter=f"n!={number}")

        router.routed("b", pod_filter=f"n!={MAX_NARROWED + 1}")
        router.held("b")


class TestWhatFails:
    def test_an_outcome_that_cannot_be_delivered_costs_its_own_request_only(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        fleet = fleet_of(1, 1, ["a", "b", "c"])
        router = Router(fleet)
        first = router.routed("a")

        def broken(_outcome: object) -> None:
            raise RuntimeError("the stream is gone")

        router.director.route(RouteQuery("b"), broken)
        router.held("c")
        first.reservation.release()
        router.clock.advance(0.1)

        assert router.late_names == ["c"]
        assert (router.director.held, fleet.ledger.total) == (0, 1)
        assert "the stream is gone" in caplog.text

    def test_an_algorithm_that_fails_when_the_time_is_up_leaves_no_request_waiting(self) -> None:
        class Broken:
            name = "broken"

            def pick(
                self, request: InferenceRequest, _candidates: Candidates, _now: float
            ) -> Pick | Hold:
                if not request.may_hold:
                    raise SystemExit(3)
                return Hold("wait", 1.0)

        router = Router(fleet_of(1, 1, ["a"]), Broken())
        router.held("a")
        router.clock.advance(1.0)

        assert router.late_names == ["a"]

    def test_a_clock_that_fails_for_one_request_lets_the_others_go(self) -> None:
        """A request is answered even if an error occurs when its time is up."""
        router = Router(fleet_of(1, 1, ["a", "b"]), max_hold_seconds=5.0)
        router.routed("a")
        router.held("b")

        def fails(*_arguments: object) -> None:
            raise RuntimeError("broken")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(router.decisions, "decided", fails, raising=False)
            router.clock.advance(5.0)

        assert len(router.late) == 1
        assert router.director.held == 0


class TestDraining:
    def test_requests_that_can_still_go_are_routed(self) -> None:
        fleet = Saturated(1, 1, 1)
        fleet.router.director.drain(20.0)
        fleet.router.clock.advance(5.0)
        fleet.end_one("runs-0")
        fleet.end_one("runs-0")

        assert fleet.router.late_names == ["waits-0"]

    @pytest.mark.slow
    def test_what_still_waits_is_decided_in_time(self) -> None:
        fleet = Saturated(4, 2, 300)
        fleet.router.director.drain(20.0)
        fleet.router.clock.advance(20.0)

        assert len(fleet.router.late) == 300
        assert fleet.router.director.held == 0

    def test_what_an_algorithm_would_still_hold_is_refused_as_shutting_down(self) -> None:
        class Stubborn:
            name = "stubborn"

            def pick(self, *_arguments: object) -> Pick | Hold:
                return Hold("never", 60.0)

        router = Router(fleet_of(1, 1, ["a"]), Stubborn())
        router.held("a")
        router.director.drain(0.0)
        ((_, outcome),) = router.late
        assert isinstance(outcome, Refused)
        assert outcome.refusal is Refusal.SHUTTING_DOWN

        refused = router.send("a")
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.SHUTTING_DOWN


def test_a_share_contains_each_adapter_once() -> None:
    fleet = fleet_of(1, 1, ["a", "b"])
    router = Router(fleet)
    router.routed("a")
    router.held("b")
    router.clock.advance(2.0)
    router.held("b", pod_filter="!gpu")

    assert router.director.held_adapters() == {"b": HeldShare(2.0)}


class WaitingRoomMachine(RuleBasedStateMachine):
    """After any sequence of events, no request that could go waits, and each has one outcome."""

    def __init__(self) -> None:
        super().__init__()
        self.names = [f"a{number}" for number in range(8)]
        self.fleet = fleet_of(2, 2, self.names)
        overload = Overload(sheds=True, max_requests_per_pod=3)
        self.router = Router(self.fleet, max_hold_seconds=30.0, overload=overload)
        self.router.director.priorities.put({"chat": 1, "batch": -1})
        self.open: list[Routed] = []
        self.held: list[Held] = []
        self.seen = 0

    @rule(
        model=st.integers(0, 9),
        narrow=st.sampled_from([None, None, "zone=b", "!zone"]),
        objective=st.sampled_from(["", "", "chat", "batch"]),
        tenant=st.integers(0, 2),
    )
    def send(self, model: int, narrow: str | None, objective: str, tenant: int) -> None:
        name = self.names[model] if model < len(self.names) else "base"
        outcome = self.router.send(name, pod_filter=narrow, objective=objective, tenant=tenant)
        if isinstance(outcome, Routed):
            self.open.append(outcome)
        elif isinstance(outcome, Held):
            self.held.append(outcome)

    @rule(which=st.integers(0, 100))
    def end(self, which: int) -> None:
        if self.open:
            self.open.pop(which % len(self.open)).reservation.release()

    @rule(which=st.integers(0, 100))
    def leave(self, which: int) -> None:
        if self.held:
            self.held.pop(which % len(self.held)).cancel()

    @rule(number=st.integers(1, 4), slots=st.integers(1, 3))
    def scrape(self, number: int, slots: int) -> None:
        state = self.fleet.get(f"pod-{number}")
        if state is not None:
            self.fleet.put_metrics(state, idle_metrics(slots))

    @rule(number=st.integers(1, 4), ready=st.booleans(), zone=st.sampled_from(["", "b"]))
    def change_pod(self, number: int, ready: bool, zone: str) -> None:
        labels = {"zone": zone} if zone else {}
        models = ("base", *self.names)
        self.fleet.upsert(make_pod(number, ready=ready, labels=labels, models=models))

    @rule(number=st.integers(1, 4))
    def remove_pod(self, number: int) -> None:
        self.fleet.remove(f"pod-{number}")

    @rule(number=st.integers(1, 4), first=st.integers(0, 7))
    def change_models(self, number: int, first: int) -> None:
        state = self.fleet.get(f"pod-{number}")
        if state is not None:
            served = [ServedModel("base")]
            served += [ServedModel(name, "base") for name in self.names[first:]]
            self.fleet.put_models(state, served)

    @rule(seconds=st.sampled_from([0.0, 0.1, 3.0, 7.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.router.clock.advance(seconds)

    @invariant()
    def each_has_one_outcome_and_nobody_who_could_go_waits(self) -> None:
        self.router.clock.advance(0.2)  # Lets the work in later iterations of the loop finish.
        late = self.router.late[self.seen :]
        self.open += [outcome for _, outcome in late if isinstance(outcome, Routed)]
        self.seen += len(late)
        director = self.router.director
        reception = director.reception

        waiting = [held for held in self.held if held.queue is not None]
        assert director.held == len(waiting)
        assert self.fleet.ledger.total == len(self.open)
        for held in waiting:
            candidates = reception.candidates_for(held.question)
            assert not candidates or reception.ask(held), "a request could have gone"


TestWaitingRoomMachine = pytest.mark.slow(WaitingRoomMachine.TestCase)
TestWaitingRoomMachine.settings = examples(60, steps=40)
