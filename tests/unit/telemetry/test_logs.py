"""Log lines: format, levels, and that an unread log blocks nothing."""

import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from lora_router.log_limit import LogLimit
from lora_router.telemetry import log_writer
from lora_router.telemetry.log_writer import LogWriter
from lora_router.telemetry.logs import configure_logging, dropped_lines
from lora_router.telemetry.repeated_errors import BURST, RepeatedErrors


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("lora_router")
    handlers, level, our_level = list(root.handlers), root.level, ours.level
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)
    logging.captureWarnings(capture=False)
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks


def flushed() -> None:
    """Wait until the thread has written everything."""
    logging.getLogger().handlers[0].flush()


def fail(number: int) -> None:
    raise ValueError(f"request {number}")


def test_a_fault_that_each_request_meets_does_not_fill_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("info", "text")
    log = logging.getLogger("lora_router.x")
    for number in range(1000):
        try:
            fail(number)
        except ValueError:
            log.exception("request %d failed", number)
    try:
        int("another fault")
    except ValueError:
        log.exception("request failed")
    flushed()

    err = capsys.readouterr().err
    assert err.count("Traceback") == BURST + 1
    assert "another fault" in err


def test_the_next_traceback_says_how_many_were_left_out() -> None:
    now = 0.0
    errors = RepeatedErrors(LogLimit(10.0, burst=1, clock=lambda: now))

    def written(number: int) -> str | None:
        try:
            fail(number)
        except ValueError:
            record = logging.LogRecord("x", 40, "x.py", 1, "%d%%", (number,), sys.exc_info())
            return record.getMessage() if errors.filter(record) else None
        return "nothing failed"

    assert [written(number) for number in range(3)] == ["0%", None, None]
    now = 10.0
    assert written(3) == "3% (2 similar lines suppressed)"
    assert errors.filter(logging.LogRecord("x", 40, "x.py", 1, "no traceback", (), None))


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "text")

    logging.getLogger("lora_router.x").info("pod %s is gone", "a")
    logging.getLogger("lora_router.x").debug("not shown")
    flushed()

    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("INFO    lora_router.x: pod a is gone\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("level", "ours", "theirs"),
    [
        ("debug", ["debug", "info", "warning", "error"], ["warning", "error"]),
        ("info", ["info", "warning", "error"], ["warning", "error"]),
        ("error", ["error"], ["error"]),
    ],
)
def test_the_level_is_that_of_our_lines_others_write_warnings_at_most(
    level: str, ours: list[str], theirs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(level, "json")

    for name in ("lora_router.x", "aiohttp.access", "asyncio", "hpack"):
        for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger(name).log(number, "a line")
    flushed()

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    for name in ("lora_router.x", "aiohttp.access", "asyncio", "hpack"):
        seen = [line["level"] for line in lines if line["logger"] == name]
        assert seen == (ours if name == "lora_router.x" else theirs)


def test_what_python_would_print_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")

    class Broken:
        def __del__(self) -> None:
            raise ZeroDivisionError

    Broken()
    thread = threading.Thread(target=lambda: 1 / 0, name="broken")
    thread.start()
    thread.join()
    warnings.warn("old", stacklevel=1)
    flushed()

    messages = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert any("unraisable exception: " in message for message in messages)
    assert "uncaught exception in thread broken" in messages
    assert any("UserWarning: old" in message for message in messages)


def test_json_is_one_object_a_line_with_the_error_in_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("debug", "json")
    try:
        raise KeyError("gone")
    except KeyError:
        logging.getLogger("lora_router.x").exception("it broke: %s", "ä")
    flushed()

    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert record["level"] == "error"
    assert record["logger"] == "lora_router.x"
    assert record["message"] == "it broke: ä"
    assert "KeyError: 'gone'" in record["error"]
    assert record["time"].endswith("+00:00")


def json_lines(err: str) -> list[dict[str, object]]:
    """Return lines that are JSON in the strict sense."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert all(len(line) <= log_writer.MAX_LINE_CHARACTERS for line in err.splitlines())
    return [json.loads(line, parse_constant=refuse) for line in err.splitlines()]


@pytest.mark.parametrize("character", ["x", '"', "\x01", "\U000e0041"])
def test_a_long_json_line_is_cut_and_stays_json(
    character: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", "json")
    log = logging.getLogger("lora_router.x")
    many = {f"field-{number}": character * 1000 for number in range(1000)}

    log.info("begins %s", character * 20_000)
    log.info("a field", extra={"fields": {"model": character * 20_000, "status": 200}})
    log.info("a nested field", extra={"fields": {"pods": [character * 1000] * 50, "status": 200}})
    log.info("many fields", extra={"fields": many})
    flushed()

    first, second, third, fourth = json_lines(capsys.readouterr().err)
    assert str(first["message"]).startswith("begins ")
    assert str(first["message"]).endswith("… (20007 characters)")
    assert (second["message"], second["status"]) == ("a field", 200)
    assert (third["message"], third["status"]) == ("a nested field", 200)
    assert fourth["message"] == "many fields"


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_long_traceback_keeps_its_end(
    style: Literal["text", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", style)
    try:
        raise KeyError("x" * 30_000 + " the end")
    except KeyError:
        logging.getLogger("lora_router.x").exception("it broke")
    flushed()

    err = capsys.readouterr().err
    assert len(err) <= log_writer.MAX_LINE_CHARACTERS + 1
    for words in ("it broke", "Traceback", "KeyError: 'xxx", "xxx the end'"):
        assert words in err


def test_json_has_no_constants_that_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")

    fields = {"a": float("nan"), "b": {"c": [float("-inf")]}, "d": 1.5}
    logging.getLogger("lora_router.x").info("numbers", extra={"fields": fields})
    flushed()

    [line] = json_lines(capsys.readouterr().err)
    assert (line["a"], line["b"], line["d"]) == ("NaN", {"c": ["-Infinity"]}, 1.5)


def test_a_field_does_not_replace_what_the_line_itself_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("info", "json")

    fields = {"time": "forged", "level": "forged", "error": "ours"}
    logging.getLogger("lora_router.x").info("ok", extra={"fields": fields})
    flushed()

    [line] = json_lines(capsys.readouterr().err)
    assert line["level"] == "info"
    assert str(line["time"]).endswith("+00:00")
    assert (line["time_"], line["level_"], line["error"]) == ("forged", "forged", "ours")


@pytest.mark.parametrize(
    "character", ["\x7f", "\x85", "\xad", "\u061c", "\u200b", "\u202e", "\ufeff", "\U000e0041"]
)
def test_what_is_not_seen_is_escaped(character: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")

    logging.getLogger("lora_router.x").info("a%sb", character)
    flushed()

    err = capsys.readouterr().err
    assert character not in err
    assert json_lines(err)[0]["message"] == f"a{character}b"


def test_a_line_that_cannot_be_formatted_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")

    logging.getLogger("lora_router.x").info("%d pods", "many")
    flushed()

    [line] = json_lines(capsys.readouterr().err)
    assert line["message"] == "cannot format a log record: TypeError: '%d pods'"


class Pipe:
    """A pipe as standard error, and a logger that writes to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(log_writer, "MAX_QUEUED_BYTES", 10_000)
        monkeypatch.setattr(log_writer, "FLUSH_SECONDS", 0.2)
        self.reading, writing = os.pipe()
        self.stream = os.fdopen(writing, "w")
        self.writer = LogWriter(self.stream)
        self.writer.setFormatter(logging.Formatter("%(message)s"))
        self.log = logging.Logger("pipe")
        self.log.addHandler(self.writer)

    def close(self) -> None:
        self.writer.flush()
        self.writer.close()
        self.stream.close()


def test_a_pipe_that_nobody_reads_blocks_nobody_and_lines_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = Pipe(monkeypatch)
    for number in range(2000):
        pipe.log.error("line %d %s", number, "x" * 100)
    pipe.writer.flush()  # Gives up in time.
    dropped = pipe.writer.dropped_lines
    assert 0 < dropped < 2000

    # Once it is read, what was queued comes, in order, and lines say how many are missing.
    received: list[bytes] = []

    def read() -> None:
        with os.fdopen(pipe.reading, "rb") as file:
            received.extend(file)

    reader = threading.Thread(target=read)
    reader.start()
    pipe.close()
    reader.join(10)
    numbers = [int(line.split()[1]) for line in received if line.startswith(b"line")]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + dropped == 2000
    notes = [line.split() for line in received if b"log lines dropped: standard error" in line]
    assert sum(int(words[0]) for words in notes) == dropped


def test_a_reader_that_has_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe(monkeypatch)
    os.close(pipe.reading)

    pipe.log.error("a line")
    pipe.log.error("another")
    pipe.close()

    assert pipe.writer.dropped_lines == 2


def test_a_process_without_a_standard_error_is_no_error() -> None:
    writer = LogWriter(None)  # type: ignore[arg-type]  # As Python has it after `2>&-`.
    log = logging.Logger("none")
    log.addHandler(writer)

    log.error("a line")
    writer.flush()

    assert writer.dropped_lines == 1


def test_a_line_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe(monkeypatch)
    pipe.log.error("x" * 20_000)
    pipe.close()

    with os.fdopen(pipe.reading, "rb") as file:
        assert file.read() == b"x" * 16384 + "… (20000 characters)\n".encode()


def test_a_line_that_cannot_be_formatted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe(monkeypatch)
    pipe.log.error("%d pods", "many")
    pipe.close()

    with os.fdopen(pipe.reading, "rb") as file:
        assert b"cannot format a log record: TypeError: '%d pods'" in file.read()


SCRIPT = """
import logging, sys, time
from lora_router.telemetry.logs import configure_logging, dropped_lines
configure_logging("info", "text")
log = logging.getLogger("lora_router")
started = time.monotonic()
for number in range(40_000):
    log.info("line %d %s", number, "x" * 200)
print(time.monotonic() - started, dropped_lines(), flush=True)
"""


@pytest.mark.slow
def test_a_process_whose_standard_error_is_not_read_goes_on_and_ends() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        seconds, dropped = process.stdout.readline().split()
        assert process.wait(60) == 0  # Nobody has read standard error yet.

        assert int(dropped) > 10_000
        assert float(seconds) < 30


@pytest.mark.slow
def test_what_was_logged_just_before_the_end_is_written(tmp_path: Path) -> None:
    script = SCRIPT.replace("40_000", "1000")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, timeout=60, cwd=tmp_path
    )

    assert len(done.stderr.splitlines()) == 1000
    assert dropped_lines() == 0


def test_a_line_that_cannot_be_made_at_all_is_dropped_and_the_caller_goes_on() -> None:
    class Broken:
        def __str__(self) -> str:
            raise MemoryError

        __repr__ = __str__

    writer = LogWriter(None)  # type: ignore[arg-type]
    log = logging.Logger("broken")
    log.addHandler(writer)

    log.error(Broken())

    assert writer.dropped_lines == 1


def run_with_a_full_pipe(script: str) -> int:
    """Run a script whose standard error nobody reads. Return its exit status."""
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) as process:
        return process.wait(60)


FILL = """
import logging, sys
from lora_router.telemetry.logs import configure_logging, say
configure_logging("info", "text")
for number in range(2000):
    logging.getLogger("lora_router").info("line %d %s", number, "x" * 200)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["1 / 0", "say('lora-router: no pods'); sys.exit(1)"])
def test_a_process_that_crashes_ends_although_nobody_reads_why(end: str) -> None:
    assert run_with_a_full_pipe(FILL + end) == 1


@pytest.mark.slow
def test_a_crash_is_logged_like_everything_else() -> None:
    script = FILL.replace("2000", "1").replace('"text"', '"json"') + "\n1 / 0"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)

    last = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == 1
    assert (last["level"], last["message"]) == ("critical", "uncaught exception")
    assert "ZeroDivisionError" in last["error"]


@pytest.mark.slow
def test_last_words_are_written_as_they_are() -> None:
    script = FILL.replace("2000", "0") + "say('lora-router: one\\nlora-router: two'); sys.exit(2)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)

    assert done.stderr == b"lora-router: one\nlora-router: two\n"
    assert done.returncode == 2
