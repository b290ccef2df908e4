"""Which router reads which pod: routers in memory, on a manual clock."""

import logging
import random
from dataclasses import replace
from itertools import pairwise

import pytest

from lora_router.fleet.pod_metrics import LoraActivity, PodMetrics
from lora_router.fleet.reading import ReadFailure, Reading
from lora_router.scrape.audits import ALONE_SECONDS
from tests.fleet import make_metrics, make_pod
from tests.parameters import mostly_slow
from tests.unit.scrape.sharing_routers import DELAY, INTERVAL, Router, World, list_of

FULL_RATE = 1 / INTERVAL


def all_zero(metrics: PodMetrics) -> PodMetrics:
    """A lie: the pod does nothing."""
    assert metrics.lora is not None
    idle = LoraActivity(metrics.lora.max_lora, frozenset(), frozenset(), metrics.lora.updated_at)
    return replace(metrics, running=0.0, waiting=0.0, lora=idle)


def test_a_router_that_is_alone_reads_all_pods_at_the_full_rate() -> None:
    world = World()
    world.settled("one")

    assert world.rate(10.0) == pytest.approx(FULL_RATE, rel=0.05)


@pytest.mark.parametrize("routers", mostly_slow([2, 4, 8]))
def test_each_pod_is_read_as_often_by_all_routers_together_as_by_one(routers: int) -> None:
    world = World(pods=20)
    made = world.settled(*(f"router-{n}" for n in range(routers)))

    assert world.rate(20.0) <= 1.15 * FULL_RATE
    for router in made:
        assert router.age() < INTERVAL + 0.1
        assert {state.beliefs.active for state in router.fleet} == {frozenset("a")}
        assert router.sharing.counts.contradictions == 0


@pytest.mark.slow
def test_each_router_reads_a_part_of_the_pods() -> None:
    world = World(pods=40)
    one, two = world.settled("one", "two")
    one.reads.clear()
    two.reads.clear()

    world.run(1.0)

    assert 10 <= len(set(one.reads)) <= 30
    assert 10 <= len(set(two.reads)) <= 30


@pytest.mark.slow
def test_a_router_that_joins_is_given_its_part() -> None:
    world = World(pods=20)
    one, _ = world.settled("one", "two")

    three = world.add("three")
    world.run(3.0)

    three.reads.clear()
    assert world.rate(10.0) <= 1.15 * FULL_RATE
    assert len(set(three.reads)) >= 3
    assert len(one.sharing.readers) == 2


@pytest.mark.parametrize("routers", mostly_slow([2, 3, 8]))
def test_no_pod_goes_unread_for_long_when_a_router_dies(routers: int) -> None:
    world = World(pods=20)
    first, *others = world.settled(*(f"router-{n}" for n in range(routers)))

    first.die()

    assert world.longest_pause(5.0) <= 2 * INTERVAL + 1.0
    world.run(2.0)
    assert world.rate(10.0) == pytest.approx(FULL_RATE, rel=0.15)
    assert all(len(other.sharing.readers) == routers - 2 for other in others)


def test_the_pods_of_a_router_that_leaves_are_read_at_once() -> None:
    world = World()
    first, second = world.settled("first", "second")

    first.die()
    world.run(DELAY)
    second.sharing.gone("first")

    assert world.longest_pause(2.0) <= INTERVAL + 0.1


@pytest.mark.slow
def test_a_router_that_nobody_hears_costs_reads_and_nothing_else() -> None:
    world = World(pods=20)
    first, second, third = world.settled("first", "second", "third")

    first.mute = True
    world.run(5.0)

    assert world.rate(10.0) <= 2.2 * FULL_RATE
    for router in (first, second, third):
        assert router.age() < 2 * INTERVAL + 1.0


def test_with_intervals_that_differ_each_router_has_what_it_was_set_to() -> None:
    world = World()
    slow, fast = world.add("slow", interval=5.0), world.add("fast")
    world.run(20.0)

    for _ in range(20):
        world.run(0.37)
        assert fast.age() <= 2 * INTERVAL + 0.1
    assert slow.age() <= 5.0


def test_a_pod_that_joins_is_read_by_all_and_then_by_one() -> None:
    world = World()
    routers = world.settled("one", "two", "three")
    world.pods += 1
    for router in routers:
        router.fleet.upsert(make_pod(world.pods))
        state = router.state(world.pods)
        router.sharing.add(state)
        router._turns[state] = router._turns[router.state(1)]
        router._read(state)

    world.run(2.0)

    assert world.rate(5.0) <= 1.2 * FULL_RATE


def test_a_pod_that_left_is_not_read() -> None:
    world = World()
    routers = world.settled("one", "two")
    for router in routers:
        gone = router.state(1)
        router.fleet.remove("pod-1")
        router.sharing.remove(gone)
    world.reads.clear()

    world.run(5.0)

    assert "pod-1" not in world.reads


class TestFailures:
    def test_a_pod_that_its_reader_cannot_reach_is_read_by_others(self) -> None:
        world = World(pods=10)
        routers = world.settled("one", "two", "three")
        for router in routers:
            reader = router
            break
        reader.reads.clear()
        world.run(1.0)
        pod = reader.reads[0]

        reader.cut_from.add(pod)
        world.run(3.0)

        for router in routers:
            state = router.fleet.get(pod)
            assert state is not None
            assert state.metrics is not None
            if router is reader:
                assert state.unreachable_scrapes > 3, "it believes its own eyes"
            else:
                assert state.scrape_failures == 0
                assert world.clock.now() - state.metrics.scraped_at < 2 * INTERVAL

    def test_a_pod_that_is_down_is_found_out_by_each_router_itself(self) -> None:
        world = World()
        routers = world.settled("one", "two", "three")

        world.down.add("pod-2")
        world.run(2.5)

        for router in routers:
            assert router.state(2).unreachable_scrapes >= 3
            assert router.state(1).scrape_failures == 0

    def test_when_a_pod_is_up_again_one_router_reads_it_again(self) -> None:
        world = World()
        world.settled("one", "two", "three")
        world.down.add("pod-2")
        world.run(5.0)

        world.down.clear()
        world.run(5.0)

        assert world.rate(10.0) <= 1.2 * FULL_RATE

    def test_a_router_that_says_that_all_reads_fail_makes_others_read_no_more_than_alone(
        self,
    ) -> None:
        world = World()
        (one,) = world.settled("one")
        for _ in range(200):
            for state in one.fleet:
                failure = ReadFailure("metrics", "timeout", unreachable=True)
                one.hear("liar", Reading(state, world.clock.now(), failure))
            world.run(0.05)

        rates = {pod: len(times) / 10 for pod, times in world.reads.items()}
        assert max(rates.values()) <= 1.3 * FULL_RATE
        assert all(state.scrape_failures == 0 for state in one.fleet)


class TestLies:
    @pytest.mark.slow
    def test_a_router_that_tells_lies_is_not_believed_for_long(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        world = World(pods=20, active=tuple(f"adapter-{n}" for n in range(6)))
        honest, liar = world.settled("honest", "liar")
        liar.lie = all_zero

        with caplog.at_level(logging.WARNING):
            world.run(10.0)

        assert honest.sharing.counts.distrusted == 1
        assert {len(state.beliefs.active) for state in honest.fleet} == {6}
        assert "peer liar is not believed for a while" in caplog.text
        assert honest.age() < INTERVAL + 0.1

    @pytest.mark.slow
    def test_it_is_believed_again_after_a_while_and_distrusted_for_longer(self) -> None:
        world = World(pods=20, active=tuple(f"adapter-{n}" for n in range(6)))
        honest, liar = world.settled("honest", "liar")
        liar.lie = all_zero
        world.run(10.0)
        liar.lie = None
        world.run(130.0)
        assert "liar" in honest.sharing.readers

        liar.lie = all_zero
        world.run(20.0)
        assert "liar" not in honest.sharing.readers
        world.run(70.0)

        assert honest.sharing.counts.distrusted == 2
        assert "liar" not in honest.sharing.readers

    @pytest.mark.slow
    def test_a_lie_about_one_pod_costs_what_is_believed_of_that_pod_only(self) -> None:
        world = World(pods=20, active=tuple(f"adapter-{n}" for n in range(6)))
        honest, liar = world.settled("honest", "liar")
        liar.reads.clear()
        world.run(1.0)
        pod = liar.reads[0]
        lied: list[int] = []

        def lie(metrics: PodMetrics) -> PodMetrics:
            if liar.reads[-1] != pod:
                return metrics
            lied.append(1)
            return all_zero(metrics)

        liar.lie = lie
        world.run(25.0)

        state = honest.fleet.get(pod)
        assert state is not None
        assert lied
        assert len(state.beliefs.active) == 6
        assert honest.sharing.counts.distrusted == 0
        assert "liar" in honest.sharing.readers

    @pytest.mark.slow
    def test_only_the_reader_of_a_pod_is_listened_to(self) -> None:
        world = World(pods=20)
        honest, liar = world.settled("honest", "liar")
        liar.reads.clear()
        world.run(1.0)
        others = [state for state in honest.fleet if state.pod.name not in liar.reads]
        for _ in range(100):
            world.run(0.02)
            for state in others:
                now = world.clock.now()
                honest.hear("liar", Reading(state, now, make_metrics(("lie",), scraped_at=now)))

        assert others
        assert all(state.beliefs.active == {"a"} for state in others)

    def test_after_a_lie_about_a_pod_it_is_read_here_for_a_while(self) -> None:
        world = World(pods=1, active=tuple(f"adapter-{n}" for n in range(6)))
        one, two = world.settled("one", "two")
        liar, honest = (one, two) if one.told > two.told else (two, one)
        liar.lie = all_zero
        world.run(15.0)
        liar.lie = None
        assert honest.sharing.counts.contradictions == 1

        honest.reads.clear()
        world.run(10.0)
        assert len(honest.reads) == pytest.approx(10 * FULL_RATE, rel=0.1)
        world.run(ALONE_SECONDS)
        honest.reads.clear()
        world.run(10.0)
        assert len(honest.reads) <= 3


class TestLists:
    """The lists of models: ``turn`` says when the scraper reads one."""

    def turns(self, router: Router, now: float) -> list[float]:
        return [router.sharing.turn(state, now) for state in router.fleet]

    def test_one_router_reads_them_in_their_turn_and_the_others_wait(self) -> None:
        world = World(pods=20)
        one, two = world.settled("one", "two")
        now = world.clock.now()

        first, second = self.turns(one, now), self.turns(two, now)

        assert [mine == now for mine in first] == [theirs > now for theirs in second]
        late = [turn for turn in (*first, *second) if turn > now]
        assert late == pytest.approx([now - 5.0 + 15.125] * len(late))

    def test_a_list_that_is_told_is_used_and_puts_the_own_read_off(self) -> None:
        world = World(pods=20)
        one, two = world.settled("one", "two")
        now = world.clock.now()
        index = next(n for n, turn in enumerate(self.turns(one, now)) if turn != now)
        state = one.state(index + 1)

        world.run(1.0)
        one.hear("two", Reading(two.state(index + 1), world.clock.now(), list_of("a", "b", "new")))

        assert set(state.adapters) == {"a", "b", "new"}
        assert one.sharing.turn(state, now) == pytest.approx(world.clock.now() + 15.125)

    def test_a_list_that_differs_is_read_here_if_somebody_else_tells_it_than_its_reader(
        self,
    ) -> None:
        world = World(pods=20)
        one, two = world.settled("one", "two")
        now = world.clock.now()
        for state in one.fleet:
            one.read_list(state, "a", "b", "c")
        world.run(1.0)
        index = next(n for n, turn in enumerate(self.turns(two, now)) if turn != now)
        state, usual = one.state(index + 1), world.clock.now() + 9.0
        same = Reading(two.state(index + 1), world.clock.now(), state.catalog)

        one.hear("two", same)
        assert one.sharing.turn(state, usual) == usual

        one.hear("two", replace(same, found=list_of("a", "b", "c", "loaded")))
        assert "loaded" not in state.adapters, "it is not believed"
        assert one.sharing.turn(state, usual) == world.clock.now()

    def test_a_list_that_is_unknown_here_or_could_not_be_read_is_read_here_at_once(self) -> None:
        world = World()
        one, two = world.settled("one", "two")
        usual = world.clock.now() + 9.0
        failure = ReadFailure("models", "unknown-list")
        one.list_wakes = 0

        one.hear("two", Reading(two.state(1), world.clock.now(), failure))

        assert one.sharing.turn(one.state(1), usual) == world.clock.now()
        assert one.list_wakes == 1
        one.read_list(one.state(1), "a", "new")
        assert one.sharing.turn(one.state(1), usual) >= usual

    @pytest.mark.slow
    def test_a_list_that_a_router_invents_is_found_out(self) -> None:
        world = World(pods=2)
        one, two = world.settled("one", "two")
        now = world.clock.now()
        number = next(n for n, turn in enumerate(self.turns(one, now), 1) if turn != now)
        state = one.state(number)
        for second in range(400):
            world.run(1.0)
            if second % 10 == 0:
                told = Reading(two.state(number), world.clock.now(), list_of("a", "b", "invented"))
                one.hear("two", told)
            if one.sharing.turn(state, world.clock.now() + 9.0) <= world.clock.now():
                one.read_list(state)

        assert one.sharing.counts.contradictions >= 1


def test_a_router_that_stalled_reads_what_it_was_told_before_it_reads_pods() -> None:
    world = World(pods=20)
    one, _ = world.settled("one", "two")
    late = one.sharing.counts.late
    one.clock.time += 2.0  # Nothing runs.

    one.sharing.tick()
    assert one.sharing.counts.late == late
    one.sharing.tick()

    assert len(one.sharing.readers) == 1, "it was told nothing while it stalled"


def test_a_router_that_stalls_all_the_time_finds_out_who_is_silent_nevertheless() -> None:
    world = World(pods=20)
    one, two = world.settled("one", "two")
    two.die()

    for _ in range(60):
        world.clock.time += 0.5
        one.sharing.tick()

    assert len(one.sharing.readers) == 0
    assert all(one.sharing.is_due(state) for state in one.fleet)


def test_a_router_that_has_no_pod_to_read_takes_part() -> None:
    world = World(pods=1)
    routers = world.settled("one", "two", "three")
    world.run(10.0)

    assert [len(router.sharing.readers) for router in routers] == [2, 2, 2]
    assert sum(router.told > 30 for router in routers) == 1, "one of them reads the pod"
    assert world.rate(10.0) == pytest.approx(FULL_RATE, rel=0.1)


def test_without_pods_nothing_is_due() -> None:
    world = World(pods=0)
    one, two = world.settled("one", "two")

    assert (len(one.sharing.readers), len(two.sharing.readers)) == (1, 1)
    assert not world.reads


def test_reads_are_spread_over_the_interval() -> None:
    world = World(pods=10)
    world.settled("one", "two")
    world.run(10.0)

    for times in world.reads.values():
        assert max(late - early for early, late in pairwise(times)) < 2 * INTERVAL


def test_a_router_that_is_renamed_keeps_its_part_under_its_new_name() -> None:
    world = World(pods=40)
    one, two = world.settled("one", "two")
    before = {state.pod.name for state in one.fleet if one.sharing.is_due(state)}

    one.sharing.rename("three")
    two.sharing.gone("one")
    two.sharing.heard("three", INTERVAL)

    mine = {state.pod.name for state in one.fleet if one.sharing.is_due(state)}
    others = {state.pod.name for state in two.fleet if two.sharing.is_due(state)}
    assert mine != before
    assert mine | others == {state.pod.name for state in one.fleet}


def test_readings_of_others_that_were_used_are_handed_on() -> None:
    world = World(pods=4)
    one, _ = world.settled("one", "two")
    used: list[Reading] = []
    one.sharing.on_used = used.append
    world.run(2.0)
    assert used
    assert not {reading.state.pod.name for reading in used} & {
        state.pod.name for state in one.fleet if one.sharing.is_due(state)
    }


class TestHonestRouters:
    """Routers that tell what they read are believed, however busy the pods and the routers are."""

    def test_load_that_comes_in_bursts_makes_nobody_a_liar(self) -> None:
        world = World(pods=20)
        rng = random.Random(1)
        world.running = lambda _pod: 40.0 if rng.random() < 0.4 else 0.0
        routers = world.settled("one", "two")

        world.run(60.0)

        for router in routers:
            assert router.sharing.counts.audits > 10
            assert router.sharing.counts.distrusted == 0
            assert len(router.sharing.readers) == 1

    @pytest.mark.parametrize("late", ["one", "two"])
    @pytest.mark.parametrize("lateness", [0.6, 1.2])
    def test_a_router_that_looks_at_pages_late_is_no_liar_and_blames_nobody(
        self, late: str, lateness: float
    ) -> None:
        world = World(pods=20)
        one, two = world.settled("one", "two")

        {"one": one, "two": two}[late].stalls_for = lateness
        for number in range(60):
            world.running = lambda _pod, load=60.0 * (number % 2): load
            world.run(1.0)

        assert one.sharing.counts.audits > 10
        assert one.sharing.counts.distrusted == 0
        assert "two" in one.sharing.readers
