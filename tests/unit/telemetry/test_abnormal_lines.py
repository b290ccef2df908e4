"""One log line for each abnormal request: what it says, how it is quoted, how many there are."""

import json
import logging
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_router.telemetry.abnormal_lines import REPORT_SECONDS, AbnormalLines, fields_of
from lora_router.telemetry.decisions import Decision, DecisionLog
from lora_router.telemetry.logs import JsonFormatter, TextFormatter

LOGGER = "lora_router.requests"


class Site:
    """A log of decisions whose abnormal requests have lines, and a clock."""

    def __init__(self, caplog: pytest.LogCaptureFixture, per_second: int = 10) -> None:
        caplog.set_level(logging.INFO, LOGGER)
        self._caplog = caplog
        self.now = 100.0
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.decisions = DecisionLog(
            10, slow_seconds=5.0, now=lambda: self.now, rng=random.Random(1)
        )
        AbnormalLines(
            self.decisions,
            per_second,
            lambda seconds, call: self.later.append((seconds, call)),
            lambda: self.now,
        )

    def request(
        self,
        *,
        request_id: str = "req-1",
        model: str = "sql-lora",
        takes: float = 0.1,
        status: int = 200,
        **others: object,
    ) -> Decision:
        """Record a request from its headers to its end."""
        decision = self.decisions.begin(request_id, "/v1/completions")
        decision.model, decision.algorithm = model, "lora-placement"
        decision.outcome, decision.reason = "routed", "slot"
        decision.pod, decision.endpoint = "pod-1", "10.0.0.1:8000"
        decision.decided_at = self.now
        self.decisions.decided(decision)
        self.now += takes
        decision.answered_at, decision.status = self.now, status
        for name, value in others.items():
            setattr(decision, name, value)
        self.decisions.ended(decision)
        return decision

    @property
    def records(self) -> list[logging.LogRecord]:
        return [record for record in self._caplog.records if record.name == LOGGER]

    @property
    def lines(self) -> list[str]:
        """The lines as text, from the level on."""
        lines = [TextFormatter("").format(record) for record in self.records]
        return [re.sub(r"^\S+ \S+ ", "", line) for line in lines]

    @property
    def objects(self) -> list[dict[str, object]]:
        return [json.loads(JsonFormatter().format(record)) for record in self.records]


def test_an_ordinary_request_has_no_line(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(caplog)

    site.request()
    site.request(status=404)

    assert site.lines == []


def test_a_line_says_what_was_abnormal_and_what_became_of_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site(caplog)

    site.request(
        takes=6.5,
        status=503,
        adapter="sql-lora",
        base_model="llama",
        held_for="no-free-slot",
        held_seconds=6.25,
        retried_on="pod-2",
        details="upstream_reset",
    )

    assert site.lines == [
        "WARNING lora_router.requests: request failed,slow,retried,held request_id=req-1 "
        "path=/v1/completions model=sql-lora adapter=sql-lora base_model=llama "
        "algorithm=lora-placement outcome=routed reason=slot pod=pod-1 endpoint=10.0.0.1:8000 "
        "retried_on=pod-2 held_for=no-free-slot status=503 details=upstream_reset "
        "held_seconds=6.25 first_byte_seconds=6.5 seconds=6.5"
    ]


def test_json_has_the_same_fields_as_keys(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(caplog)

    site.request(held_for="no-free-slot", held_seconds=0.05)

    (line,) = site.objects
    assert line.pop("time")
    assert line == {
        "level": "info",
        "logger": LOGGER,
        "message": "request held",
        "request_id": "req-1",
        "path": "/v1/completions",
        "model": "sql-lora",
        "algorithm": "lora-placement",
        "outcome": "routed",
        "reason": "slot",
        "pod": "pod-1",
        "endpoint": "10.0.0.1:8000",
        "held_for": "no-free-slot",
        "status": 200,
        "held_seconds": 0.05,
        "first_byte_seconds": 0.1,
        "seconds": 0.1,
    }


@pytest.mark.parametrize(
    ("changes", "message", "level"),
    [
        ({"status": 500}, "request failed", "WARNING"),
        ({"unanswered": True, "answered_at": 0.0, "status": 0}, "request unanswered", "INFO"),
        ({"takes": 5.1}, "request slow", "WARNING"),
        ({"outcome": "refused", "status": 429}, "request refused", "INFO"),
        ({"outcome": "cancelled", "answered_at": 0.0, "status": 0}, "request cancelled", "INFO"),
        ({"retried_on": "pod-2"}, "request retried", "INFO"),
        ({"held_for": "no-free-slot"}, "request held", "INFO"),
    ],
)
def test_failed_and_slow_requests_are_warnings(
    changes: dict[str, object], message: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(caplog)

    site.request(**changes)  # type: ignore[arg-type]

    (record,) = site.records
    assert (record.getMessage(), record.levelname) == (message, level)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a b", '"a b"'),
        ("x reason=slot", '"x reason=slot"'),
        ("a=b", '"a=b"'),
        ('"', r'"\""'),
        ("back\\slash", r'"back\\slash"'),
        ("x\n2026-11-28 INFO forged", r'"x\n2026-11-28 INFO forged"'),
        ("\r", r'"\r"'),
        ("\x1b[2J", r'"\u001b[2J"'),
        ("\x9b2J", r'"\u009b2J"'),
        ("\x7f", r'"\u007f"'),
        ("\0", r'"\u0000"'),
        ("\u2028\u202e", r'"\u2028\u202e"'),
        ("\ud800", r'"\ud800"'),
        ("naïve", r'"na\u00efve"'),
        ("😀", r'"\ud83d\ude00"'),
        ("org/llama-3.1:8b@v1,x", "org/llama-3.1:8b@v1,x"),
    ],
)
def test_no_value_can_begin_a_line_or_add_a_field(
    value: str, written: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(caplog)

    site.request(model=value, request_id=value, status=500)

    (line,) = site.lines
    assert f" request_id={written} path=" in line
    assert f" model={written} algorithm=" in line
    assert line.isprintable()
    assert line.isascii()


def test_in_json_nothing_reaches_a_terminal_either_and_the_value_can_be_read_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site(caplog)
    value = "\n\x1b\x7f\x9b\u2028\u202e\ud800 naïve 😀"

    site.request(model=value, status=500)

    (record,) = site.records
    line = JsonFormatter().format(record)
    assert line.isprintable()
    assert line.encode()
    assert json.loads(line)["model"] == value
    assert "naïve 😀" in line


def test_a_reason_of_a_plug_in_that_is_no_text_breaks_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site(caplog)

    site.request(reason=(1, 2), status=500)

    assert ' reason="(1, 2)" ' in site.lines[0]
    assert site.objects[0]["reason"] == [1, 2]


def test_more_lines_than_the_limit_are_counted_and_a_line_says_how_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site(caplog, per_second=2)

    for _ in range(1000):
        site.request(takes=0.0, outcome="refused", status=429)
    site.request(takes=0.0, outcome="cancelled")

    assert len(site.lines) == 2
    ((seconds, report),) = site.later
    assert seconds == REPORT_SECONDS
    report()
    assert site.lines[2:] == [
        "INFO    lora_router.requests: lines suppressed by log_abnormal_per_second: 999 "
        "refused=998 cancelled=1"
    ]
    assert documented(site.lines[2])


def test_after_a_second_there_are_lines_again_and_after_a_report_a_new_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site(caplog, per_second=1)
    site.request(takes=0.0, status=500)
    site.request(takes=0.0, status=500)
    site.now += 1.0

    site.request(takes=0.0, status=500)
    assert len(site.lines) == 2
    site.later.pop()[1]()
    assert site.lines[2].startswith("WARNING lora_router.requests: lines suppressed")
    site.request(takes=0.0, status=500)

    assert len(site.later) == 1


def test_a_flood_of_refused_requests_hides_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(caplog, per_second=2)

    for _ in range(100):
        site.request(takes=0.0, outcome="refused", status=429)
    site.request(takes=0.0, status=500)

    assert [record.levelname for record in site.records] == ["INFO", "INFO", "WARNING"]


def test_lines_that_the_level_leaves_out_are_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(caplog, per_second=1)
    caplog.set_level(logging.WARNING, LOGGER)

    for _ in range(100):
        site.request(outcome="refused", status=429)

    assert site.lines == []
    assert site.later == []


def documented(line: str) -> bool:
    """Whether the documentation shows this line, at some time of the day."""
    page = (Path(__file__).parents[3] / "docs" / "logs.md").read_text()
    return line in re.sub(r"^ *2026-11-28 [\d:,]+ ", "", page, flags=re.MULTILINE).splitlines()


def test_the_lines_in_the_documentation_are_real(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(caplog)
    site.request(
        takes=6.5,
        status=503,
        adapter="sql-lora",
        base_model="llama",
        held_for="no-free-slot",
        held_seconds=6.25,
        retried_on="pod-2",
        details="upstream_reset",
    )
    site.request(
        request_id="x\n2026 forged=1",
        takes=0.0,
        outcome="refused",
        reason="too-many-held",
        pod="",
        endpoint="",
        answered_at=0.0,
        status=429,
    )
    site.request(held_for="no-free-slot", held_seconds=0.05)
    lines, held = site.lines, site.objects[2]
    page = (Path(__file__).parents[3] / "docs" / "logs.md").read_text()
    (shown,) = (line for line in page.splitlines() if line.startswith("{"))

    assert documented(lines[0])
    assert documented(lines[1])
    assert json.loads(shown) == {**held, "time": "2026-11-28T16:00:00.250+00:00"}


def test_every_field_is_documented(caplog: pytest.LogCaptureFixture) -> None:
    page = (Path(__file__).parents[3] / "docs" / "logs.md").read_text()
    decision = Site(caplog).request(
        status=500, adapter="x", base_model="x", details="x", retried_on="x", held_for="x"
    )

    fields = fields_of(decision)

    for name in fields:
        assert re.search(rf"^\| .*`{name}`.* \|", page, re.MULTILINE), name
