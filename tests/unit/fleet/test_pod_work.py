"""What a pod has to do, and how fast it is: prompt tokens on their way, and learned speeds."""

import random

import pytest

from lora_router.fleet.answer import FROM_THE_POD, Answer
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.ledger import Reservation
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.pod_work import MOST_HEARD_SECONDS, TOKENS_A_SECOND
from tests.fleet import ManualClock, make_fleet, state_of

OK = Answer(200, details=FROM_THE_POD)


class Pods:
    """A fleet on a clock that the test advances."""

    def __init__(self, count: int = 2) -> None:
        self.fleet: Fleet = make_fleet(count)
        self.clock = ManualClock()
        self.fleet.ledger.now = self.clock.now

    def __getitem__(self, number: int) -> PodState:
        return state_of(self.fleet, number)

    def send(
        self, seconds: float = 0.0, number: int = 1, adapter: str | None = None
    ) -> Reservation:
        """Send a request whose prompt takes some seconds at the usual speed."""
        return self.fleet.ledger.reserve(
            self[number], adapter, streamed=True, tokens=seconds * TOKENS_A_SECOND
        )

    def loading(self, number: int = 1) -> float:
        return self[number].work.loading_seconds(self.clock.now())

    def pending(self, number: int = 1) -> float:
        return self[number].work.pending_seconds(self.clock.now())


def test_prompts_that_are_sent_queue_up_and_are_drained() -> None:
    pods = Pods()
    pods.send(2.0)
    pods.send(1.0)
    assert pods.pending() == pytest.approx(3.0)
    pods.clock.advance(2.5)
    assert pods.pending() == pytest.approx(0.5)
    pods.clock.advance(10.0)
    assert pods.pending() == 0.0
    pods.send(1.0)
    assert pods.pending() == pytest.approx(1.0)


def test_a_first_byte_shows_that_all_before_it_is_done() -> None:
    pods = Pods()
    pods.send(2.0)
    second = pods.send(1.0)
    pods.send(4.0)
    pods.clock.advance(0.5)
    second.answered(OK)
    assert pods.pending() == pytest.approx(4.0)


def test_what_a_request_did_not_use_leaves_with_it_exactly_once() -> None:
    pods = Pods()
    first, second = pods.send(2.0), pods.send(1.0)
    pods.clock.advance(0.5)
    first.release()
    first.release()
    assert pods.pending() == pytest.approx(1.0)
    second.release()
    assert pods.pending() == 0.0


def test_the_end_of_a_request_that_was_answered_changes_nothing() -> None:
    pods = Pods()
    first = pods.send(1.0)
    pods.send(3.0)
    pods.clock.advance(1.0)
    first.answered(OK)
    first.release()
    assert pods.pending() == pytest.approx(3.0)


def test_tokens_leave_a_pod_that_envoy_could_not_reach() -> None:
    pods = Pods()
    pods.fleet.ledger.find = pods.fleet.at
    moved = pods.send(5.0)
    moved.answered(Answer(200, pods[2].pod.address, FROM_THE_POD))
    assert (pods.pending(1), pods.pending(2)) == (0.0, 0.0)
    moved.release()
    assert (pods.pending(1), pods.pending(2)) == (0.0, 0.0)


def test_in_any_order_of_events_nothing_is_left_in_the_end() -> None:
    rng = random.Random(7)
    pods = Pods(1)
    under_way: list[Reservation] = []
    for _ in range(2000):
        pods.clock.advance(rng.random() * 0.2)
        chance = rng.random()
        if chance < 0.5 or not under_way:
            under_way.append(pods.send(rng.choice((0.0, 0.05, 1.0))))
        elif chance < 0.75:
            rng.choice(under_way).answered(OK)
        else:
            under_way.pop(rng.randrange(len(under_way))).release()
        assert pods.pending() >= 0.0
    while under_way:
        under_way.pop().release()
    assert pods.pending() == pytest.approx(0.0, abs=1e-6)


def test_what_peers_sent_delays_what_comes_after_it() -> None:
    pods = Pods()
    pods.send(1.0)
    pods[1].work.hear(2.0, pods.clock.now())
    own = pods.send(1.0)
    assert pods.pending() == pytest.approx(4.0)

    pods.clock.advance(3.5)
    own.answered(OK)
    assert pods.pending() == 0.0


def test_what_peers_sent_stays_when_all_own_requests_have_ended() -> None:
    pods = Pods()
    before = pods.send(1.0)
    pods[1].work.hear(2.0, pods.clock.now())
    after = pods.send(4.0)
    pods.clock.advance(0.5)
    before.release()
    after.release()

    assert pods.pending() == pytest.approx(2.0)
    pods.clock.advance(2.0)
    assert pods.pending() == 0.0


def test_peers_cannot_make_a_queue_endless() -> None:
    pods = Pods()
    for _ in range(100):
        pods[1].work.hear(600.0, pods.clock.now())
    assert pods.pending() == MOST_HEARD_SECONDS

    own = 2 * MOST_HEARD_SECONDS
    pods.send(own, number=2)
    pods[2].work.hear(1.0, pods.clock.now())
    assert pods.pending(2) == own, "and not shorter"


def test_peers_are_told_once_of_what_is_not_processed_yet() -> None:
    pods = Pods()
    work, now = pods[1].work, pods.clock.now
    pods.send(1.0)
    pods.send(1.0)
    assert work.take_untold(now()) == pytest.approx(2.0)
    assert work.take_untold(now()) == 0.0

    pods.send(3.0)
    pods.clock.advance(4.5)
    assert work.take_untold(now()) == pytest.approx(0.5)

    pods.clock.advance(60.0)
    pods.send(0.001)
    assert work.take_untold(now()) == 0.0, "not worth it"


def answer_prompts(pods: Pods, number: int, speed: float, rng: random.Random) -> None:
    """Have a pod process prompts one by one, every fifth after another wait of a second."""
    for count in range(300):
        tokens = rng.uniform(600, 6000)
        sent = pods.fleet.ledger.reserve(pods[number], None, streamed=True, tokens=tokens)
        pods.clock.advance(0.03 + tokens / speed + (count % 5 == 0))
        sent.answered(OK)
        sent.release()


@pytest.mark.parametrize("speed", [3_000.0, 30_000.0])
def test_the_prefill_speed_is_learned_from_first_bytes(speed: float) -> None:
    pods = Pods()
    answer_prompts(pods, 1, speed, random.Random(1))
    assert pods[1].work.tokens_a_second == pytest.approx(speed, rel=0.15)
    # A pod of which nothing is known is taken to be as fast as others.
    pods.send(1.0, number=2)
    assert pods[2].work.tokens_a_second == pytest.approx(speed, rel=0.15)


def test_a_request_whose_adapter_is_loaded_first_says_nothing_about_prefill() -> None:
    pods = Pods()
    for _ in range(50):
        loads = pods.send(0.1, adapter="a1")
        pods.clock.advance(3.0)
        loads.answered(OK)
        loads.release()
    assert pods[1].work.tokens_a_second == TOKENS_A_SECOND


def serve(pods: Pods, number: int, seconds: float, *, streamed: bool = True) -> None:
    sent = pods.fleet.ledger.reserve(pods[number], None, streamed=streamed)
    if streamed:
        sent.answered(OK)
    pods.clock.advance(seconds)
    sent.answered(OK)
    sent.release()


@pytest.mark.parametrize("streamed", [True, False])
def test_a_pod_whose_answers_take_three_times_as_long_is_slow(streamed: bool) -> None:
    pods = Pods(8)
    rng = random.Random(3)
    for _ in range(400):
        for number in range(1, 9):
            took = rng.uniform(1.0, 5.0) * (3.0 if number == 8 else 1.0)
            serve(pods, number, took, streamed=streamed)
    assert [pods[number].work.slowness for number in range(1, 8)] == [1.0] * 7
    assert 1.3 < pods[8].work.slowness < 3.0


def test_failures_say_nothing_about_speed() -> None:
    pods = Pods(2)
    for _ in range(50):
        serve(pods, 1, 1.0)
        sent = pods.fleet.ledger.reserve(pods[2], None, streamed=True)
        sent.answered(Answer(503, details=FROM_THE_POD))
        pods.clock.advance(60.0)
        sent.release()
    assert pods[2].work.slowness == 1.0


def test_a_load_counts_once_it_is_too_slow_to_be_from_host_memory_until_the_first_byte() -> None:
    pods = Pods()
    request = pods.send(adapter="a")
    assert pods.loading() == 0.0
    pods.clock.advance(0.2)
    assert pods.loading() == pytest.approx(1.3)  # Of the 1.5 s that a load from disk takes.
    request.answered(OK)
    assert pods.loading() == 0.0


def test_loads_take_turns_and_one_that_is_late_is_expected_at_any_moment() -> None:
    pods = Pods()
    pods.send(adapter="a")
    pods.clock.advance(0.5)
    pods.send(adapter="b")
    pods.send(adapter="b")
    assert pods.loading() == pytest.approx(2.5)
    pods.clock.advance(3.0)
    assert pods.loading() == 0.0


@pytest.mark.parametrize("adapter", [None, "loaded"])
def test_a_request_that_needs_no_load_does_not_count_as_one(adapter: str | None) -> None:
    pods = Pods()
    pods.send(adapter="loaded").release()
    pods.send(adapter=adapter)
    pods.clock.advance(0.2)
    assert pods.loading() == 0.0


def test_a_load_counts_no_more_when_nobody_can_see_its_end() -> None:
    pods = Pods()
    left, moved = pods.send(adapter="a"), pods.send(adapter="b", number=2)
    pods.clock.advance(0.2)
    left.release()
    moved.answered(Answer(200, served_by=pods[1].pod.address, details=FROM_THE_POD))
    assert (pods.loading(1), pods.loading(2)) == (0.0, 0.0)
    pods.fleet.ledger.reserve(pods[1], "c", streamed=False)
    pods.clock.advance(0.2)
    assert pods.loading() == 0.0


def test_pods_of_a_large_model_are_not_slow_beside_those_of_a_small_one() -> None:
    pods = Pods(4)
    for number in (3, 4):
        pods.fleet.put_models(pods[number], [ServedModel("large")])
    rng = random.Random(3)
    for _ in range(200):
        for number in (1, 2, 3, 4):
            sent = pods.send(number=number)
            sent.answered(OK)
            pods.clock.advance(rng.uniform(0.9, 1.1) * (1.0 if number < 3 else 8.0))
            sent.release()
    assert [pods[number].work.slowness for number in (1, 2, 3, 4)] == [1.0] * 4


def test_prefill_speeds_are_those_of_pods_with_the_same_base_model() -> None:
    pods = Pods(3)
    for number in (2, 3):
        pods.fleet.put_models(pods[number], [ServedModel("large")])
    answer_prompts(pods, 1, 20_000.0, random.Random(1))
    answer_prompts(pods, 2, 1_000.0, random.Random(1))
    pods.send(1.0, number=3)
    assert pods[3].work.tokens_a_second == pods[2].work.tokens_a_second
    assert pods[3].work.tokens_a_second < 2_000.0
