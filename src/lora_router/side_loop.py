"""An event loop in a thread of its own, for what must answer while the router's loop is busy."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from lora_router.log_limit import LogLimit
from lora_router.threads import in_thread

log = logging.getLogger("lora_router.tasks")

_Result = TypeVar("_Result")


class SideLoop:
    """A second event loop. Must be created in the router's loop, and started once."""

    def __init__(self, name: str) -> None:
        """Create a loop that does not run yet.

        Args:
            name: The thread's name, which log lines contain.
        """
        self._name = name
        self._router = asyncio.get_running_loop()
        # Not uvloop: at the limit of file descriptors this loop pauses accepting for a second.
        self._loop = asyncio.SelectorEventLoop()
        self._loop.set_exception_handler(self._callback_failed)
        self._limit = LogLimit(60.0)
        self.ends = False
        """Whether failures are of no interest any more, such as a listener that cannot resume."""
        # A daemon: the process's exit does not wait for it.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread.

        Raises:
            OSError: The limit of threads or memory is reached.
        """
        try:
            self._thread.start()
        except RuntimeError as error:
            self._loop.close()
            raise OSError(None, str(error)) from error

    async def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run ``work`` in this loop, called from the router's loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def in_router(self, read: Callable[[], _Result], seconds: float) -> _Result:
        """Call ``read`` in the router's loop, called from this loop.

        The router's state may be read in its loop only, since nothing locks it.

        Raises:
            TimeoutError: The router's loop is busy or closed.
            Exception: What ``read`` raised.
        """
        result: Future[_Result] = Future()

        def call() -> None:
            if not result.set_running_or_notify_cancel():
                return  # Nobody waits any more.
            try:
                result.set_result(read())
            except BaseException as error:
                result.set_exception(error)

        try:
            self._router.call_soon_threadsafe(call)
        except RuntimeError as error:
            raise TimeoutError("the event loop is closed") from error
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(result)

    async def await_in_router(
        self, make: Callable[[], Awaitable[_Result]], seconds: float
    ) -> _Result:
        """Await ``make()`` in the router's loop, called from this loop.

        Raises:
            TimeoutError: The router's loop is busy or closed, or the work takes too long. It is
                cancelled then.
            Exception: What ``make`` raised.
        """

        async def work() -> _Result:
            return await make()

        coroutine = work()
        try:
            made = asyncio.run_coroutine_threadsafe(coroutine, self._router)
        except RuntimeError as error:
            coroutine.close()
            raise TimeoutError("the event loop is closed") from error
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(made)

    async def stop(self) -> None:
        """End the thread. Everything in it must have been stopped before."""
        with suppress(RuntimeError):  # It is closed already.
            self._loop.call_soon_threadsafe(self._loop.stop)
        await in_thread(self._thread.join, f"{self._name}-end")

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _callback_failed(self, _loop: object, context: Mapping[str, Any]) -> None:
        if self.ends:
            return
        error = context.get("exception")
        self._limit.log(
            log,
            logging.ERROR,
            type(error).__name__,
            "%s thread: %s",
            self._name,
            context.get("message"),
            exc_info=error if isinstance(error, BaseException) else None,
        )
