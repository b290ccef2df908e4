"""Stalls of the event loop: measured, counted, and logged with the code that causes them."""

import asyncio
import logging
import threading
import time

import pytest

from lora_router.watchdog import Watchdog, stack_of


class Loop:
    """A watchdog of a loop whose clock and stack the test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.cpu = 0.0
        self.runs = "idle"
        self.dog = Watchdog(
            0.5,
            clock=lambda: self.now,
            cpu_clock=lambda: self.cpu,
            read_stack=lambda _thread: self.runs,
        )

    def beat(self, seconds: float = 0.1) -> None:
        """Let the loop run again, so many seconds after it ran last."""
        self.now += seconds
        self.dog.beat()

    def stall(self, seconds: float, code: str) -> None:
        """Let some code keep the loop for so long, while the thread looks ten times a second."""
        before, self.runs = self.now, code
        while self.now - before < seconds - 0.05:
            self.now += 0.1
            self.cpu += 0.1
            self.dog.look()
        self.dog.beat()
        self.runs = "idle"
        self.now += 0.1
        self.dog.look()


def test_a_loop_that_runs_on_time_is_not_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    for _ in range(100):
        loop.beat()
        loop.dog.look()

    assert loop.dog.stalls == 0
    assert loop.dog.lag == pytest.approx(0, abs=1e-6)
    assert caplog.text == ""


def test_a_stall_is_logged_with_the_code_that_causes_it_and_with_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = Loop()
    loop.stall(2.1, "parse.py:7 parse")

    first, last = (record.getMessage() for record in caplog.records)
    assert first == (
        "event loop stalls: no progress for 0.6 s (CPU time used: 0.7 s); "
        "it was at: parse.py:7 parse"
    )
    assert last == "event loop continues after a stall of 2.0 s"
    assert loop.dog.stalls == 1


def test_a_stall_that_ends_between_two_looks_is_logged_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = Loop()
    loop.now, loop.runs = loop.now + 0.55, "parse.py:7 parse"
    loop.dog.look()
    loop.beat(0.15)
    loop.dog.look()

    assert caplog.messages == [
        "event loop stalled for 0.6 s (CPU time used: 0.0 s); it was at: parse.py:7 parse"
    ]


def test_a_stall_that_does_not_end_is_logged_again_and_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = Loop()
    loop.stall(35, "lock.py:1 wait")

    assert sum("event loop stalls" in message for message in caplog.messages) == 4


def test_lines_about_stalls_are_limited(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop()
    for _ in range(50):
        loop.stall(0.8, "parse.py:7 parse")

    assert loop.dog.stalls == 50
    assert len(caplog.messages) == 10  # Five stalls, and the end of each.


def test_the_lag_is_the_largest_within_a_minute_whoever_reads_it() -> None:
    loop = Loop()
    loop.beat(0.4)
    assert [round(loop.dog.lag, 3) for _ in range(2)] == [0.3, 0.3]
    for _ in range(400):
        loop.beat()
    assert round(loop.dog.lag, 3) == 0.3
    for _ in range(400):
        loop.beat()
    assert round(loop.dog.lag, 3) == 0


async def test_a_loop_that_does_not_continue_is_reported_by_the_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    dog = Watchdog(0.05)
    dog.start()
    try:
        for _ in range(4):  # On a busy machine, it can have stalled before.
            caplog.clear()
            block_the_loop_until_it_is_logged(caplog)
            assert dog.silence > 0.05
            if "block_the_loop_until_it_is_logged" in caplog.text:
                break
            await asyncio.sleep(0.2)
    finally:
        dog.stop()

    assert "test_watchdog.py" in caplog.text
    assert "block_the_loop_until_it_is_logged" in caplog.text


def block_the_loop_until_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    deadline = time.monotonic() + 60
    while "event loop stalls" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_watchdog_that_is_stopped_ends_its_thread_and_its_timer() -> None:
    before = set(threading.enumerate())
    dog = Watchdog(0.5)
    dog.start()
    (thread,) = {each for each in threading.enumerate() if each.name == "watchdog"} - before
    dog.stop()

    async with asyncio.timeout(60):
        while thread.is_alive():
            await asyncio.sleep(0.01)
    assert dog.silence == 0


async def test_without_a_thread_the_router_starts_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    dog = Watchdog(0.5)
    dog.start()
    dog.stop()

    assert "stalls of the event loop are counted but not explained: can't start" in caplog.text


def test_a_stack_names_code_and_no_values() -> None:
    def inner(secret: str, depth: int) -> str:
        return inner(secret, depth - 1) if depth else stack_of(threading.get_ident())

    text = inner("s3cret", 40)

    assert "test_watchdog.py" in text
    assert "inner" in text
    assert "s3cret" not in text
    assert text.count(" < ") == 12
    assert text.endswith("…")
    assert len(text) < 2500
    assert stack_of(-1) == "(the thread has ended)"
