"""Configures logging: lines for people (``text``) or for machines (``json``)."""

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal

from lora_router.telemetry.log_writer import LogWriter


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ``time``, ``level``, ``logger``, ``message``, ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if _process:
            line["process"] = _process
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


_writer: LogWriter | None = None
_process = ""
"""What lines say of the process that wrote them, where several write to the same place."""


def configure_logging(level: str, style: Literal["text", "json"], process: str = "") -> None:
    """Write all logs of the process to standard error, through a thread.

    ``level`` applies to the loggers below ``lora_router``. Other libraries log warnings and errors
    only, since their debug output is many lines about connections and timers for each request.
    Each line names the ``process``, if it is not empty.
    """
    global _writer, _process  # noqa: PLW0603 -- logging belongs to the process, as its writer does
    _process = process
    _writer = LogWriter(sys.stderr)
    set_format(style)
    logging.getLogger().handlers[:] = [_writer]
    set_level(level)
    _log_what_python_prints()


def set_level(level: str) -> None:
    """Log this level and above from now on."""
    ours = logging.getLogger("lora_router")
    ours.setLevel(level.upper())
    logging.getLogger().setLevel(max(ours.level, logging.WARNING))


def set_format(style: Literal["text", "json"]) -> None:
    """Write lines in this format from now on."""
    if _writer is None:
        return
    if style == "json":
        _writer.setFormatter(JsonFormatter())
    else:
        who = f"{_process}: " if _process else ""
        _writer.setFormatter(
            logging.Formatter(f"%(asctime)s %(levelname)-7s {who}%(name)s: %(message)s")
        )


def say(text: str) -> None:
    """Write lines to standard error as they are: the last words of a process that ends.

    After ``configure_logging`` they go through the thread, since a reader that does not read must
    not keep the process from ending.
    """
    if _writer is None:
        print(text, file=sys.stderr)  # noqa: T201 -- nothing runs yet
        return
    for line in text.splitlines():
        _writer.write_line(line)
    _writer.flush()


def dropped_lines() -> int:
    """Return how many log lines were dropped."""
    return 0 if _writer is None else _writer.dropped_lines


def _log_what_python_prints() -> None:
    """Log warnings and uncaught errors, which Python would print: a print can block the loop."""
    log = logging.getLogger("lora_router")

    def unraisable(what: "sys.UnraisableHookArgs") -> None:
        error = what.exc_value
        log.error("unraisable exception: %s", what.err_msg or what.object, exc_info=error)

    def in_thread(what: threading.ExceptHookArgs) -> None:
        name = "?" if what.thread is None else what.thread.name
        log.error("uncaught exception in thread %s", name, exc_info=what.exc_value)

    def uncaught(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        log.critical("uncaught exception", exc_info=(kind, error, trace))

    sys.excepthook = uncaught
    logging.captureWarnings(capture=True)
    sys.unraisablehook = unraisable
    threading.excepthook = in_thread
