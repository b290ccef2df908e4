"""The only way to run background tasks: scrapes, watches, files.

Rules:

- A failure never ends a task silently. It is counted (``lora_router_task_failures_total``), logged
  with its cause, and the task restarts with exponential backoff and jitter.
- Everything but a requested cancellation is a failure: an exception, a return, ``SystemExit``,
  ``KeyboardInterrupt``, and a ``CancelledError`` that nobody requested. asyncio itself would
  store an exception until the task is collected, and let ``SystemExit`` end the process.
- A task cannot be kept running when it has failed ``FAILURES_IN_A_ROW`` times and none of those
  runs lasted ``GOOD_RUN_SECONDS``. ``failing`` returns such tasks until a run lasts that long.
- Stopping is bounded in time. A part that fails to stop does not keep the others running.

A supervised task is one asyncio task. It has no timer and no metric of its own, so that thousands
of pods cost no more than their scrapes.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.tasks")

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 15.0
GOOD_RUN_SECONDS = 10.0
"""A task that has run this long is healthy: its next failure is the first in a row."""
FAILURES_IN_A_ROW = 5
STOP_SECONDS = 2.0
"""Time that a cancelled task has to end, and that a part has to stop."""
_LOG_SECONDS = 60.0
_ABANDON_SECONDS = 0.5


class TaskEndedError(Exception):
    """A task returned although it should run for ever."""


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
    """Runs tasks, restarts those that fail, and reports which cannot be kept running."""

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
            rng: Source of the jitter, so that tasks which failed together restart apart.
        """
        self._on_failure = on_failure
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._limit = LogLimit(_LOG_SECONDS, clock=clock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failing: dict[_Run, None] = {}
        """Tasks whose last run failed. ``failing`` removes those that are healthy again."""

    def keep(
        self, task: str, work: Callable[[], Awaitable[None]], *, about: str = ""
    ) -> asyncio.Task[None]:
        """Run ``work`` for ever: call it again, after a backoff, whenever it ends.

        Cancel the returned task to stop it.

        Args:
            task: What is counted and logged: one of a few names, not a pod's.
            work: Called for each run.
            about: What the task works on, such as a pod's name. Logged only.
        """
        return self._start(self._keep(_Run(task, about), work), task)

    def once(
        self, task: str, work: Coroutine[Any, Any, None], *, about: str = ""
    ) -> asyncio.Task[None]:
        """Run ``work`` once. A failure is counted and logged."""
        started = self._start(self._once(_Run(task, about), work), task)
        # A task that is cancelled before its first step would leave the coroutine unawaited.
        started.add_done_callback(lambda _: work.close())
        return started

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
                self._limit.log(
                    log,
                    logging.INFO,
                    (run.task, "recovered"),
                    "task %s%s recovered",
                    run.task,
                    _of(run.about),
                )
            elif run.failures >= FAILURES_IN_A_ROW:
                found.append(FailingTask(run.task, run.about, run.failures, run.error))
        return found

    def callback_failed(self, _loop: object, context: Mapping[str, Any]) -> None:
        """Count and log an exception that reached the event loop, in place of asyncio's handler.

        asyncio's own handler writes a traceback for each, without a limit.
        """
        error = context.get("exception")
        if not isinstance(error, BaseException):
            error = RuntimeError("no exception given")
        self.failed("callback", error, about=str(context.get("message", "the event loop")))

    async def stop(self) -> None:
        """Cancel every task that still runs, and wait up to ``STOP_SECONDS`` for them to end."""
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
                    error: BaseException = TaskEndedError("the task returned unexpectedly")
                except GeneratorExit:
                    raise  # The event loop is closed.
                except asyncio.CancelledError as cancelled:
                    if _is_cancelled():
                        raise
                    error = cancelled
                except BaseException as raised:
                    error = raised
                run.running = False
                if _is_cancelled():
                    # It swallowed the cancellation, or failed while it ended.
                    self.failed(run.task, error, about=run.about)
                    return
                seconds = self._note(run, error)
                del error  # Its traceback references this frame.
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
        """Record a failed run. Returns the backoff in seconds."""
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
                    log, logging.ERROR, "counting", "cannot count a task failure", exc_info=error
                )

    def _log(
        self, task: str, about: str, error: BaseException, then: str, *, traceback: bool
    ) -> None:
        # The key does not contain the pod: a fault that a thousand tasks have is logged once.
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
    """Cancel tasks and wait for them to end, at most ``seconds``."""
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
    """Stop one part of the process. Returns whether it stopped without a failure and in time.

    A failure is logged. After ``seconds`` the part is cancelled, and abandoned if it does not end.
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
    """Run ``work``, but cancel it when ``event`` is set. Returns whether ``work`` completed.

    Raises:
        BaseException: The exception that ``work`` raised.
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


async def every(seconds: float, due: asyncio.Event, look: Callable[[], Awaitable[None]]) -> None:
    """Call ``look`` every ``seconds``, and at once when ``due`` is set, for ever."""
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await due.wait()
        due.clear()
        await look()


def describe(error: BaseException) -> str:
    """Return an error in one line: its type, and its text if it has one."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "(it has no text)"
    name = type(error).__name__
    return f"{name}: {text[:300]}" if text else name


async def _outcome(work: Awaitable[None]) -> BaseException | None:
    """Return what ``work`` raised. A task that raises ``SystemExit`` would end the loop."""
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
