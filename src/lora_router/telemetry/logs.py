"""Configures logging: lines for people (``text``) or for machines (``json``).

A record may have ``fields`` (``extra={"fields": {…}}``), values by name. In text they follow the
message as ``name=value``; in JSON they are keys of the object.
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Literal

from lora_router.telemetry.excerpts import beginning, both_ends, fitting
from lora_router.telemetry.log_writer import MAX_LINE_CHARACTERS, LogWriter
from lora_router.telemetry.repeated_errors import RepeatedErrors

_HALF_LINE = MAX_LINE_CHARACTERS // 2 - 100
"""Characters of a message, and of its traceback, that fit together into what is written."""
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
_BARE = re.compile(r"[!#-<>-\[\]-~]+")
"""Values that are written without quotes: printable ASCII but space, ``"``, ``=`` and ``\\``."""
_INVISIBLE = re.compile(
    "[\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""What JSON allows in a string, and what moves a terminal's cursor, turns the order of what is
shown, is not shown, ends a line for some readers, or is no text at all."""


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\u{code:04x}" if code <= 0xFFFF else json.dumps(found[0])[1:-1]


def quoted(value: object) -> str:
    """Return a value of a field as text. It ends where it seems to end, whoever chose it.

    Values that are not plain are JSON strings in ASCII.
    """
    text = value if isinstance(value, str) else str(value)
    if _BARE.fullmatch(text):
        return text
    return _INVISIBLE.sub(_escaped, json.dumps(text))


class TextFormatter(logging.Formatter):
    """A message and its fields on a line, and the error on lines of its own."""

    def __init__(self, process: str) -> None:
        """Begin the messages with the name of the ``process``, if it is not empty."""
        who = f"{process}: " if process else ""
        super().__init__(f"%(asctime)s %(levelname)-7s {who}%(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's name
        """Return the record's line, without an error."""
        line = super().formatMessage(record)
        if fields := getattr(record, "fields", None):
            values = (f"{name}={quoted(value)}" for name, value in fields.items())
            line = " ".join((line, *values))
        return beginning(line, _HALF_LINE) if record.exc_info else line

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 -- logging's name
        """Return a traceback. Of a long one, the middle is left out."""
        return both_ends(super().formatException(ei), _HALF_LINE)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ``time``, ``level``, ``logger``, ``message``, fields, ``error``.

    Long values are cut, and not the line, which would be no JSON any more.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if _process:
            line["process"] = _process
        own = {*line, "error"} if record.exc_info else set(line)
        for name, value in (getattr(record, "fields", None) or {}).items():
            line[f"{name}_" if name in own else name] = value
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return fitting(line, _json, MAX_LINE_CHARACTERS, ends=("error",))


def _json(line: Mapping[str, object]) -> str:
    """Return a line as JSON. Numbers that JSON does not have are strings."""
    encode = partial(json.dumps, ensure_ascii=False, default=str)
    try:
        text = encode(line, allow_nan=False)
    except ValueError:
        text = encode(json.loads(encode(line), parse_constant=str))
    return _INVISIBLE.sub(_escaped, text)


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
    _writer.addFilter(RepeatedErrors())
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
        _writer.setFormatter(TextFormatter(_process))


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
