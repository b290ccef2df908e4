"""Silent pods give way to those that answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lora_router.scrape import places as places_module
from lora_router.scrape.places import Place, Places


@pytest.fixture(autouse=True)
def no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call becomes slow when a test says so."""
    monkeypatch.setattr(places_module, "SLOW_SECONDS", 3600.0)


class Calls:
    """Calls that take places and last until they are ended."""

    def __init__(self, quick: int) -> None:
        self.places = Places(quick)
        self.started: dict[str, Place] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, *names: str, failing: bool = False) -> None:
        for name in names:
            self._tasks[name] = asyncio.create_task(self._call(name, failing=failing))
        await settle()

    async def _call(self, name: str, *, failing: bool) -> None:
        place = self.places.place(failing=failing)
        async with place:
            self.started[name] = place
            await asyncio.Event().wait()

    async def slow(self, *names: str) -> None:
        for name in names:
            self.places.move(self.started[name])
        await settle()

    async def end(self, *names: str) -> None:
        for name in names:
            self._tasks.pop(name).cancel()
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def calls(quick: int) -> AsyncIterator[Calls]:
    made = Calls(quick)
    try:
        yield made
    finally:
        await made.end(*made._tasks)


async def test_a_slow_call_frees_its_quick_place() -> None:
    async with calls(1) as made:
        await made.start("silent", "next")
        assert list(made.started) == ["silent"]

        await made.slow("silent")
        assert list(made.started) == ["silent", "next"]


async def test_a_call_that_ends_frees_its_place_whichever_it_is() -> None:
    async with calls(1) as made:
        for number in range(20):
            await made.start(f"{number}")
            if number % 2:
                await made.slow(f"{number}")
            await made.end(f"{number}")

        await made.start("last")
        assert "last" in made.started


async def test_there_are_so_many_slow_places_and_no_more() -> None:
    names = [f"silent-{number}" for number in range(9)]
    async with calls(1) as made:
        for name in names:
            await made.start(name)
            await made.slow(name)
        assert [made.started[name].is_slow for name in names] == [True] * 8 + [False]
        await made.start("next")
        assert "next" not in made.started

        await made.end("silent-3")
        assert made.started["silent-8"].is_slow
        assert "next" in made.started


async def test_pods_that_failed_use_half_of_the_quick_places() -> None:
    async with calls(4) as made:
        await made.start(*(f"failing-{number}" for number in range(6)), failing=True)
        assert len(made.started) == 2

        await made.start("a", "b")
        assert list(made.started)[2:] == ["a", "b"]


async def test_pods_that_failed_use_half_of_the_slow_places() -> None:
    failing = [f"failing-{number}" for number in range(5)]
    async with calls(1) as made:
        for name in failing:
            await made.start(name, failing=True)
            await made.slow(name)
        assert [made.started[name].is_slow for name in failing] == [True] * 4 + [False]

        await made.end("failing-0")
        await made.start("new")
        await made.slow("new")
        assert made.started["new"].is_slow


async def test_a_call_that_gives_up_while_it_waits_holds_nothing() -> None:
    async with calls(1) as made:
        await made.start("first")
        await made.start("gives up", "as well", failing=True)
        await made.end("gives up", "as well", "first")

        await made.start("failing", failing=True)
        assert "failing" in made.started


async def test_a_call_becomes_slow_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "SLOW_SECONDS", 0.001)
    became_slow = asyncio.Event()
    async with Places(1).place(on_slow=became_slow.set):
        await asyncio.wait_for(became_slow.wait(), 30)
