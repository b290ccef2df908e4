"""What becomes of requests for which there is no room: who waits, who is refused, and why."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import pytest

from lora_router.extproc.errors import refusal_answer
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.routing.algorithm import Algorithm, AlgorithmOptions
from lora_router.routing.least_request import LeastRequest
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.overload import PATIENCE_SECONDS, Overload
from lora_router.routing.overrun import ExpectedWait, Overrun
from lora_router.routing.pace import Pace
from lora_router.routing.reception import Reception
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.roll import Limits
from lora_router.routing.turns_of_tenants import MOST_TENANTS, TurnsOfTenants
from lora_router.routing.waiting_queue import HOME_SECONDS, Held
from tests.fleet import make_fleet, make_metrics, state_of
from tests.parameters import mostly_slow
from tests.unit.routing.prompts import has_seen, prompt
from tests.unit.routing.router import Router

NAMES = [f"a{number}" for number in range(60)]


def idle(slots: int) -> PodMetrics:
    return replace(make_metrics(max_lora=slots), running=0.0)


ONE_SLOT = idle(1)


def fleet_of(pods: int, metrics: PodMetrics = ONE_SLOT, *, load_seconds: float = 0.1) -> Fleet:
    fleet = make_fleet(pods, adapters=NAMES)
    for state in fleet:
        fleet.put_metrics(state, metrics)
        state.beliefs.load_seconds = 0.0, 0.1, load_seconds
    return fleet


def served_each_second(router: Router, names: list[str]) -> None:
    """Let adapters have the slot of a pod for a second each, one after the other."""
    open_request = router.routed(names[0])
    for name in names[1:]:
        router.held(name)
        router.clock.advance(1.0)
        open_request.reservation.release()
        outcome = router.late[-1][1]
        assert isinstance(outcome, Routed)
        open_request = outcome


class TestThePaceOfALine:
    def test_is_unknown_until_some_were_served(self) -> None:
        pace = Pace()
        pace.start(0.0)
        for second in range(4):
            pace.granted(second + 1.0)
        assert pace.seconds_for(3, 4.0) is None
        pace.granted(5.0)
        assert pace.seconds_for(3, 5.0) == pytest.approx(4.0, rel=0.15)

    def test_counts_only_time_in_which_somebody_waits(self) -> None:
        pace = Pace()
        pace.start(0.0)
        for second in range(20):
            pace.granted(second + 1.0)
        pace.stop(20.0)
        pace.start(1000.0)
        assert pace.seconds_for(1, 1000.0) == pytest.approx(2.0, rel=0.15)

    def test_slows_down_while_nobody_is_served(self) -> None:
        pace = Pace()
        pace.start(0.0)
        for second in range(20):
            pace.granted(second + 1.0)
        assert pace.seconds_for(0, 60.0) == pytest.approx(20.0, rel=0.2)

    def test_counts_what_those_get_that_wait_at_peers(self) -> None:
        pace = Pace()
        for second in range(20):
            pace.hear(float(second), peers_wait=True, granted=min(second, 1))
        pace.hear(20.0, peers_wait=False, granted=1)
        assert pace.seconds_for(1, 20.0) == pytest.approx(2.0, rel=0.15)
        assert pace.seconds_for(1, 1000.0) == pace.seconds_for(1, 20.0), "nobody waits"

    def test_takes_those_that_come_here_from_what_this_router_gets(self) -> None:
        pace = Pace()
        pace.start(0.0)
        for second in range(20):
            pace.hear(float(second), peers_wait=True, granted=3)
            pace.granted(second + 0.5)
        everywhere, here = pace.seconds_for(3, 20.0), pace.seconds_for(-1, 20.0, 4)
        assert everywhere == pytest.approx(1.0, rel=0.15)
        assert here == pytest.approx(4.0, rel=0.15)


class TestRefusedEarly:
    def shedding(self, *, sheds: bool = True, **options: float) -> Router:
        overload = Overload(sheds=sheds, **options)  # type: ignore[arg-type]
        router = Router(fleet_of(1), overload=overload)
        served_each_second(router, NAMES[:8])
        return router

    def test_a_request_that_would_wait_for_too_long(self) -> None:
        router = self.shedding(max_expected_wait_seconds=0.8)
        for name in NAMES[20:22]:
            router.held(name)

        refused = router.send("a40")
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.OVERLOADED
        assert refused.wait == pytest.approx(3.0, rel=0.1)
        answer = refusal_answer(refused)
        assert answer.status == 429
        assert ("retry-after", b"3") in answer.headers
        assert b"expected wait" in answer.body

    def waiting_at_peer(self, router: Router, *names: str, priority: int = 0) -> None:
        """Let a peer tell that requests for adapters wait there."""
        fleet, now = router.fleet, router.clock.now()
        number = fleet.report_to_peers("here", 0.1, router.director.held_adapters(), now).number
        held = {name: HeldShare(1.0, priority=priority) for name in names}
        fleet.put_peer(LedgerShare("there", number, 0.1, {}, held, {"here": number}), now)

    def test_those_that_wait_at_peers_are_served_before_it(self) -> None:
        router = self.shedding(max_expected_wait_seconds=0.8)
        self.waiting_at_peer(router, *NAMES[20:24])
        refused = router.send("a40")
        assert isinstance(refused, Refused)
        assert refused.wait == pytest.approx(5.0, rel=0.1)

        router.held("a20")  # It is served with the one that waits at the peer.
        self.waiting_at_peer(router, *NAMES[20:24])
        self.waiting_at_peer(router)
        router.held("a41")

    def test_those_of_a_lower_priority_at_peers_are_not(self) -> None:
        router = self.shedding(max_expected_wait_seconds=0.8)
        self.waiting_at_peer(router, *NAMES[20:24], priority=-1)
        router.held("a40")

    def test_whose_turn_it_is_at_peers_is_not_known(self) -> None:
        router = self.shedding(max_expected_wait_seconds=0.8)
        self.waiting_at_peer(router, *NAMES[20:24])
        router.held("a40", tenant="a")
        router.held("a41", tenant="b")

    def test_one_with_a_higher_priority_has_fewer_before_it(self) -> None:
        router = self.shedding(max_expected_wait_seconds=0.8)
        router.director.priorities.put({"chat": 1, "batch": -1})
        for name in NAMES[20:22]:
            router.held(name)
        assert isinstance(router.send("a30"), Refused)
        assert isinstance(router.send("a30", objective="batch"), Refused)
        router.held("a30", objective="chat")

    def test_one_whose_adapter_waits_already_leaves_with_it(self) -> None:
        router = self.shedding(max_expected_wait_seconds=0.8)
        for name in NAMES[20:22]:
            router.held(name)
        assert isinstance(router.send("a30"), Refused)
        router.held("a20")
        router.held("a21")

    def test_one_whose_slot_is_emptied_after_a_start(self) -> None:
        """Nobody was served yet, and two turns of about 5 s are before it."""
        router = Router(fleet_of(1), overload=Overload(sheds=True))
        router.routed("a0")
        router.held("a9")
        router.clock.advance(PATIENCE_SECONDS)
        assert router.director.closed_slots == 1
        refused = router.send("a0")
        assert isinstance(refused, Refused)
        assert refused.wait == pytest.approx(10.0)
        router.held("a8")

    def test_nobody_if_requests_are_held(self) -> None:
        router = self.shedding(sheds=False)
        for name in NAMES[20:]:
            router.held(name)

    def test_the_dry_run_says_so(self) -> None:
        router = self.shedding(max_expected_wait_seconds=0.8)
        router.held("a20")
        explain = router.director.explainer.explain
        assert explain(RouteQuery("a21")).answer == "hold"
        assert explain(RouteQuery("a21")).detail.startswith("the expected wait is 1.9")
        router.held("a21")
        found = explain(RouteQuery("a22"))
        assert (found.answer, found.reason) == ("refuse", "overloaded")
        assert found.detail.startswith("the expected wait is 2.")
        # The dry run is that of the director.
        assert isinstance(router.send("a22"), Refused)


class TestABurstAndOverload:
    def router(self) -> Router:
        router = Router(fleet_of(1), overload=Overload(sheds=True, burst_seconds=20.0))
        served_each_second(router, NAMES[:8])
        return router

    def serve(self, router: Router, seconds: int) -> None:
        """Serve one of those that wait in each second."""
        for _ in range(seconds):
            router.clock.advance(1.0)
            outcome = router.late[-1][1]
            assert isinstance(outcome, Routed)
            outcome.reservation.release()

    def waiting(self, router: Router, names: list[str], priority: str = "") -> list[str]:
        sent = {name: router.send(name, priority=priority) for name in names}
        return [name for name, outcome in sent.items() if not isinstance(outcome, Refused)]

    def test_requests_of_a_burst_may_wait_for_three_times_as_long(self) -> None:
        assert self.waiting(self.router(), NAMES[20:40]) == NAMES[20:26]

    def test_in_lasting_overload_they_may_wait_for_less(self) -> None:
        router = self.router()
        for second in range(20):
            self.waiting(router, NAMES[10 + 2 * second : 12 + 2 * second])
            self.serve(router, 1)
        self.serve(router, 4)
        assert len(self.waiting(router, NAMES[52:60])) <= 2

    def test_a_higher_priority_is_not_refused_because_lower_ones_are(self) -> None:
        router = self.router()
        for second in range(20):
            self.waiting(router, NAMES[10 + 2 * second : 12 + 2 * second], "-1")
            self.serve(router, 1)
        assert len(self.waiting(router, NAMES[:3], "-1")) <= 1
        assert self.waiting(router, NAMES[50:56]) == NAMES[50:56]

        refused = router.send("a59", priority="1000"), router.send("a58", priority="-1")
        waits = [each.wait for each in refused if isinstance(each, Refused)]
        assert len(waits) == 1, "the lowest priority is refused first"

    def test_retry_after_counts_those_of_the_same_priority_or_a_higher_one(self) -> None:
        router = self.router()
        for second in range(20):
            self.waiting(router, NAMES[10 + 2 * second : 12 + 2 * second], "-1")
            self.serve(router, 1)
        waits = {}
        for priority in ("-1", "0"):
            sent = [router.send(name, priority=priority) for name in NAMES[40:60]]
            (waits[priority], *_) = (each.wait for each in sent if isinstance(each, Refused))
        assert waits["0"] == pytest.approx(7.0, rel=0.2)
        assert (waits["-1"] or 0.0) > 10.0

    def test_what_was_refused_counts_for_as_long_as_it_would_have_waited(self) -> None:
        overload = Overload(sheds=True, max_expected_wait_seconds=2.0)
        overrun = Overrun()
        ExpectedWait(4.0, overrun, 7.0).refuse("a1", 100.0)
        ExpectedWait(4.0, overrun, 7.0).refuse("a1", 102.0)
        assert overrun.refused.count(106.0, 0) == 1
        assert overrun.refused.count(107.0, 0) == 0
        for second in range(60):
            ExpectedWait(1.0, overrun, 7.0).note(overload, "no-slot", float(second))
        assert ExpectedWait(2.0, overrun).is_too_long(overload, "no-slot", 60.0)

    @pytest.mark.parametrize(("base", "there_is_overload"), [("base", True), ("other", False)])
    def test_what_peers_refused_counts_for_its_base_model(
        self, *, base: str, there_is_overload: bool
    ) -> None:
        router = self.router()
        waits = router.director.reception.room.waits
        router.held(NAMES[50])
        for second in range(20):
            router.send(NAMES[10 + second])
            for number in (0, 1):
                waits.hear_refused(f"p{2 * second + number}", frozenset({base}), 20.0, 0)
            self.serve(router, 1)
        assert (len(self.waiting(router, NAMES[40:50])) <= 2) is there_is_overload

    def test_an_adapter_that_is_refused_is_told_once_until_it_would_be_served(self) -> None:
        router, told = self.router(), []
        router.director.reception.room.waits.on_refused = lambda *each: told.append(each)
        self.waiting(router, [*NAMES[20:26], "a40", "a40", "a41"])
        assert [adapter for adapter, *_ in told] == ["a40", "a41"]
        assert [wait for _, wait, _ in told] == pytest.approx([7.0, 8.0], rel=0.05)
        router.clock.advance(20.0)
        assert isinstance(router.send("a40"), Refused)
        assert [adapter for adapter, *_ in told] == ["a40", "a41", "a40"]

    @pytest.mark.parametrize(("seconds", "lasts"), [(2.5, True), (1.5, False)])
    def test_overload_is_a_long_wait_on_average(self, *, seconds: float, lasts: bool) -> None:
        overload, overrun = Overload(sheds=True, max_expected_wait_seconds=2.0), Overrun()
        for now in range(100):
            ExpectedWait(seconds, overrun).note(overload, "no-slot", float(now))
        assert ExpectedWait(2.0, overrun).is_too_long(overload, "no-slot", 100.0) is lasts

    def test_overload_ends_once_nobody_comes(self) -> None:
        overload, overrun = Overload(sheds=True, max_expected_wait_seconds=2.0), Overrun()
        for now in range(100):
            ExpectedWait(8.0, overrun).note(overload, "no-slot", float(now))
        assert ExpectedWait(2.0, overrun).is_too_long(overload, "no-slot", 105.0)
        assert not ExpectedWait(2.0, overrun).is_too_long(overload, "no-slot", 135.0)

    def test_while_pods_load_adapters_from_disk_they_may_wait_for_longer(self) -> None:
        router = Router(fleet_of(1, load_seconds=1.5), overload=Overload(sheds=True))
        served_each_second(router, NAMES[:8])
        assert self.waiting(router, NAMES[20:50]) == NAMES[20:38]


class TestAfterAStall:
    """Requests for the base model take 1 s each. A fleet of one pod runs eight of them."""

    def router(self) -> Router:
        overload = Overload(sheds=True, max_requests_per_pod=8)
        self.rng = random.Random(1)
        self.running: deque[tuple[float, Routed]] = deque()
        return Router(fleet_of(1, idle(4)), overload=overload, max_hold_seconds=30.0)

    def requests(
        self, router: Router, rate: int, seconds: float, *, stalled: bool = False
    ) -> list[Refused]:
        """Send some requests in each second, and return the refusals."""
        clock, refused = router.clock, []
        until = clock.now() + seconds
        while clock.now() < until:
            comes = clock.now() + self.rng.expovariate(rate)
            while not stalled and self.running and self.running[0][0] <= comes:
                ends, routed = self.running.popleft()
                clock.advance(max(0.0, ends - clock.now()))
                routed.reservation.release()
                self.begin(router)
            clock.advance(comes - clock.now())
            self.begin(router)
            outcome = router.send("base")
            if isinstance(outcome, Routed):
                self.running.append((comes + 1.0, outcome))
            elif isinstance(outcome, Refused):
                refused.append(outcome)
        return refused

    def begin(self, router: Router) -> None:
        """Let requests that were held take a second from now on."""
        late, router.late = router.late, []
        ends = router.clock.now() + 1.0
        self.running += [(ends, each) for _, each in late if isinstance(each, Routed)]

    def test_a_burst_is_refused_no_more_than_without_it(self) -> None:
        def burst(*, stalled: bool) -> int:
            router = self.router()
            self.requests(router, 7, 20.0)
            self.requests(router, 10, 40.0, stalled=stalled)
            self.requests(router, 7, 100.0)
            return len(self.requests(router, 20, 2.0))

        assert burst(stalled=True) <= burst(stalled=False) + 3

    def test_retry_after_says_soon_how_long_requests_would_wait(self) -> None:
        router = self.router()
        self.requests(router, 7, 20.0)
        self.requests(router, 10, 40.0, stalled=True)
        self.requests(router, 7, 30.0)
        refused = self.requests(router, 20, 4.0)
        assert refused
        assert max(each.wait or 0.0 for each in refused) < 20.0


class TestRetryAfter:
    def test_a_client_that_comes_back_after_it_is_served_in_most_cases(self) -> None:
        """In an overload of 150 %, in which each client that was refused comes back."""
        router = Router(fleet_of(1), overload=Overload(sheds=True))
        served_each_second(router, NAMES[:8])
        rng, second, returns = random.Random(1), 0, {}  # type: ignore[var-annotated]
        came_back, served = 0, 0

        def ask(*, again: bool) -> None:
            nonlocal came_back, served
            outcome = router.send(rng.choice(NAMES))
            if isinstance(outcome, Routed):
                router.late.append(("", outcome))
            elif isinstance(outcome, Refused):
                after = dict(refusal_answer(outcome).headers)["retry-after"]
                returns.setdefault(second + int(after), []).append(True)
            came_back += again
            served += again and not isinstance(outcome, Refused)

        for second in range(200):
            for _ in returns.pop(second, ()):
                ask(again=True)
            for _ in range(1 + second % 2):
                ask(again=False)
            router.clock.advance(1.0)
            ended, router.late = router.late, []
            for _, outcome in ended:
                if isinstance(outcome, Routed):
                    outcome.reservation.release()
        assert came_back >= 20
        assert served > 0.5 * came_back

    def test_where_a_slot_is_emptied_it_is_until_that_is_done(self) -> None:
        router = Router(fleet_of(1), max_hold_seconds=0.0, overload=Overload(sheds=True))
        first = [router.routed("a0") for _ in range(2)]
        router.routed("a9")
        router.clock.advance(1.0)
        first.pop().reservation.release()
        refused = router.send("a0")
        assert isinstance(refused, Refused)
        assert refused.wait == 5.0


class TestDisplaced:
    def test_the_last_request_of_the_lowest_priority_makes_room(self) -> None:
        router = Router(fleet_of(1), limits=Limits(requests=3, requests_per_model=3))
        router.director.priorities.put({"chat": 1, "batch": -1})
        first = router.routed("a0")
        router.held("a1", objective="batch")
        router.held("a2", "displaced", objective="batch")
        router.held("a3")
        router.held("a4", objective="chat")

        ((name, refused),) = router.late
        assert name == "displaced"
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.TOO_MANY_HELD
        assert router.director.held == 3
        first.reservation.release()
        assert router.late_names == ["a4"]

    def test_of_the_same_model_if_that_has_too_many(self) -> None:
        router = Router(fleet_of(1), limits=Limits(requests=9, requests_per_model=1))
        router.director.priorities.put({"chat": 1, "batch": -1})
        router.routed("a0")
        router.held("a1", "other", objective="batch")
        router.held("a2", "displaced")
        assert isinstance(router.send("a2"), Refused)
        router.held("a2", objective="chat")
        assert [name for name, _ in router.late] == ["displaced"]


class TestALimitOfRequestsOnEachPod:
    def router(self, **options: object) -> Router:
        overload = Overload(max_requests_per_pod=2)
        return Router(fleet_of(2, idle(4)), overload=overload, **options)  # type: ignore[arg-type]

    def test_requests_for_the_base_model_wait_until_a_pod_has_room(self) -> None:
        router = self.router()
        running = [router.routed("base") for _ in range(4)]
        router.held("base", "first")
        router.held("base", "second")
        router.clock.advance(1.0)
        assert router.late_names == []

        running[0].reservation.release()
        assert router.late_names == ["first"]
        assert router.late_pod("first") is running[0].reservation.state
        running[1].reservation.release()
        assert router.late_names == ["first", "second"]

    def test_an_adapter_waits_although_it_has_a_slot(self) -> None:
        router = self.router()
        running = [router.routed("a0") for _ in range(4)]
        router.held("a0")
        running[3].reservation.release()
        assert router.late_names == ["a0"]

    def test_holds_for_every_algorithm(self) -> None:
        router = self.router(algorithm=LeastRequest(AlgorithmOptions()))
        running = [router.routed("a0") for _ in range(4)]
        router.held("a1")
        running[0].reservation.release()
        assert router.late_names == ["a1"]

    def test_holds_when_the_time_is_up(self) -> None:
        router = self.router(max_hold_seconds=5.0)
        for _ in range(4):
            router.routed("base")
        router.held("base")
        router.clock.advance(5.0)
        ((_, refused),) = router.late
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.OVERLOADED

    def test_a_request_of_higher_priority_goes_first(self) -> None:
        router = self.router()
        router.director.priorities.put({"chat": 1})
        running = [router.routed("base") for _ in range(4)]
        router.held("base", "low")
        router.held("base", "high", objective="chat")
        running[0].reservation.release()
        assert router.late_names == ["high"]


class TestConversationsThatWaitForRoom:
    """Each of two pods runs as many requests as it may. The first one has a long prompt."""

    LONG = range(40)

    def router(self) -> Router:
        fleet = fleet_of(2, idle(4))
        router = Router(fleet, overload=Overload(max_requests_per_pod=1))
        self.running = [router.routed("base") for _ in range(2)]
        self.running.sort(key=lambda routed: routed.reservation.state.pod.name)
        has_seen(fleet, 1, *self.LONG, model="base")
        return router

    def hold(self, router: Router, name: str) -> Held:
        return router.held("base", name, read_prompt=lambda: prompt(*self.LONG, 99))

    @pytest.mark.parametrize(
        ("later", "first"), [(HOME_SECONDS / 2, "conversation"), (2 * HOME_SECONDS, "other")]
    )
    def test_get_the_room_on_their_pod_before_others_that_came_a_little_earlier(
        self, later: float, first: str
    ) -> None:
        router = self.router()
        router.held("base", "other")
        router.clock.advance(later)
        self.hold(router, "conversation")
        self.running[0].reservation.release()
        assert router.late_names == [first]
        assert router.late_pod(first) is state_of(router.fleet, 1)

    def test_get_room_on_other_pods_in_their_turn(self) -> None:
        router = self.router()
        self.hold(router, "conversation")
        router.held("base", "other")
        self.running[1].reservation.release()
        assert router.late_names == ["conversation"]
        assert router.late_pod("conversation") is state_of(router.fleet, 2)

    def test_are_forgotten_when_their_clients_leave(self) -> None:
        router = self.router()
        router.held("base", "other")
        self.hold(router, "conversation").cancel()
        self.running[0].reservation.release()
        assert router.late_names == ["other"]


class TestPodsOnWhichRequestsQueue:
    def queued(self, running: float, waiting: float, deferred: float | None) -> PodMetrics:
        metrics = make_metrics(max_lora=4, scraped_at=100.0)
        return replace(metrics, running=running, waiting=waiting, deferred=deferred)

    def router(
        self,
        metrics: PodMetrics,
        algorithm: Algorithm | None = None,
        *,
        sheds: bool = True,
        hold: float = 30.0,
    ) -> Router:
        overload = Overload(sheds=sheds)
        router = Router(fleet_of(1, idle(4)), algorithm, overload=overload, max_hold_seconds=hold)
        for _ in range(3):
            router.routed("base")
        for scraped_at in (98.0, 100.0):
            state = state_of(router.fleet, 1)
            router.fleet.put_metrics(state, replace(metrics, scraped_at=scraped_at))
        return router

    def test_are_not_full_because_a_request_waits_for_the_end_of_a_step(self) -> None:
        router = self.router(self.queued(2.0, 0.0, 0.0))
        router.fleet.put_metrics(state_of(router.fleet, 1), self.queued(2.0, 1.0, 0.0))
        assert isinstance(router.send("base"), Routed)

    def test_get_no_more_than_ran(self) -> None:
        router = self.router(self.queued(2.0, 1.0, 0.0))
        router.held("base")

    def test_get_more_once_nobody_queues(self) -> None:
        router = self.router(self.queued(2.0, 1.0, 0.0))
        router.held("base")
        pod = state_of(router.fleet, 1)
        for _ in range(3):
            router.fleet.put_metrics(pod, self.queued(3.0, 0.0, 0.0))
        assert router.late_names == ["base"]

    def test_are_not_full_because_requests_wait_for_slots(self) -> None:
        router = self.router(self.queued(2.0, 1.0, 1.0))
        assert isinstance(router.send("base"), Routed)

    def test_get_all_requests_if_these_are_not_shed(self) -> None:
        router = self.router(self.queued(2.0, 1.0, 0.0), sheds=False)
        assert isinstance(router.send("base"), Routed)

    def test_get_those_that_may_not_wait(self) -> None:
        router = self.router(self.queued(2.0, 1.0, 0.0), hold=0.0)
        assert isinstance(router.send("base"), Routed)

    def test_get_those_of_algorithms_that_do_not_wait(self) -> None:
        algorithm = LeastRequest(AlgorithmOptions())
        router = self.router(self.queued(2.0, 1.0, 0.0), algorithm)
        assert isinstance(router.send("base"), Routed)


class TestFairAmongTenants:
    def ended_one_by_one(self, router: Router, first: Routed, number: int) -> list[str]:
        """End the request that runs, then the one that took its place, and so on."""
        first.reservation.release()
        while len(router.late) < number:
            outcome = router.late[-1][1]
            assert isinstance(outcome, Routed)
            outcome.reservation.release()
        return router.late_names

    def test_a_burst_of_one_delays_another_by_one_turn(self) -> None:
        router = Router(fleet_of(1))
        first = router.routed("a0")
        for name in NAMES[1:21]:
            router.held(name, "burst", tenant=7)
        router.held("a40", "other", tenant=8)
        router.held("a41", "other", tenant=8)

        order = self.ended_one_by_one(router, first, 22)
        assert order[:4] == ["burst", "other", "burst", "other"]
        assert len(order) == 22

    def test_also_for_room_on_pods(self) -> None:
        overload = Overload(max_requests_per_pod=1)
        router = Router(fleet_of(1, idle(4)), overload=overload)
        first = router.routed("base")
        for _ in range(20):
            router.held("base", "burst", tenant=7)
        for _ in range(3):
            router.held("base", "other", tenant=8)

        order = self.ended_one_by_one(router, first, 23)
        assert order[:6].count("other") == 3
        assert len(order) == 23

    def test_who_did_not_ask_for_long_saves_up_no_turns(self) -> None:
        router = Router(fleet_of(1))
        first = router.routed("a0")
        for name in NAMES[1:11]:
            router.held(name, "steady", tenant=7)
        self.ended_one_by_one(router, first, 9)
        for name in NAMES[20:24]:
            router.held(name, "late", tenant=8)
        for name in NAMES[30:34]:
            router.held(name, "steady", tenant=7)
        outcome = router.late[-1][1]
        assert isinstance(outcome, Routed)
        order = self.ended_one_by_one(router, outcome, 18)[9:]
        assert order.count("late") == 4
        assert order[:4].count("late") <= 3

    def test_the_burst_is_refused_and_the_other_is_not(self) -> None:
        router = Router(
            fleet_of(1),
            overload=Overload(sheds=True, max_expected_wait_seconds=1.0),
        )
        served_each_second(router, NAMES[:8])
        waiting = [
            name for name in NAMES[20:40] if not isinstance(router.send(name, tenant=7), Refused)
        ]
        assert len(waiting) < 5
        assert isinstance(router.send("a50", tenant=7), Refused)
        router.held("a50", tenant=8)

    def test_a_burst_of_one_is_not_refused_because_another_was_for_long(self) -> None:
        router = Router(fleet_of(1), overload=Overload(sheds=True))
        served_each_second(router, NAMES[:8])
        for second in range(20):
            for name in NAMES[10 + 2 * second : 12 + 2 * second]:
                router.send(name, tenant=7)
            router.clock.advance(1.0)
            outcome = router.late[-1][1]
            assert isinstance(outcome, Routed)
            outcome.reservation.release()
        for name in NAMES[50:53]:
            router.send(name, tenant=7)
        assert isinstance(router.send("a53", tenant=7), Refused)

        sent = [router.send(name, tenant=8) for name in NAMES[:10]]
        assert not any(isinstance(each, Refused) for each in sent[:4])
        waits = [each.wait or 0.0 for each in sent if isinstance(each, Refused)]
        assert waits
        assert waits[0] < 13.0, "the other is served once for each of its own requests"

    @pytest.mark.slow
    def test_many_tenants_of_one_adapter_are_woken_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not all of them again after each one that is routed."""
        asked = 0

        def counted(reception: Reception, held: Held) -> bool:
            nonlocal asked
            asked += 1
            return ask(reception, held)

        ask = Reception.ask
        monkeypatch.setattr(Reception, "ask", counted)
        router = Router(fleet_of(1))
        first = router.routed("a0")
        for tenant in range(1, 501):
            router.held("a40", tenant=tenant)
        first.reservation.release()
        router.clock.advance(1.0)

        assert len(router.late_names) == 500
        assert asked <= 500 + 10

    @pytest.mark.slow
    def test_a_hundred_thousand_tenants_cost_no_more_than_those_that_are_remembered(self) -> None:
        turns = TurnsOfTenants()
        for tenant in range(1, 100_001):
            turns.next(tenant)
        assert len(turns) == MOST_TENANTS

    @pytest.mark.parametrize("leaves", ["cancelled", "refused"])
    def test_a_tenant_whose_requests_left_unserved_loses_no_turn(self, leaves: str) -> None:
        """Its clients gave up and tried again, or a pod hung for minutes."""
        router = Router(
            fleet_of(1), overload=Overload(max_requests_per_pod=1), max_hold_seconds=2.0
        )
        running = router.routed("a0", tenant=2)
        for _ in range(50):
            held = router.held("a0", tenant=1)
            if leaves == "cancelled":
                held.cancel()
            else:
                router.clock.advance(2.5)
        router.late.clear()
        for _ in range(3):
            router.held("a0", "other", tenant=2)
        router.held("a0", "mine", tenant=1)

        running.reservation.release()
        router.late[-1][1].reservation.release()  # type: ignore[union-attr]

        assert "mine" in router.late_names

    def test_rounds_that_a_tenant_gives_back_are_its_next_ones(self) -> None:
        turns = TurnsOfTenants()
        given = [turns.next(7) for _ in range(4)]
        for turn in (2, 0, 3):
            turns.give_back(7, turn)
        assert given == [0, 1, 2, 3]
        assert [turns.peek(7), *(turns.next(7) for _ in range(3))] == [0, 0, 2, 3]

        turns.give_back(7, 2)
        turns.served(3)
        assert turns.next(7) == 4, "a round that is over is not served again"

    def test_few_tenants_are_remembered(self) -> None:
        turns = TurnsOfTenants()
        for tenant in range(1, 3 * MOST_TENANTS):
            turns.next(tenant)
        assert len(turns) == MOST_TENANTS


class TestManyTenantsOnFullPods:
    """Each tenant has a queue of its own."""

    TENANTS = 200

    def asked_after(
        self, monkeypatch: pytest.MonkeyPatch, happens: Callable[[Router, Routed], object]
    ) -> tuple[int, list[str]]:
        """Return how many are asked for after an event, and who is routed then."""
        names = NAMES[:2]
        router = Router(fleet_of(2, idle(2)), overload=Overload(max_requests_per_pod=4))
        running = [router.routed(names[number % 2]) for number in range(8)]
        for tenant in range(1, self.TENANTS + 1):
            for name in names:
                router.held(name, f"{name}-{tenant}", tenant=tenant)
        asked = 0

        def counted(reception: Reception, held: Held) -> bool:
            nonlocal asked
            asked += 1
            return ask(reception, held)

        ask = Reception.ask
        monkeypatch.setattr(Reception, "ask", counted)
        happens(router, running[0])
        router.clock.advance(1.0)
        return asked, router.late_names

    def test_the_end_of_a_request_asks_for_those_that_can_go(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, late = self.asked_after(monkeypatch, lambda _, first: first.reservation.release())
        assert late == ["a0-1"]
        assert asked <= 4

    def test_a_scrape_of_a_full_pod_asks_for_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def scrape(router: Router, first: Routed) -> None:
            state = first.reservation.state
            active = list(state.in_flight_adapters)
            router.fleet.put_metrics(state, make_metrics(active, max_lora=2, scraped_at=100.0))

        asked, late = self.asked_after(monkeypatch, scrape)
        assert late == []
        assert asked == 0

    def test_a_change_of_a_full_pod_asks_for_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def label(router: Router, first: Routed) -> None:
            router.fleet.upsert(replace(first.reservation.state.pod, labels={"gpu": "h100"}))

        asked, late = self.asked_after(monkeypatch, label)
        assert late == []
        assert asked <= 4

    @pytest.mark.parametrize("seed", mostly_slow(range(20), quick=3))
    def test_each_room_goes_to_the_first_place_of_all(self, seed: int) -> None:
        """Whoever waits: adapters and base models, of all priorities and tenants."""
        chance = random.Random(seed)
        names = ["base", *NAMES[:3]]
        router = Router(fleet_of(1, idle(4)), overload=Overload(max_requests_per_pod=6))
        router.director.priorities.put({"chat": 1, "batch": -1})
        queues = router.director.reception.room.roll.queues
        running = [router.routed(name) for name in (*NAMES[:3], *NAMES[:3])]
        for number in range(150):
            if chance.random() < 0.6:
                objective = chance.choice(["", "chat", "batch"])
                tenant = chance.randrange(5)
                name = chance.choice(names)
                router.held(name, str(number), objective=objective, tenant=tenant)
            elif queues:
                first = min(queues.values(), key=lambda queue: queue.place).first
                seen = len(router.late)
                # Two of each adapter run, so that each stays in its slot.
                ended = chance.choice([each for each in running if is_not_alone(each)])
                running.remove(ended)
                ended.reservation.release()
                router.clock.advance(0.1)
                ((_, outcome),) = router.late[seen:]
                assert isinstance(outcome, Routed)
                assert first is not None
                assert first.queue is None, "another one was served"
                running.append(outcome)

    def test_those_of_an_adapter_that_got_a_slot_do_not_overtake_others(self) -> None:
        """They need no slot any more, so a free one is not for them."""
        router = Router(fleet_of(1, idle(2)), overload=Overload(max_requests_per_pod=2))
        router.director.priorities.put({"chat": 1})
        running = [router.routed("a0"), router.routed("a1")]
        router.held("a2", "first of the adapter", objective="chat", tenant=1)
        router.held("base", "base", tenant=2)
        router.held("a2", "second of the adapter", tenant=3)
        for routed in running:
            routed.reservation.release()
            router.clock.advance(0.1)
        assert router.late_names == ["first of the adapter", "base"]


def is_not_alone(routed: Routed) -> bool:
    """Return whether the adapter of a request, if any, has another one on the pod."""
    adapter = routed.reservation.adapter
    return adapter is None or routed.reservation.state.in_flight_adapters[adapter] > 1


def test_adapters_and_base_models_take_room_in_order_of_arrival() -> None:
    overload = Overload(max_requests_per_pod=2)
    router = Router(fleet_of(1, idle(4)), overload=overload)
    running = [router.routed("a0"), router.routed("a0")]
    router.held("a0", "adapter")
    router.held("base", "base")
    for routed in running:
        routed.reservation.release()
    assert router.late_names == ["adapter", "base"]
