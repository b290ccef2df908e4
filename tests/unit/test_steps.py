"""Work in steps, and turns of the event loop."""

import asyncio
from collections import Counter

import pytest

from lora_router.scrape.breaks import with_breaks
from lora_router.scrape.turns import Turns
from lora_router.steps import Steps, all_at_once


def counting(steps: int) -> Steps[int]:
    for _ in range(steps - 1):
        yield
    return steps


@pytest.mark.parametrize("steps", [1, 2, 50])
async def test_the_result_is_the_same_at_once_and_with_breaks(steps: int) -> None:
    assert all_at_once(counting(steps)) == steps
    assert await with_breaks(counting(steps), pause=0) == steps


def failing() -> Steps[int]:
    yield
    raise ZeroDivisionError


async def test_an_error_of_a_step_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        all_at_once(failing())
    with pytest.raises(ZeroDivisionError):
        await with_breaks(failing(), pause=0)


async def test_breaks_are_longer_than_the_work_by_a_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    breaks = []

    def work() -> Steps[None]:
        nonlocal now
        for seconds in (5.0, 1.0, 2.0):
            now += seconds
            yield

    async def sleep(seconds: float) -> None:
        breaks.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await with_breaks(work(), pause=10, clock=lambda: now)

    assert breaks == [0.0, 10.0, 20.0]


async def test_work_of_one_step_neither_waits_nor_takes_the_time() -> None:
    def clock() -> float:
        raise AssertionError

    assert await with_breaks(counting(1), clock=clock) == 1


class LoopTurns:
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.number = 0
        self._next()

    def _next(self) -> None:
        self.number += 1
        asyncio.get_running_loop().call_soon(self._next)


async def test_few_pieces_of_work_run_in_one_turn_in_their_order() -> None:
    turns, loop = Turns(3), LoopTurns()
    done: list[tuple[int, int]] = []

    async def work(number: int) -> None:
        await turns.take()
        done.append((number, loop.number))

    await asyncio.gather(*(work(number) for number in range(100)))

    assert [number for number, _ in done] == list(range(100))
    assert max(Counter(turn for _, turn in done).values()) <= 3


async def test_without_others_work_does_not_wait() -> None:
    turns, loop = Turns(1), LoopTurns()
    for _ in range(3):
        before = loop.number
        await turns.take()
        assert loop.number == before
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_work_that_is_cancelled_takes_no_turn_from_others() -> None:
    turns = Turns(1)
    await turns.take()
    tasks = [asyncio.create_task(turns.take()) for _ in range(5)]
    await asyncio.sleep(0)
    for task in tasks[:4]:
        task.cancel()

    await asyncio.wait_for(tasks[4], 60)
    await asyncio.wait_for(turns.take(), 60)
