"""Measures the lag of the event loop, and logs what stalls it.

A timer of the loop beats. A thread watches the beat: when it is missing, the thread reads the stack
of the loop's thread, which shows the code that does not return. The thread needs nothing of the
loop, so that a loop that never continues is reported too.

The loop pays one timer callback per ``BEAT_SECONDS``.
"""

import asyncio
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType

from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.watchdog")

BEAT_SECONDS = 0.1
_AGAIN_SECONDS = 10.0
"""A stall that lasts is logged again after this time, with the stack of that moment."""
_LOG_SECONDS = 60.0
_LOG_BURST = 5
_LAG_SLOT_SECONDS = 10.0
_LAG_SLOTS = 6
_FRAMES = 12
"""Innermost calls of a stack that are logged."""
_FRAME_CHARACTERS = 160


class Watchdog:
    """Watches the event loop that runs in the thread that calls ``start``."""

    def __init__(
        self,
        stall_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
        read_stack: Callable[[int], str] | None = None,
    ) -> None:
        """Create a watchdog that does not run yet.

        Args:
            stall_seconds: A lag that is longer is a stall.
            clock: Returns seconds, monotonic.
            cpu_clock: Returns the CPU time of the process, in seconds.
            read_stack: Returns the stack of a thread as one line. Default: ``stack_of``.
        """
        self._stall_seconds = stall_seconds
        self._beat_seconds = min(BEAT_SECONDS, stall_seconds / 4)
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._read_stack = read_stack or stack_of
        self._limit = LogLimit(_LOG_SECONDS, burst=_LOG_BURST, clock=clock)
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        # Written by the loop's thread, read by others.
        self._loop_thread = threading.get_ident()
        self._beat_at = clock()
        self._cpu_at = cpu_clock()
        self._timer: asyncio.TimerHandle | None = None
        self._worst: deque[tuple[float, float]] = deque(maxlen=_LAG_SLOTS)
        """The largest lag in each slot of time, with the end of the slot."""
        self.stalls = 0
        """Lags so far that were longer than ``stall_seconds``."""
        self._last_stall = (0.0, 0.0)
        """Its seconds, and the CPU time used."""
        # Used by the watching thread only.
        self._stalls_seen = 0
        self._stalled = False
        self._logged = False
        """Whether the stall that lasts has been logged."""
        self._log_again_at = 0.0
        self._stack = ""

    def start(self) -> None:
        """Start to beat and to watch. Must be called in the loop's thread."""
        self._loop_thread = threading.get_ident()
        self._stopped.clear()
        self._beat_at, self._cpu_at = self._clock(), self._cpu_clock()
        self._schedule()
        thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # The limit of threads or memory is reached.
            log.error("stalls of the event loop are counted but not explained: %s", error)
            return
        self._thread = thread

    def stop(self) -> None:
        """Stop beating and watching."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def silence(self) -> float:
        """Seconds since the loop ran last. May be read in any thread; 0 before the start."""
        return max(0.0, self._clock() - self._beat_at) if self._timer is not None else 0.0

    @property
    def lag(self) -> float:
        """The largest lag within the last minute, in seconds; that of a stall now included."""
        now = self._clock()
        since = now - _LAG_SLOT_SECONDS * _LAG_SLOTS
        worst = max((lag for end, lag in self._worst if end > since), default=0.0)
        return max(worst, self.silence - self._beat_seconds)

    def beat(self) -> None:
        """Record that the loop runs. Its timer calls it."""
        now, cpu = self._clock(), self._cpu_clock()
        lag = now - self._beat_at - self._beat_seconds
        if not self._worst or now >= self._worst[-1][0]:
            self._worst.append((now + _LAG_SLOT_SECONDS, max(lag, 0.0)))
        elif lag > self._worst[-1][1]:
            self._worst[-1] = (self._worst[-1][0], lag)
        if lag > self._stall_seconds:
            self._last_stall = (lag, cpu - self._cpu_at)
            self.stalls += 1
        self._beat_at, self._cpu_at = now, cpu

    def look(self) -> None:
        """Look for the beat, and log a stall. The thread calls it several times per stall."""
        stalls, now = self.stalls, self._clock()
        lag = now - self._beat_at - self._beat_seconds
        if stalls != self._stalls_seen:  # One has ended.
            self._stalls_seen = stalls
            self._ended()
        if lag > self._stall_seconds:
            if not self._stalled or now >= self._log_again_at:
                self._stack = self._read_stack(self._loop_thread)
                self._logged = self._log(
                    "stalls: no progress for", lag, self._cpu_clock() - self._cpu_at
                )
                self._log_again_at = now + _AGAIN_SECONDS
            self._stalled = True
        elif lag > self._stall_seconds / 2:
            # It may end before the next look.
            self._stack = self._read_stack(self._loop_thread)

    def _ended(self) -> None:
        if not self._stalled:
            self._log("stalled for", *self._last_stall)
        elif self._logged:
            log.warning("event loop continues after a stall of %.1f s", self._last_stall[0])
        self._stalled = self._logged = False

    def _log(self, what: str, lag: float, cpu: float) -> bool:
        return self._limit.log(
            log,
            logging.WARNING,
            "stall",
            "event loop %s %.1f s (CPU time used: %.1f s); it was at: %s",
            what,
            lag,
            cpu,
            self._stack or "(unknown)",
        )

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._beat_seconds, self._beat)

    def _beat(self) -> None:
        self.beat()
        self._schedule()

    def _watch(self) -> None:
        while not self._stopped.wait(self._beat_seconds):
            try:
                self.look()
            except Exception as error:  # Out of memory, for example.
                self._limit.log(log, logging.ERROR, "watch", "watchdog: %s", type(error).__name__)


def stack_of(thread: int) -> str:
    """Return what a thread executes, as one line: the innermost call first.

    It contains files, lines and functions, but no values: those could be a client's.
    """
    frame = sys._current_frames().get(thread)
    calls: list[str] = []
    while frame is not None and len(calls) < _FRAMES:
        calls.append(_call(frame))
        frame = frame.f_back
    if frame is not None:
        calls.append("…")
    return " < ".join(calls) if calls else "(the thread has ended)"


def _call(frame: FrameType) -> str:
    code = frame.f_code
    file = code.co_filename
    for folder in ("/site-packages/", "/src/"):
        file = file.rpartition(folder)[2]
    return f"{file}:{frame.f_lineno} {code.co_qualname}"[-_FRAME_CHARACTERS:]
