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
    clock.advance(1)
    third.asks(1000)

    clock.advance(WAIT - 1)
    assert (second.told, third.told) == (["must wait", "refused"], ["must wait"])
    clock.advance(1)

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
