"""Pages of a large fleet never keep the event loop from other work."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec import Struct

from lora_router.debug.gathering import Gathering
from lora_router.debug.pages import json_of
from lora_router.debug.slices import in_slices
from tests.fleet import make_fleet
from tests.unit.debug.debugged import Debugged, gathering

PODS = 1000


async def test_other_work_runs_between_two_slices() -> None:
    events: list[str] = []

    async def work() -> None:
        async for some in in_slices(range(5), 2):
            events.append(str(list(some)))  # noqa: PERF401 -- in between, others append

    async def other() -> None:
        for _ in range(2):
            events.append("other")
            await asyncio.sleep(0)

    await asyncio.gather(work(), other())

    assert events == ["[0, 1]", "other", "[2, 3]", "other", "[4]"]


@pytest.fixture(scope="module")
def large() -> Debugged:
    """A router with a thousand pods, each of which has run some adapters, and a full log."""
    names = [f"a{number}" for number in range(200)]
    router = Debugged(make_fleet(PODS, adapters=names))
    for number, state in enumerate(router.fleet):
        for adapter in range(4):
            router.fleet.ledger.reserve(state, names[(2 * number + adapter) % len(names)])
    for number in range(1000):
        router.record(f"r{number}", model="a1")
    return router


@pytest.mark.slow
@pytest.mark.parametrize(
    ("read", "turns"),
    [
        # Each pod is looked at, merged and encoded, at most eight at a time.
        (lambda asks: asks.pods(), 3 * PODS // 8),
        (lambda asks: asks.adapters(), PODS // 8),
        (lambda asks: asks.decisions({"limit": "1000"}), 1000 // 32),
        (lambda asks: asks.explain({"model": "a1"}), PODS // 16 - 1),
    ],
)
async def test_a_large_page_is_made_in_many_turns_of_the_loop(
    large: Debugged, read: Callable[[Gathering], Awaitable[Struct]], turns: int
) -> None:
    counted = 0
    done = asyncio.Event()

    async def count() -> None:
        nonlocal counted
        while not done.is_set():
            counted += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    await json_of(await read(gathering(large)))
    done.set()
    await counting

    assert counted >= turns
