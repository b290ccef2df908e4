"""How spans are sent: bounded, in a thread, and without harm if nobody takes them."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from contextlib import suppress

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from lora_router.log_limit import LogLimit
from lora_router.observation_assembly import make_traces
from lora_router.telemetry.decisions import DecisionLog
from lora_router.telemetry.trace_export import BoundedQueue, TraceExport, WatchedExporter
from lora_router.telemetry.trace_settings import TraceSettings

LOGGER = "lora_router.traces"
SPAN = ReadableSpan("route")


class Collector(SpanExporter):
    """Receives spans, when it may."""

    def __init__(self) -> None:
        self.result: SpanExportResult | Exception = SpanExportResult.SUCCESS
        self.spans: list[ReadableSpan] = []
        self.may_receive = threading.Event()
        self.may_receive.set()
        self.asked = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.may_receive.wait(60)
        if isinstance(self.result, Exception):
            raise self.result
        self.spans.extend(spans)
        return self.result


class Batches(SpanProcessor):
    """The SDK's queue, from which nothing is taken."""

    def __init__(self) -> None:
        self.queued: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.queued.append(span)


def request(decisions: DecisionLog) -> None:
    decision = decisions.begin("r", "/v1/completions")
    decision.outcome = "routed"
    decisions.decided(decision)
    decision.answered_at = decisions.now()
    decisions.ended(decision)


async def test_what_waits_is_sent_at_the_end() -> None:
    decisions, collector = DecisionLog(10), Collector()
    export = TraceExport(decisions, TraceSettings(), collector)

    for _ in range(700):
        request(decisions)
    await export.stop()

    assert len(collector.spans) == 700
    assert export.dropped == 0


@pytest.mark.slow
async def test_a_collector_that_hangs_costs_spans_and_nothing_else() -> None:
    decisions, collector = DecisionLog(10), Collector()
    export = TraceExport(decisions, TraceSettings(max_queued=600), collector)
    collector.may_receive.clear()

    for _ in range(600):
        request(decisions)
    assert collector.asked.wait(60)
    for _ in range(5000):
        request(decisions)

    assert decisions.count == 5600
    assert 5600 - 600 - 512 <= export.dropped <= 5000
    collector.may_receive.set()
    await export.stop()
    assert len(collector.spans) + export.dropped == 5600


def test_the_queue_is_bounded_and_spans_that_are_sent_make_room() -> None:
    batches, exporter = Batches(), WatchedExporter(Collector())
    queue = BoundedQueue(batches, exporter, 3)

    for _ in range(5):
        queue.on_end(SPAN)
    assert (len(batches.queued), queue.dropped) == (3, 2)
    exporter.export([SPAN, SPAN])
    for _ in range(5):
        queue.on_end(SPAN)

    assert (len(batches.queued), queue.dropped) == (5, 5)


def test_a_line_says_how_many_spans_were_dropped_at_a_limited_rate(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    collector = Collector()
    exporter = WatchedExporter(collector, LogLimit(60.0, clock=lambda: now))
    collector.result = SpanExportResult.FAILURE

    def lines() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.name == LOGGER]

    exporter.export([SPAN])
    collector.result = RuntimeError("broken")
    with pytest.raises(RuntimeError):
        exporter.export([SPAN, SPAN])
    exporter.dropped += 10
    assert len(lines()) == 1
    assert lines()[0].startswith("1 spans were dropped: ")

    now = 60.0
    collector.result = SpanExportResult.SUCCESS
    exporter.export([SPAN])

    assert len(lines()) == 2
    assert lines()[1].startswith("12 spans were dropped: ")


@pytest.mark.parametrize("answers", [True, False])
async def test_what_is_lost_at_the_end_is_reported(
    answers: bool, caplog: pytest.LogCaptureFixture
) -> None:
    decisions, collector = DecisionLog(10), Collector()
    export = TraceExport(decisions, TraceSettings(), collector)
    collector.result = SpanExportResult.FAILURE
    if not answers:
        collector.may_receive.clear()

    for _ in range(700):
        request(decisions)
    with suppress(TimeoutError):
        async with asyncio.timeout(60 if answers else 0.05):
            await export.stop()
    collector.may_receive.set()

    lines = [each.getMessage() for each in caplog.records if "were dropped" in each.getMessage()]
    assert sum(int(line.split()[0]) for line in lines) == 700


async def test_what_the_sdk_says_is_in_our_log_and_forges_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    export = TraceExport(DecisionLog(10), TraceSettings(), Collector())

    for _ in range(3):
        logging.getLogger("opentelemetry.exporter").error("failed: %s", "\n\x1b[2J" + "x" * 1000)
    await export.stop()

    (line,) = [each.getMessage() for each in caplog.records if each.name == LOGGER]
    assert line.startswith(r'OpenTelemetry: "failed: \n\u001b[2Jxxx')
    assert len(line) < 600


def test_traces_that_nobody_asks_for_cost_no_import() -> None:
    assert make_traces({}, DecisionLog(10)) is None


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "requests are not traced: OTEL_TRACES_EXPORTER='zipkin': must be otlp or none",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4096"},
            "requests are not traced: OTEL_BSP_MAX_EXPORT_BATCH_SIZE='4096': must be a number from "
            "1 to 2048",
        ),
    ],
)
def test_a_variable_that_cannot_be_used_stops_nothing_and_is_logged(
    environ: dict[str, str], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert make_traces(environ, DecisionLog(10)) is None
    assert line in caplog.text


def test_without_records_nothing_is_traced_and_a_line_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert make_traces({"OTEL_TRACES_EXPORTER": "otlp"}, None) is None
    assert "requests are not traced: decisions is 0" in caplog.text


def test_without_the_extra_nothing_is_traced_and_a_line_says_what_to_install(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lora_router.telemetry.trace_export", None)

    assert make_traces({"OTEL_TRACES_EXPORTER": "otlp"}, DecisionLog(10)) is None
    assert "pip install 'lora-router[otel]'" in caplog.text
