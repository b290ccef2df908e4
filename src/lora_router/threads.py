"""Runs blocking work beside the event loop, in a thread that never delays the process's exit."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

_Result = TypeVar("_Result")


async def in_thread(work: Callable[[], _Result], name: str) -> _Result:
    """Return what ``work`` returns, or raise what it raises.

    The thread is a daemon: work that hangs (a file on a network that is gone) delays neither the
    loop nor the exit, as a thread of ``asyncio.to_thread`` does, for which the exit waits.

    Args:
        work: Called once in a thread of its own.
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
        except StopIteration as raised:  # A future refuses it.
            error = RuntimeError(f"StopIteration: {raised}")
        except BaseException as raised:
            error = raised
        # The loop is closed at the process's exit: nobody waits for the result then.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(deliver, result, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done
