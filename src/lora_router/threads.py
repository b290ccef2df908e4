"""Runs blocking work outside the event loop, in a thread that never delays the process's exit."""

import asyncio
import sys
import threading
from _thread import start_new_thread
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

_Result = TypeVar("_Result")


class _Given:
    """Given to a thread, which drops it at its end, whether or not it ran."""

    __slots__ = ("_at_end",)

    def __init__(self, at_end: Callable[[], None]) -> None:
        self._at_end = at_end

    def __del__(self) -> None:
        self._at_end()


async def in_thread(work: Callable[[], _Result], name: str) -> _Result:
    """Run ``work`` in a thread. Returns what it returns, and raises what it raises.

    The thread is a daemon. Work that hangs, such as a read from a network file system that is
    gone, therefore does not delay the exit. ``asyncio.to_thread`` uses a pool that the exit waits
    for.

    The event loop does not wait for the thread to start, as ``threading.Thread.start`` does. It
    would wait for long on a busy machine, and forever if the thread has no memory to start with.

    Args:
        work: Called once in its own thread.
        name: What the thread is for, for the error.

    Raises:
        RuntimeError: The thread could not start, or it ended before it called ``work``.
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

    def run(_given: _Given) -> None:
        # As the threads of `threading` do, for coverage and debuggers.
        if (trace := threading.gettrace()) is not None:
            sys.settrace(trace)
        result: _Result | None = None
        error: BaseException | None = None
        try:
            result = work()
        except StopIteration as raised:  # A future does not accept it.
            error = RuntimeError(f"StopIteration: {raised}")
        except BaseException as raised:
            error = raised
        tell(result, error)

    def tell(result: _Result | None, error: BaseException | None) -> None:
        # At the process's exit the loop is closed, and nobody waits for the result.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(deliver, result, error)

    never_ran = RuntimeError(f"thread {name} ended before it ran")
    start_new_thread(run, (_Given(lambda: tell(None, never_ran)),))
    return await done
