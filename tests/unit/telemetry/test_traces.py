"""The spans of requests: whose children they are, whether there is one, and what they say."""

import random
from pathlib import Path

import pytest
from msgspec import structs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_ON,
    ParentBased,
    Sampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanKind
from opentelemetry.trace.status import StatusCode

from lora_router.telemetry.decisions import Decision, DecisionLog
from lora_router.telemetry.traces import Traces, attributes_of, read_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


class Site:
    """A traced log of decisions. Its clock begins at 100, which is 1000 by the time of day."""

    def __init__(self, sampler: Sampler = DEFAULT_ON) -> None:
        self.now = 100.0
        self.decisions = DecisionLog(
            10,
            slow_seconds=5.0,
            now=lambda: self.now,
            wall=lambda: 1000.0,
            rng=random.Random(1),
        )
        self._memory = InMemorySpanExporter()
        Traces(
            self.decisions,
            SimpleSpanProcessor(self._memory),
            sampler=sampler,
            resource=Resource({"service.name": "lora-router"}),
        )

    def request(self, traceparent: str = "", *, takes: float = 0.5, **more: object) -> Decision:
        """Record a request from its headers to its end."""
        decision = self.decisions.begin("req-1", "/v1/chat/completions")
        decision.traceparent = traceparent
        decision.asked_at = decision.decided_at = self.now
        decision.model, decision.outcome, decision.reason = "sql-lora", "routed", "slot"
        decision.pod, decision.endpoint = "pod-1", "10.0.0.1:8000"
        self.decisions.decided(decision)
        self.now += takes
        decision.answered_at, decision.status = self.now, 200
        for name, value in more.items():
            setattr(decision, name, value)
        self.now += 1.0
        self.decisions.ended(decision)
        return decision

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return tuple(self._memory.get_finished_spans())

    @property
    def span(self) -> ReadableSpan:
        (span,) = self.spans
        return span


def context(span: ReadableSpan) -> tuple[str, str, str]:
    """The trace, the span and the parent's span."""
    assert span.context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent else ""
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent


def test_a_span_is_the_child_of_the_request_and_lasts_as_long() -> None:
    site = Site()

    decision = site.request(SAMPLED)

    span = site.span
    trace, own, parent = context(span)
    assert (trace, parent) == (TRACE, SPAN)
    assert own != SPAN
    assert (span.name, span.kind) == ("route", SpanKind.SERVER)
    assert (span.start_time, span.end_time) == (1_000_000_000_000, 1_001_500_000_000)
    assert span.resource.attributes["service.name"] == "lora-router"
    assert decision.trace_id == TRACE, "exemplars learn the trace from the record"


def test_without_a_parent_a_trace_begins() -> None:
    site = Site()

    decisions = [site.request(), site.request()]

    first, second = site.spans
    assert first.parent is None
    assert context(first)[0] != context(second)[0]
    assert [each.trace_id for each in decisions] == [context(first)[0], context(second)[0]]


@pytest.mark.parametrize(
    ("sampler", "traceparent", "spans"),
    [
        (DEFAULT_ON, SAMPLED, 1),
        (DEFAULT_ON, NOT_SAMPLED, 0),
        (DEFAULT_ON, "", 1),
        (ParentBased(ALWAYS_OFF), SAMPLED, 1),
        (ParentBased(ALWAYS_OFF), "", 0),
        (ALWAYS_ON, NOT_SAMPLED, 1),
        (ALWAYS_OFF, SAMPLED, 0),
        (ParentBased(TraceIdRatioBased(0.0)), "", 0),
    ],
)
def test_the_sampler_decides(sampler: Sampler, traceparent: str, spans: int) -> None:
    site = Site(sampler)

    decision = site.request(traceparent)

    assert len(site.spans) == spans
    assert bool(decision.trace_id) == bool(spans)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        SAMPLED.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"{SAMPLED}-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-1",
        f" {SAMPLED}",
        f"{SAMPLED}\n",
        f"00-{TRACE}-{SPAN}-0\u0661",
        SAMPLED * 100,
    ],
)
def test_an_invalid_parent_is_none(text: str) -> None:
    site = Site()

    site.request(text)

    assert read_traceparent(text) is None
    assert site.span.parent is None


def test_a_later_version_of_the_header_may_have_more_parts() -> None:
    parent = read_traceparent(f"01-{TRACE}-{SPAN}-03-more")

    assert parent is not None
    assert (parent.trace_flags, parent.is_remote) == (1, True)


def test_attributes_are_the_fields_of_the_record() -> None:
    site = Site()

    site.request(
        size=120,
        stream=True,
        adapter="sql-lora",
        base_model="llama",
        algorithm="lora-placement",
        place="slot",
        decision_seconds=0.0001,
        prompt_tokens=7,
        completion_tokens=9,
    )

    assert dict(site.span.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "sql-lora",
        "gen_ai.request.stream": True,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 9,
        "http.request.body.size": 120,
        "http.response.status_code": 200,
        "url.path": "/v1/chat/completions",
        "lora_router.request_id": "req-1",
        "lora_router.adapter": "sql-lora",
        "lora_router.base_model": "llama",
        "lora_router.algorithm": "lora-placement",
        "lora_router.outcome": "routed",
        "lora_router.reason": "slot",
        "lora_router.pod": "pod-1",
        "lora_router.endpoint": "10.0.0.1:8000",
        "lora_router.place": "slot",
        "lora_router.decision_seconds": 0.0001,
        "lora_router.first_byte_seconds": 0.5,
    }
    assert site.span.events == ()
    assert site.span.status.status_code is StatusCode.UNSET


def test_a_held_request_has_events_of_its_begin_and_end() -> None:
    site = Site()

    site.request(held_for="no-free-slot", held_seconds=0.25, asked_at=100.0, decided_at=100.25)

    held, decided = site.span.events
    assert (held.name, held.timestamp) == ("lora_router.held", 1_000_000_000_000)
    assert dict(held.attributes or {}) == {"lora_router.held_for": "no-free-slot"}
    assert (decided.name, decided.timestamp) == ("lora_router.decided", 1_000_250_000_000)
    assert dict(decided.attributes or {}) == {"lora_router.reason": "slot"}


def test_a_retried_request_has_an_event_with_the_pod() -> None:
    site = Site()

    site.request(retried_on="pod-2")

    (retried,) = site.span.events
    assert (retried.name, retried.timestamp) == ("lora_router.retried", 1_000_500_000_000)
    assert dict(retried.attributes or {}) == {"lora_router.retried_on": "pod-2"}


@pytest.mark.parametrize(
    ("more", "description", "kind"),
    [
        ({"status": 503, "details": "upstream_reset"}, "status 503: upstream_reset", "503"),
        ({"status": 500}, "status 500", "500"),
    ],
)
def test_a_failed_request_has_the_status_error(
    more: dict[str, object], description: str, kind: str
) -> None:
    site = Site()

    site.request(**more)  # type: ignore[arg-type]

    assert site.span.status.status_code is StatusCode.ERROR
    assert site.span.status.description == description
    assert (site.span.attributes or {})["error.type"] == kind


def test_a_request_that_is_refused_by_a_limit_is_no_error() -> None:
    site = Site()

    site.request(outcome="refused", status=429, answered_at=0.0)

    assert site.span.status.status_code is StatusCode.UNSET


def test_a_request_without_an_answer_says_so_and_is_no_error() -> None:
    site = Site()

    site.request(unanswered=True, status=0, answered_at=0.0)

    assert (site.span.attributes or {})["lora_router.unanswered"] is True
    assert site.span.status.status_code is StatusCode.UNSET


def test_a_slow_request_says_so() -> None:
    site = Site()

    site.request(takes=5.5)

    assert (site.span.attributes or {})["lora_router.slow"] is True


def test_every_attribute_and_event_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "tracing.md").read_text()
    full = Decision(arrived_at=1.0, answered_at=2.0, ended_at=3.0)
    for field in structs.fields(Decision):
        if field.type in (str, bool, int) or field.name.endswith(("_tokens", "_seconds")):
            setattr(full, field.name, "x" if field.type is str else 1)
    full.path, full.status = "/v1/completions", 500
    site = Site()
    site.request(held_for="x", retried_on="y")

    names = {*attributes_of(full), *(event.name for event in site.span.events)}

    assert len(names) > 28
    assert {name for name in names if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("value", ["\ud800", "naïve", "\0\n", (1, 2)])
def test_no_value_of_a_client_or_a_plug_in_spoils_a_batch(value: object) -> None:
    site = Site()

    site.request(model=value, reason=value, held_for=value, retried_on=value, details=value)

    assert encode_spans(site.spans).SerializeToString()
