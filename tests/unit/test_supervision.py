"""Tasks that fail are counted, logged and restarted; stopping stops everything."""

import asyncio
import logging
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_router import supervision
from lora_router.supervision import FAILURES_IN_A_ROW, GOOD_RUN_SECONDS, Supervisor
from lora_router.threads import in_thread


class Harness:
    """A supervisor whose clock only moves when a task waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self.counted: list[str] = []
        self.supervisor = Supervisor(
            self.counted.append, clock=lambda: self.now, sleep=self.sleep, rng=random.Random(1)
        )

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Work:
    """Work that runs once for each outcome in a list, and then for ever."""

    def __init__(
        self, harness: Harness, *outcomes: BaseException | None, lasts: float = 0.0
    ) -> None:
        self.harness = harness
        self.outcomes = list(outcomes)
        self.lasts = lasts
        self.runs = 0
        self.settled = asyncio.Event()

    async def __call__(self) -> None:
        self.runs += 1
        self.harness.now += self.lasts
        if not self.outcomes:
            self.settled.set()
            await asyncio.Event().wait()
        outcome = self.outcomes.pop(0)
        if outcome is not None:
            raise outcome


async def settled(harness: Harness, *outcomes: BaseException | None, lasts: float = 0.0) -> Work:
    """Run a task through these outcomes."""
    work = Work(harness, *outcomes, lasts=lasts)
    harness.supervisor.keep("pods-file", work, about="pods.yaml")
    await asyncio.wait_for(work.settled.wait(), 60)
    return work


@pytest.fixture
def harness() -> Harness:
    return Harness()


async def test_a_task_that_fails_is_restarted_counted_and_logged_with_its_cause(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    work = await settled(harness, ValueError("month must be in 1..12"))

    assert work.runs == 2
    assert harness.counted == ["pods-file"]
    (record,) = caplog.records
    assert re.fullmatch(
        r"task pods-file of pods.yaml failed, restarts in 0\.\d s: "
        r"ValueError: month must be in 1\.\.12",
        record.getMessage(),
    )
    assert record.exc_info is not None  # The traceback.


@pytest.mark.parametrize(
    "failure",
    [
        KeyError("x"),
        SystemExit(3),
        KeyboardInterrupt(),
        MemoryError(),
        asyncio.CancelledError(),
        BaseException("odd"),
        None,
    ],
    ids=str,
)
async def test_whatever_ends_a_task_it_is_restarted(
    harness: Harness, failure: BaseException | None
) -> None:
    work = await settled(harness, failure)

    assert work.runs == 2
    assert harness.counted == ["pods-file"]


async def test_pauses_grow_with_each_failure_in_a_row_and_differ(harness: Harness) -> None:
    await settled(harness, *[ValueError() for _ in range(10)])

    longest = [0.5, 1, 2, 4, 8, 15, 15, 15, 15, 15]
    assert len(harness.pauses) == 10
    for pause, limit in zip(harness.pauses, longest, strict=True):
        assert limit / 2 <= pause <= limit
    assert len(set(harness.pauses)) == 10


async def test_a_good_run_makes_the_next_failure_the_first_in_a_row(harness: Harness) -> None:
    await settled(harness, *[ValueError() for _ in range(10)], lasts=GOOD_RUN_SECONDS)

    assert max(harness.pauses) <= 0.5
    assert harness.supervisor.failing() == []


async def test_a_failure_that_repeats_is_logged_rarely_and_counted_always(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    await settled(harness, *[ValueError("again") for _ in range(20)])

    # Backoff makes it some four minutes.
    assert len(harness.counted) == 20
    assert 2 <= len(caplog.records) <= 6
    assert [record.exc_info is not None for record in caplog.records][:2] == [True, False]
    assert "in a row" in caplog.messages[1]
    assert "similar lines suppressed" in caplog.messages[1]


@pytest.mark.slow
async def test_a_thousand_tasks_with_the_same_fault_write_one_line(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    works = [Work(harness, ValueError("same")) for _ in range(1000)]
    for number, work in enumerate(works):
        harness.supervisor.keep("scrape-metrics", work, about=f"pod-{number}")
    for work in works:
        await asyncio.wait_for(work.settled.wait(), 60)

    assert len(harness.counted) == 1000
    assert len([line for line in caplog.messages if "restarts in" in line]) <= 10


async def test_a_task_that_cannot_be_kept_running_is_named_until_it_runs_well(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await settled(harness, *[ValueError("bad") for _ in range(FAILURES_IN_A_ROW)])

    (failing,) = harness.supervisor.failing()
    assert str(failing) == "pods-file (pods.yaml): 5 failures in a row, last: ValueError: bad"

    harness.now += GOOD_RUN_SECONDS
    assert harness.supervisor.failing() == []
    assert caplog.messages[-1] == "task pods-file of pods.yaml recovered"


async def test_fewer_failures_in_a_row_are_no_reason_for_alarm(harness: Harness) -> None:
    await settled(harness, *[ValueError("bad") for _ in range(FAILURES_IN_A_ROW - 1)])

    assert harness.supervisor.failing() == []


async def test_a_task_that_was_stopped_fails_no_more(harness: Harness) -> None:
    await settled(harness, *[ValueError("bad") for _ in range(FAILURES_IN_A_ROW)])

    await harness.supervisor.stop()

    assert harness.supervisor.failing() == []


async def test_an_observer_that_fails_stops_no_task(harness: Harness) -> None:
    def broken(_task: str) -> None:
        raise RuntimeError("no registry")

    harness.supervisor = Supervisor(broken, clock=lambda: harness.now, sleep=harness.sleep)

    assert (await settled(harness, ValueError())).runs == 2


async def test_an_error_without_a_text_is_named_by_its_type(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    await settled(harness, OddError())

    assert caplog.messages[0].endswith("OddError: (it has no text)")


async def test_work_that_runs_once_is_counted_if_it_fails_and_is_not_restarted(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails() -> None:
        raise SystemExit(1)

    await harness.supervisor.once("late-answer", fails())

    assert harness.counted == ["late-answer"]
    assert caplog.messages == ["task late-answer failed, does not restart: SystemExit: 1"]


async def test_work_that_is_cancelled_before_it_starts_leaves_no_warning(
    harness: Harness, recwarn: pytest.WarningsRecorder
) -> None:
    async def never() -> None:
        raise AssertionError

    harness.supervisor.once("late-answer", never())
    await harness.supervisor.stop()

    assert not recwarn.list
    assert harness.counted == []


async def test_a_failure_that_a_task_survives_is_counted(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.supervisor.failed("pod-watch", KeyError("x"), about="namespace a")

    assert harness.counted == ["pod-watch"]
    assert caplog.messages == ["task pod-watch of namespace a failed, continues: KeyError: 'x'"]


async def test_exceptions_in_callbacks_are_counted_and_logged_rarely(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(harness.supervisor.callback_failed)

    for _ in range(100):
        loop.call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    loop.call_exception_handler({"message": "odd"})

    assert harness.counted == ["callback"] * 101
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("task callback of Exception in callback")
    assert "ZeroDivisionError" in caplog.messages[0]
    assert (
        caplog.messages[1]
        == "task callback of odd failed, continues: RuntimeError: no exception given"
    )


# Stopping


async def test_stopping_ends_all_tasks_those_that_wait_to_restart_included(
    harness: Harness,
) -> None:
    harness.supervisor = Supervisor()
    running, failed = Work(harness), Work(harness, ValueError())
    tasks = [harness.supervisor.keep("a", running), harness.supervisor.keep("b", failed)]
    await asyncio.wait_for(running.settled.wait(), 60)

    await harness.supervisor.stop()

    assert all(task.cancelled() for task in tasks)


async def test_a_task_that_swallows_its_cancellation_is_not_restarted(
    harness: Harness,
) -> None:
    runs = 0

    async def stubborn() -> None:
        nonlocal runs
        runs += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    task = harness.supervisor.keep("a", stubborn)
    await asyncio.sleep(0)
    await harness.supervisor.stop()

    assert task.done()
    assert runs == 1


async def test_a_task_that_does_not_end_is_left_behind_in_time(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    release = asyncio.Event()

    async def deaf() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    task = harness.supervisor.keep("deaf", deaf)
    await asyncio.sleep(0)
    await supervision.cancel({task}, 0.01)

    assert caplog.messages == ["1 tasks did not end within 0.01 s: deaf"]
    release.set()
    await asyncio.wait({task}, timeout=60)


@pytest.mark.parametrize("failure", [ValueError("x"), SystemExit(1), asyncio.CancelledError()])
async def test_a_part_that_fails_to_stop_is_logged(
    failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async def stop() -> None:
        raise failure

    assert not await supervision.stop_part("discovery", stop())
    assert caplog.messages[0].startswith("discovery failed to stop: ")


async def test_a_part_that_hangs_is_abandoned(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "_ABANDON_SECONDS", 0.01)
    release = asyncio.Event()

    async def stop() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    assert not await supervision.stop_part("admin", stop(), 0.01)
    assert caplog.messages[0] == "admin did not stop within 0.01 s"
    release.set()


async def test_work_goes_on_unless_an_event_comes() -> None:
    event, finished = asyncio.Event(), []

    async def work(then: Callable[[], None]) -> None:
        then()
        await asyncio.sleep(0.01)
        finished.append(True)

    assert await supervision.unless(event, work(lambda: None))
    assert finished == [True]
    assert not await supervision.unless(event, work(event.set))
    assert finished == [True]


@pytest.mark.parametrize("failure", [ValueError("x"), SystemExit(1), KeyboardInterrupt()])
async def test_what_the_work_raises_reaches_the_caller(failure: BaseException) -> None:
    async def work() -> None:
        raise failure

    with pytest.raises(type(failure)):
        await supervision.unless(asyncio.Event(), work())


# Threads


async def test_work_in_a_thread_returns_and_raises_as_it_does_elsewhere() -> None:
    assert await in_thread(lambda: 7, "seven") == 7
    with pytest.raises(SystemExit):
        await in_thread(lambda: exec("raise SystemExit"), "exit")
    with pytest.raises(RuntimeError, match="StopIteration"):
        await in_thread(lambda: next(iter(())), "next")


# The source


EXEMPT = {
    "supervision.py": "here they are made",
    "grpc_server/acceptor.py": "opens one connection, and ends; its failure is that connection's",
    "endpoint_discovery/grpcio_handler.py": "the call that makes it waits for it",
    "peering/addresses.py": "they end with the supervised task that waits for all of them",
    "peering/aio_link.py": "the link waits for both of its tasks",
    "peering/redis_channel.py": "the supervised task waits for both of its tasks",
    "simulator/driver.py": "the simulated server is no part of the router",
}


@pytest.mark.slow
def test_every_background_task_is_supervised() -> None:
    source = Path(supervision.__file__).parent
    bare = re.compile(r"create_task\(|ensure_future\(|\.run_in_executor\(|TaskGroup\(")

    found = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if bare.search(path.read_text())
    }

    # The demo runs processes and a load, and ends when one of them fails.
    assert {path for path in found if not path.startswith("demo/")} == set(EXEMPT)
