"""The clock of the event loop."""

import asyncio

import pytest

from lora_router.loop_clock import LoopClock


async def _seconds_late(clock: LoopClock) -> list[float]:
    """Return how late calls were that were scheduled at various parts of a millisecond."""
    late: list[float] = []

    def schedule(seconds: float) -> None:
        due = clock.now() + seconds
        clock.call_later(seconds, lambda: late.append(clock.now() - due))

    for number in range(60):
        schedule(0.01 + number * 0.00017)
        await asyncio.sleep(0.0003)
    while len(late) < 60:
        await asyncio.sleep(0.005)
    return late


@pytest.mark.parametrize("library", ["asyncio", "uvloop"])
def test_no_call_comes_too_early(library: str) -> None:
    loops = pytest.importorskip(library)
    with asyncio.Runner(loop_factory=loops.new_event_loop) as runner:
        assert min(runner.run(_seconds_late(LoopClock()))) >= 0


async def test_a_cancelled_call_does_not_happen_and_one_without_delay_comes_soon() -> None:
    clock, called = LoopClock(), list[str]()
    clock.call_later(0.001, lambda: called.append("cancelled")).cancel()
    made = clock.call_later(0.002, lambda: called.append("made"))
    clock.call_later(0.0, lambda: called.append("soon"))
    while "made" not in called:
        await asyncio.sleep(0.005)
    made.cancel()
    assert called == ["soon", "made"]
