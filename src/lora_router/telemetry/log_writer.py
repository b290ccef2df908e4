"""Writes log lines in a thread, so that an unread standard error never blocks the event loop.

Lines wait in a bounded queue. When the queue is full, lines are dropped and counted, and a later
line reports how many. At exit, also after a crash, the thread has a bounded time to write the rest.
"""

import contextlib
import io
import logging
import os
import queue
import select
import threading
from typing import IO

MAX_QUEUED_BYTES = 4 * 1024 * 1024
"""Counted in characters: most lines are ASCII."""
MAX_LINE_CHARACTERS = 16 * 1024
_BATCH_CHARACTERS = 64 * 1024
FLUSH_SECONDS = 2.0
"""Time at exit to write queued lines."""


class LogWriter(logging.Handler):
    """A log handler that never blocks the thread that logs."""

    def __init__(self, stream: IO[str]) -> None:
        """Start the thread.

        Args:
            stream: Where to write. If it has a file descriptor, lines are written to that, since
                the lock of the stream's buffer must not be held while a write blocks.
        """
        super().__init__()
        self._stream = stream
        self._descriptor = _descriptor(stream)
        self._queue: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
        # Each counter is written by one thread only, and needs no lock.
        self._queued = 0
        self._written = 0
        self.dropped = 0
        """Lines that found the queue full."""
        self._reported = 0
        self._lost = 0
        threading.Thread(target=self._run, name="log-writer", daemon=True).start()

    @property
    def dropped_lines(self) -> int:
        """Number of lines dropped because the queue was full or the write failed."""
        return self.dropped + self._lost

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record. ``logging`` holds the handler's lock during the call."""
        if self._queued - self._written > MAX_QUEUED_BYTES:
            self.dropped += 1
            return
        try:
            self.write_line(self._line(record))
        except Exception:  # Out of memory, for example. To log must not fail.
            self.dropped += 1

    def write_line(self, line: str) -> None:
        """Queue a line as it is, or its beginning. What makes JSON keeps its lines shorter."""
        if len(line) > MAX_LINE_CHARACTERS:
            line = f"{line[:MAX_LINE_CHARACTERS]}… ({len(line)} characters)"
        self._queued += len(line) + 1
        self._queue.put(line + "\n")

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception as error:
            text = "cannot format a log record: %s: %r"
            return self._own(logging.ERROR, text, type(error).__name__, record.msg)

    def flush(self) -> None:
        """Wait until the queued lines have been written, at most ``FLUSH_SECONDS``."""
        if self._queued != self._written:
            written = threading.Event()
            self._queue.put(written)
            written.wait(FLUSH_SECONDS)

    def close(self) -> None:
        """End the thread after the queued lines. ``logging`` flushes handlers before it."""
        self._queue.put(None)
        super().close()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            batch: list[str] = []
            events: list[threading.Event] = []
            characters = 0
            while item is not None:
                if isinstance(item, str):
                    batch.append(item)
                    characters += len(item)
                else:
                    events.append(item)
                item = None
                if characters < _BATCH_CHARACTERS and not events:
                    with contextlib.suppress(queue.Empty):
                        item = self._queue.get_nowait()
            if batch and not self._write(batch):
                self._lost += len(batch)
            self._written += characters
            dropped = self.dropped
            if dropped != self._reported and self._write([self._note(dropped - self._reported)]):
                self._reported = dropped
            for event in events:
                event.set()

    def _note(self, lines: int) -> str:
        """Return the line that reports dropped lines."""
        text = "%d log lines dropped: standard error is not read fast enough"
        return self._own(logging.WARNING, text, lines) + "\n"

    def _own(self, level: int, text: str, *args: object) -> str:
        """Return a line of this module, in the format of the others."""
        return self.format(
            logging.LogRecord("lora_router.telemetry", level, __file__, 0, text, args, None)
        )

    def _write(self, lines: list[str]) -> bool:
        """Write lines; blocks until they are written. Returns whether the write succeeded."""
        try:
            text = "".join(lines)
            if self._descriptor is None:
                self._stream.write(text)
                self._stream.flush()
                return True
            data = memoryview(text.encode("utf-8", "replace"))
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:
                    # Another process that shares the terminal or pipe made it non-blocking.
                    select.select((), (self._descriptor,), ())
        except Exception:
            return False  # The reader is gone, the disk is full, or there is no standard error.
        return True


def _descriptor(stream: IO[str]) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError, io.UnsupportedOperation):
        return None
