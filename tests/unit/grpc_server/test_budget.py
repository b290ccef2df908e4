"""The budget of bytes: who is let in, who waits, and who is refused."""

from lora_router.grpc_server.budget import Account, Budget
from tests.fleet import ManualClock

SMALL, WAIT = 100, 3.0


class Stream:
    """A stream that records what the budget tells it."""

    def __init__(self, budget: Budget) -> None:
        self.account = Account(budget, self)
        self.told: list[str] = []

    def admitted(self) -> None:
        self.told.append("admitted")

    def must_wait(self) -> None:
        self.told.append("must wait")

    def refused(self) -> None:
        self.told.append("refused")

    def receives(self, clock: ManualClock, seconds: float) -> None:
        """Receive a byte of the message now and then, while time passes."""
        account = self.account
        for _ in range(round(seconds / 0.25)):
            clock.advance(0.25)
            account.hold(account.held + 1, account.message)

    def asks(self, size: int, held: int = 10) -> bool:
        """Begin a message, and ask for the rest of it."""
        self.account.hold(held, size)
        return self.account.lets_in()


def make(limit: int = 4000, clock: ManualClock | None = None) -> Budget:
    clock = clock or ManualClock()
    return Budget(
        limit,
        small=SMALL,
        now=clock.now,
        call_later=lambda seconds, call: clock.call_later(seconds, call).cancel,
        wait_seconds=WAIT,
    )


def test_a_message_is_let_in_as_a_whole_or_not_at_all() -> None:
    budget = make()
    first, second = Stream(budget), Stream(budget)

    assert first.asks(2000)
    assert not second.asks(1500)

    assert budget.used == 2000 + 10
    assert (first.told, second.told) == ([], ["must wait"])


def test_who_was_let_in_can_finish() -> None:
    budget = make()
    first, second = Stream(budget), Stream(budget)
    first.asks(3000)
    second.asks(2000)

    for held in range(20, 3000, 10):
        first.account.hold(held, 3000)
        assert first.account.lets_in()
    first.account.hold(0, 0)

    assert second.told == ["must wait", "admitted"]
    second.account.hold(0, 0)
    assert budget.used == 0


def test_small_streams_never_wait() -> None:
    budget = make()
    large, waiting = Stream(budget), Stream(budget)
    large.asks(3000)
    waiting.asks(3000)

    small = [Stream(budget) for _ in range(9)]
    assert all(each.asks(SMALL, held=SMALL) for each in small)
    assert waiting.told == ["must wait"]


def test_streams_that_wait_go_in_order_of_arrival() -> None:
    budget = make()
    first, large, small = (Stream(budget) for _ in range(3))
    first.asks(2000)
    large.asks(2500)
    # It would fit, but the one before it would then wait forever.
    assert not small.asks(500)

    first.account.clear()

    assert large.told == ["must wait", "admitted"]
    assert small.told == ["must wait", "admitted"]


def test_who_waits_too_long_is_refused() -> None:
    clock = ManualClock()
    budget = make(clock=clock)
    first, second, third = (Stream(budget) for _ in range(3))
    first.asks(3000)
    second.asks(1000)
    first.receives(clock, 1)
    third.asks(1000)

    first.receives(clock, WAIT - 1)
    assert (second.told, third.told) == (["must wait", "refused"], ["must wait"])
    first.receives(clock, 1)

    assert third.told == ["must wait", "refused"]
    assert (budget.waiting, budget.refused, budget.used) == (0, 2, 3000)
    # It is refused once, and does not count any more.
    third.account.hold(50, 1000)
    assert not third.account.lets_in()
    assert budget.used == 3000


def test_a_slow_upload_gives_way_to_those_who_wait() -> None:
    clock = ManualClock()
    budget = make(clock=clock)
    slow, other = Stream(budget), Stream(budget)
    slow.asks(3000)
    clock.advance(60)
    assert slow.told == []

    other.asks(1000)
    clock.advance(WAIT)

    assert slow.told == ["refused"]
    assert other.told == ["must wait", "admitted"]


def test_a_stream_that_receives_nothing_while_others_wait_loses_its_room() -> None:
    clock = ManualClock()
    budget = make(clock=clock)
    idle, busy, other = (Stream(budget) for _ in range(3))
    idle.asks(1500)
    busy.asks(1500)
    clock.advance(60)
    assert idle.told == []

    other.asks(1000)
    busy.receives(clock, 2)

    assert (idle.told, busy.told) == (["refused"], [])
    assert other.told == ["must wait", "admitted"]


def test_a_stall_of_the_router_itself_is_no_stall_of_a_stream() -> None:
    clock = ManualClock()
    budget = make(clock=clock)
    busy, other = Stream(budget), Stream(budget)
    busy.asks(3000)
    other.asks(1000)
    busy.receives(clock, 1)

    # The loop stood still: all timers are late, and what has arrived is read after them.
    clock.stall(2.0)

    assert busy.told == []


def test_no_more_streams_are_refused_than_those_that_wait_need() -> None:
    clock = ManualClock()
    budget = make(clock=clock)
    idle = [Stream(budget) for _ in range(3)]
    for each in idle:
        each.asks(1000)
    other = Stream(budget)
    other.asks(900)

    clock.advance(2)

    assert [each.told for each in idle] == [["refused"], [], []]
    assert other.told == ["must wait", "admitted"]


class TestShortStreamsDoNotWaitForLongOnes:
    """Of 30,000 bytes that can be reserved, 7,500 are kept for streams of 234 or fewer."""

    LIMIT, SHORT = 40_000, 234

    def test_when_long_ones_take_all_that_they_can_get(self) -> None:
        budget = make(self.LIMIT)
        long = [Stream(budget) for _ in range(12)]
        assert sum(each.asks(5000) for each in long) == 4

        short = [Stream(budget) for _ in range(20)]

        assert all(each.asks(self.SHORT) for each in short)
        assert [each.told for each in long[4:]] == [["must wait"]] * 8

    def test_and_do_not_keep_them_out(self) -> None:
        budget = make(self.LIMIT)
        short = [Stream(budget) for _ in range(200)]
        admitted = [each for each in short if each.asks(self.SHORT)]
        long = Stream(budget)
        long.asks(20_000)
        assert (len(admitted), long.told) == (128, ["must wait"])

        # As room is given back, the long one gets it, although short ones came before it.
        for each in admitted[:100]:
            each.account.clear()

        assert long.told == ["must wait", "admitted"]
        # What is left then, short ones get: 28 had room, and 14 more have.
        assert budget.waiting == 200 - 128 - 14

    def test_and_the_first_long_one_may_have_all_that_can_be_reserved(self) -> None:
        budget = make(self.LIMIT)

        assert Stream(budget).asks(30_000)


def test_a_body_whose_length_was_not_known_counts_what_it_is_once_it_is_complete() -> None:
    budget = make()
    held, other = Stream(budget), Stream(budget)
    held.account.keep(500, 3000)
    assert held.account.lets_in()
    assert not other.asks(2000)

    held.account.keep(600, 0)

    assert other.told == ["must wait", "admitted"]
    assert budget.used == 600 + 2000


def test_what_was_let_in_is_counted_until_the_call_has_handled_it() -> None:
    budget = make()
    call, other = Stream(budget), Stream(budget)
    call.asks(3000)
    assert not other.asks(2000)

    call.account.taken(0, 0)
    call.account.keep(2900, 0)
    call.account.settle()

    assert other.told == ["must wait"]
    assert call.told == []
    call.account.keep(0, 0)
    assert other.told == ["must wait", "admitted"]


def test_a_body_that_is_complete_does_not_count_as_slow() -> None:
    """A held request keeps its body and waits for a pod, not for its client."""
    clock = ManualClock()
    budget = make(clock=clock)
    held, other = Stream(budget), Stream(budget)
    held.asks(3000)
    held.account.hold(0, 0)
    held.account.keep(2900, 0)
    held.account.lets_in()
    clock.advance(60)

    other.asks(1000)
    clock.advance(WAIT)

    assert held.told == []
    assert other.told == ["must wait", "refused"]


def test_if_small_streams_need_room_the_last_that_waits_is_refused() -> None:
    budget = make()
    large, first, second = (Stream(budget) for _ in range(3))
    large.asks(3000)
    first.asks(3000, held=100)
    second.asks(3000, held=100)

    small = [Stream(budget) for _ in range(9)]
    for each in small:
        each.asks(SMALL, held=SMALL)

    assert second.told == ["must wait", "refused"]
    assert first.told == ["must wait"]
    assert budget.used == 4000
    late = Stream(budget)
    late.asks(SMALL, held=SMALL)
    assert first.told == ["must wait", "refused"]
    assert late.told == []

    one_more = Stream(budget)
    one_more.asks(SMALL, held=SMALL)
    assert one_more.told == ["refused"]
    assert budget.used == 4000


def test_a_body_in_pieces_is_let_in_as_a_whole() -> None:
    budget = make()
    body = Stream(budget)
    body.account.keep(0, 2000)
    assert body.account.lets_in()
    assert budget.used == 2000

    for kept in range(0, 1900, 100):
        body.account.hold(50, 100)
        assert body.account.lets_in()
        body.account.hold(0, 0)
        body.account.keep(kept + 100, 2000)
        assert budget.used == 2000

    body.account.keep(0, 0)
    assert budget.used == 0


def test_a_body_that_ends_while_it_waits_leaves_the_queue() -> None:
    clock = ManualClock()
    budget = make(clock=clock)
    large, body = Stream(budget), Stream(budget)
    large.asks(3000)
    body.account.keep(60, 2000)
    assert not body.account.lets_in()

    body.account.keep(0, 0)

    assert budget.waiting == 0
    assert body.account.lets_in()
    clock.advance(WAIT)
    assert body.told == ["must wait"]


def test_what_is_larger_than_its_length_says_is_counted_and_bounded() -> None:
    budget = make()
    liar = Stream(budget)
    liar.account.keep(0, 500)
    assert liar.account.lets_in()

    liar.account.keep(3500, 500)
    assert budget.used == 3500
    assert not liar.account.lets_in()
    assert liar.told == ["refused"]
    assert budget.used == 0


def test_what_can_never_fit_is_refused_at_once() -> None:
    stream = Stream(make())

    assert not stream.asks(3001)
    assert stream.told == ["refused"]


def test_output_that_waits_takes_room() -> None:
    budget = make()
    budget.count_output(2500)
    stream = Stream(budget)
    assert not stream.asks(1000)

    budget.count_output(-1000)

    assert stream.told == ["must wait", "admitted"]
    stream.account.clear()
    budget.count_output(-1500)
    assert budget.used == 0
