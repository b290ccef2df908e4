"""Work in threads: the event loop waits for neither their start nor their end."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from lora_router import threads
from lora_router.threads import in_thread


async def test_work_returns_what_it_returns_and_raises_what_it_raises() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    assert await in_thread(threading.get_ident, "work") != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await in_thread(fail, "work")


async def test_the_event_loop_does_not_wait_for_the_start_of_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``threading.Thread.start`` waits, forever if the thread has no memory to start with."""

    def start(_thread: threading.Thread) -> None:
        raise AssertionError("the event loop would wait")

    monkeypatch.setattr(threading.Thread, "start", start)

    assert await in_thread(lambda: 7, "work") == 7


async def test_a_thread_that_ends_before_it_runs_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(_run: Callable[..., None], _arguments: tuple[Any, ...]) -> int:
        return 0

    monkeypatch.setattr(threads, "start_new_thread", start)

    with pytest.raises(RuntimeError, match="thread work ended before it ran"):
        async with asyncio.timeout(60):
            await in_thread(lambda: 7, "work")
