"""Long work of peers, which is done a step at a time beside requests."""

from collections.abc import Callable

from lora_router.clock import Timer
from lora_router.peering.step_turns import StepTurns
from lora_router.steps import Steps
from tests.fleet import ManualTimer

STEP = 0.001


class BusyLoop:
    """An event loop in which time passes only with steps, and with what else a turn does."""

    def __init__(self) -> None:
        self.time = 100.0
        self.due: list[Callable[[], None]] = []
        self.turns = StepTurns(self)
        self.done: list[str] = []

    def now(self) -> float:
        return self.time

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        assert seconds == 0.0
        self.due.append(call)
        return ManualTimer(call)

    def work(self, name: str, steps: int) -> Steps[None]:
        for step in range(steps):
            self.time += STEP
            self.done.append(name)
            if step < steps - 1:
                yield

    def turn(self, seconds: float = 0.0) -> int:
        """Let a turn take so long without the steps; return how many steps were done in it."""
        before = len(self.done)
        self.time += seconds
        due, self.due = self.due, []
        for call in due:
            call()
        return len(self.done) - before


def test_works_of_several_peers_take_turns() -> None:
    loop = BusyLoop()
    loop.turns.do("a", loop.work("a", 3))
    loop.turns.do("b", loop.work("b", 2))
    for _ in range(4):
        loop.turn()
    assert loop.done == ["a", "a", "b", "a", "b"]
    assert len(loop.turns) == 0


def test_a_newer_work_takes_the_place_of_what_is_left_of_the_one_before_it() -> None:
    loop = BusyLoop()
    loop.turns.do("a", loop.work("a1", 3))
    loop.turns.do("b", loop.work("b", 2))
    loop.turns.do("a", loop.work("a2", 1))
    for _ in range(4):
        loop.turn()
    assert loop.done == ["a1", "a2", "b", "b"], "it keeps its place in the order"


def test_what_waits_is_bounded_by_the_peers() -> None:
    loop = BusyLoop()
    for number in range(100):
        for peer in "abc":
            loop.turns.do(peer, loop.work(f"{peer}{number}", 4))
    assert len(loop.turns) == 3


def test_a_turn_that_is_short_has_one_step() -> None:
    loop = BusyLoop()
    loop.turns.do("a", loop.work("a", 9))
    assert [loop.turn(0.0002) for _ in range(3)] == [1, 1, 1]


def test_where_turns_take_long_steps_get_a_share_of_the_time() -> None:
    """Otherwise a busy router would have fewer steps, and fall behind."""
    loop = BusyLoop()
    loop.turns.do("a", loop.work("a", 90))
    assert [loop.turn(0.008) for _ in range(3)] == [2, 2, 2]
    assert [loop.turn(0.016) for _ in range(3)] == [4, 4, 4]


def test_after_a_stall_the_steps_of_a_turn_are_bounded() -> None:
    loop = BusyLoop()
    loop.turns.do("a", loop.work("a", 90))
    assert loop.turn(5.0) == 5


def test_time_in_which_there_was_no_work_counts_as_no_turn() -> None:
    loop = BusyLoop()
    loop.time += 60.0
    loop.turns.do("a", loop.work("a", 9))
    assert loop.turn() == 1


def test_a_step_that_fails_ends_its_own_work_only() -> None:
    def failing() -> Steps[None]:
        yield
        raise ValueError

    loop = BusyLoop()
    loop.turns.do("a", failing())
    loop.turns.do("b", loop.work("b", 2))
    for _ in range(4):
        loop.turn()
    assert loop.done == ["b", "b"]
    assert len(loop.turns) == 0
