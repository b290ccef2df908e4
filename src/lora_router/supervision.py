"""The one way to run background tasks: scrapes, watches, files.

Rules:

- A failure never ends a task silently. It is counted (``lora_router_task_failures_total``), logged
  with its cause, and the task restarts with exponential backoff and jitter.
- Everything but cancellation is a failure: an exception, a return, ``SystemExit``,
  ``KeyboardInterrupt``, and a ``CancelledError`` that nobody asked for. asyncio would let the
  second and third end the process, or keep them until the task is collected.
- A task cannot be kept running when it has failed ``FAILURES_IN_A_ROW`` times and none of those
  runs lasted ``GOOD_RUN_SECONDS``. ``failing`` returns such tasks until a run lasts that long.
- Stopping is bounded in time, and one part that fails to stop does not keep the others running.

A supervised task is one asyncio task; there are no timers and no labels for each pod.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any

from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.tasks")

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 15.0
GOOD_RUN_SECONDS = 10.0
"""A task that ran for so long is healthy: its next failure is the first in a row."""
FAILURES_IN_A_ROW = 5
STOP_SECONDS = 5.0
"""Time for a task to end after it has been cancelled, and for a part to stop."""
_LOG_SECONDS = 60.0
_ABANDON_SECONDS = 1.0


class TaskEndedError(Exception):
    """A task ended that never should."""


@dataclass(frozen=True, slots=True)
class FailingTask:
    """A task that cannot be kept running."""

    task: str
    """One of a few names, such as ``pods-file``."""
    about: str
    """What it is about, such as a pod's name; may be empty."""
    failures: int
    """Failures in a row."""
    error: str
    """The last one."""

    def __str__(self) -> str:
        about = f" ({self.about})" if self.about else ""
        return f"{self.task}{about}: {self.failures} failures in a row, last: {self.error}"


class _Run:
    """How a task is doing."""

    __slots__ = ("about", "error", "failures", "running", "started", "task")

    def __init__(self, task: str, about: str) -> None:
        self.task = task
        self.about = about
        self.started = 0.0
        self.running = False
        self.failures = 0
        self.error = ""


class Supervisor:
    """Runs tasks, restarts those that fail, and knows which cannot be kept running."""

    def __init__(
        self,
        on_failure: Callable[[str], None] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        """Create a supervisor without tasks.

        Args:
            on_failure: Called with a task's name at each failure.
            clock: Returns seconds, monotonic.
            sleep: Waits for a number of seconds.
            rng: For the jitter, so that tasks which failed together do not restart together.
        """
        self._on_failure = on_failure
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._limit = LogLimit(_LOG_SECONDS, clock=clock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failing: dict[_Run, None] = {}
        """Tasks whose last run failed. Those that run well again are removed when it is read."""

    def keep(
        self, task: str, work: Callable[[], Awaitable[None]], *, about: str = ""
    ) -> asyncio.Task[None]:
        """Run ``work`` for ever: call it again whenever it ends, with backoff.

        Cancel the returned task to end it.

        Args:
            task: What is counted and logged: one of a few names, not a pod's.
            work: Called for each run.
            about: What the task is about, for the log.
        """
        return self._start(self._keep(_Run(task, about), work), task)

    def once(
        self, task: str, work: Coroutine[Any, Any, None], *, about: str = ""
    ) -> asyncio.Task[None]:
        """Run ``work`` to its end. A failure is counted and logged."""
        return self._start(self._once(_Run(task, about), work), task)

    def failed(self, task: str, error: BaseException, *, about: str = "") -> None:
        """Count and log a failure that did not end the task."""
        self._count(task)
        self._log(task, about, error, "continues", traceback=True)

    def failing(self) -> list[FailingTask]:
        """Return the tasks that cannot be kept running."""
        now = self._clock()
        found = []
        for run in tuple(self._failing):
            if run.running and now - run.started >= GOOD_RUN_SECONDS:
                del self._failing[run]
                run.failures = 0
                log.info("task %s%s runs again", run.task, _of(run.about))
            elif run.failures >= FAILURES_IN_A_ROW:
                found.append(FailingTask(run.task, run.about, run.failures, run.error))
        return found

    async def stop(self) -> None:
        """Cancel every task that still runs, and wait for their end, up to ``STOP_SECONDS``."""
        await cancel(self._tasks)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        started = asyncio.create_task(work, name=name)
        self._tasks.add(started)
        started.add_done_callback(self._tasks.discard)
        return started

    async def _keep(self, run: _Run, work: Callable[[], Awaitable[None]]) -> None:
        try:
            while True:
                run.started = self._clock()
                run.running = True
                try:
                    await work()
                    error: BaseException = TaskEndedError("the task ended, which it never should")
                except GeneratorExit:
                    raise  # The loop is closed.
                except asyncio.CancelledError as cancelled:
                    if _is_cancelled():
                        raise
                    error = cancelled
                except BaseException as raised:
                    error = raised
                run.running = False
                if _is_cancelled():
                    # It took the cancellation for something else, or failed while it ended.
                    self.failed(run.task, error, about=run.about)
                    return
                seconds = self._note(run, error)
                del error  # Its traceback holds this frame.
                await self._sleep(seconds)
        finally:
            self._failing.pop(run, None)

    async def _once(self, run: _Run, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except GeneratorExit:
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            self._count(run.task)
            self._log(run.task, run.about, error, "does not restart", traceback=True)

    def _note(self, run: _Run, error: BaseException) -> float:
        """Take note of a failed run. Returns the seconds until the next."""
        if self._clock() - run.started >= GOOD_RUN_SECONDS:
            run.failures = 0
        run.failures += 1
        run.error = describe(error)
        self._failing[run] = None
        longest = min(
            FIRST_BACKOFF_SECONDS * 2.0 ** min(run.failures - 1, 30), LONGEST_BACKOFF_SECONDS
        )
        seconds = longest * self._rng.uniform(0.5, 1.0)
        self._count(run.task)
        then = f"restarts in {seconds:.1f} s"
        if run.failures > 1:
            then += f", failure {run.failures} in a row"
        self._log(run.task, run.about, error, then, traceback=run.failures == 1)
        return seconds

    def _count(self, task: str) -> None:
        if self._on_failure is not None:
            try:
                self._on_failure(task)
            except Exception as error:
                self._limit.log(
                    log, logging.ERROR, "counting", "a failure was not counted", exc_info=error
                )

    def _log(
        self, task: str, about: str, error: BaseException, then: str, *, traceback: bool
    ) -> None:
        # The key has no pod in it: one fault of a thousand tasks is one line in a while.
        self._limit.log(
            log,
            logging.ERROR,
            (task, type(error).__name__),
            "task %s%s failed, %s: %s",
            task,
            _of(about),
            then,
            describe(error),
            exc_info=error if traceback else None,
        )


async def cancel(tasks: Collection["asyncio.Task[Any]"], seconds: float = STOP_SECONDS) -> None:
    """Cancel tasks, and wait until they have ended, up to a number of seconds."""
    pending = {task for task in tasks if not task.done()} - {asyncio.current_task()}
    for task in pending:
        task.cancel()
    if pending:
        _, pending = await asyncio.wait(pending, timeout=seconds)
    if pending:
        names = sorted({task.get_name() for task in pending})
        log.error("%d tasks did not end within %g s: %s", len(pending), seconds, ", ".join(names))


async def stop_part(
    name: str, stop: Coroutine[Any, Any, None], seconds: float = STOP_SECONDS
) -> bool:
    """Stop one part of the process, whatever happens there. Returns whether it stopped in time.

    A failure is logged. When the time is up the part is cancelled, and abandoned if it does not
    end then.
    """
    task = asyncio.create_task(_outcome(stop), name=f"stop-{name}")
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        log.error("%s did not stop within %g s", name, seconds)
        await cancel({task}, _ABANDON_SECONDS)
        return False
    error = task.result()
    if error is not None:
        log.error("%s failed to stop: %s", name, describe(error), exc_info=error)
    return error is None


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Run ``work`` until it ends, or cancel it when ``event`` is set. Returns whether it ended.

    Raises:
        BaseException: Whatever ``work`` raised.
    """
    working = asyncio.create_task(_outcome(work))
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            return False
        error = working.result()
        if error is not None:
            raise error
        return True
    finally:
        await cancel({working, waiting})


def describe(error: BaseException) -> str:
    """Return an error in one line: its type, and its text if it has one."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "(it has no text)"
    name = type(error).__name__
    return f"{name}: {text[:300]}" if text else name


async def _outcome(work: Awaitable[None]) -> BaseException | None:
    """Return what ``work`` raised. A task must not raise ``SystemExit``: it ends the loop."""
    try:
        await work
    except GeneratorExit:
        raise
    except asyncio.CancelledError as error:
        if _is_cancelled():
            raise
        return error
    except BaseException as error:
        return error
    return None


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _of(about: str) -> str:
    return f" of {about}" if about else ""
