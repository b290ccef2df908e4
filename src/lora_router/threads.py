"""Runs blocking work outside the event loop, in a thread that never delays the process's exit."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

_Result = TypeVar("_Result")


async def in_thread(work: Callable[[], _Result], name: str) -> _Result:
    """Run ``work`` in a thread. Returns what it returns, and raises what it raises.

    The thread is a daemon. Work that hangs, such as a read from a network file system that is
    gone, therefore does not delay the exit. ``asyncio.to_thread`` uses a pool that the exit waits
    for.

    Args:
        work: Called once in its own thread.
        name: The thread's name.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Result] = loop.create_future()

    def deliver(result: _Result | None, error: BaseException | None) -> None:
        if done.done():
            return  # The caller was cancelled.
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: _Result | None = None
        error: BaseException | None = None
        try:
            result = work()
        except StopIteration as raised:  # A future does not accept it.
            error = RuntimeError(f"StopIteration: {raised}")
        except BaseException as raised:
            error = raised
        # At the process's exit the loop is closed, and nobody waits for the result.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(deliver, result, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done
