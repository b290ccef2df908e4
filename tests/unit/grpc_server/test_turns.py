"""Turns: nobody is starved, and an iteration of the event loop stays short."""

from contextlib import suppress

import pytest

from lora_router.grpc_server.turns import Turns
from tests.fleet import ManualClock


class Loop:
    """An event loop that runs one iteration when the test says so."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.due: list[object] = []
        self.turns = Turns(self.due.append, self.clock.now)
        self.took: list[str] = []

    def iterate(self) -> list[str]:
        """Run what is due; return who had a turn."""
        due, self.due[:] = self.due[:], []
        self.took.clear()
        for call in due:
            assert callable(call)
            call()
        return list(self.took)


class Wire:
    """A connection that needs a number of turns."""

    def __init__(self, loop: Loop, name: str, turns: int, seconds: float = 0.0) -> None:
        self.loop, self.name, self.left, self.seconds = loop, name, turns, seconds
        loop.turns.join(self)

    def take_turn(self) -> None:
        self.loop.took.append(self.name)
        self.loop.clock.time += self.seconds
        self.left -= 1
        if self.left:
            self.loop.turns.join(self)


def test_each_gets_one_turn_in_an_iteration() -> None:
    loop = Loop()
    Wire(loop, "a", 3)
    Wire(loop, "b", 1)

    assert [loop.iterate() for _ in range(4)] == [["a", "b"], ["a"], ["a"], []]
    assert loop.due == []


def test_an_iteration_ends_after_a_few_milliseconds_and_goes_on_with_the_next() -> None:
    loop = Loop()
    for name in "abcde":
        Wire(loop, name, 2, seconds=0.003)

    assert [loop.iterate() for _ in range(5)] == [
        list(pair) for pair in ("ab", "cd", "ea", "bc", "de")
    ]


def test_a_turn_that_fails_ends_no_other() -> None:
    class Broken(Wire):
        def take_turn(self) -> None:
            raise ZeroDivisionError

    loop = Loop()
    Broken(loop, "broken", 1)
    Wire(loop, "a", 1)
    with pytest.raises(ZeroDivisionError):
        loop.iterate()

    assert loop.iterate() == ["a"]


@pytest.mark.parametrize("fails", [1, 2])
def test_a_loop_without_memory_for_a_call_is_asked_again_when_the_next_one_joins(
    fails: int,
) -> None:
    loop = Loop()
    asked = 0

    def call_soon(call: object) -> None:
        nonlocal asked
        asked += 1
        if asked == fails:
            raise MemoryError
        loop.due.append(call)

    loop.turns = Turns(call_soon, loop.clock.now)
    with suppress(MemoryError):
        Wire(loop, "a", 2)
    with suppress(MemoryError):
        loop.iterate()

    Wire(loop, "b", 1)

    assert "b" in loop.iterate()
