"""Spans of requests, made from finished records. Imported only where requests are traced.

A span begins with the headers of the request and ends with its answer. Its parent is the gateway's
span, or the one that the client's ``traceparent`` names. It is made when the request has ended, so
nothing is done for it before, and nothing for requests that are not sampled.

The objects are made directly: a ``Tracer`` takes twice as long, since others may change its spans
while they are open. Sampler, resource, queue and exporter are the SDK's.
"""

import re

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, sampling
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from lora_router import __version__
from lora_router.telemetry.decisions import Decision, DecisionLog

NAME = "route"
"""The name of every span. Names should be few, and models are many."""

OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
}
"""Values of ``gen_ai.operation.name``, by path."""

Value = str | bool | int | float

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_PARENT = Context()
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status(StatusCode.UNSET)
_SCOPE = InstrumentationScope("lora_router", __version__)


class Traces:
    """Makes the spans of a log's decisions, as far as they are sampled."""

    def __init__(
        self,
        decisions: DecisionLog,
        processor: SpanProcessor,
        *,
        sampler: sampling.Sampler,
        resource: Resource,
        ids: IdGenerator | None = None,
    ) -> None:
        """Follow a log, before those that already do: they learn the span from the record.

        Args:
            decisions: The log to follow.
            processor: Receives the spans. It must not block.
            sampler: Decides which requests have a span.
            resource: What the spans are from.
            ids: Makes IDs of traces and spans.
        """
        self._decisions = decisions
        self._processor = processor
        self._sampler = sampler
        self._resource = resource
        self._ids = ids or RandomIdGenerator()
        decisions.on_ended.insert(0, self.ended)

    def ended(self, decision: Decision) -> None:
        """Make the span of a request that has ended, if it is sampled."""
        parent = read_traceparent(decision.traceparent)
        if parent is None:
            context, trace_id = _NO_PARENT, self._ids.generate_trace_id()
        else:
            context = trace.set_span_in_context(NonRecordingSpan(parent), _NO_PARENT)
            trace_id = parent.trace_id
        sampled = self._sampler.should_sample(context, trace_id, NAME, SpanKind.SERVER)
        if sampled.decision is not sampling.Decision.RECORD_AND_SAMPLE:
            return
        span_id = self._ids.generate_span_id()
        decision.trace_id = f"{trace_id:032x}"
        own = SpanContext(trace_id, span_id, False, _SAMPLED, sampled.trace_state)
        attributes = attributes_of(decision)
        if self._decisions.is_slow(decision):
            attributes["lora_router.slow"] = True
        span = ReadableSpan(
            NAME,
            own,
            parent,
            self._resource,
            attributes,
            self._events(decision),
            kind=SpanKind.SERVER,
            status=_status(decision),
            start_time=self._wall(decision.arrived_at),
            end_time=self._wall(decision.ended_at),
            instrumentation_scope=_SCOPE,
        )
        self._processor.on_end(span)

    def _wall(self, at: float) -> int:
        return int(self._decisions.wall(at) * 1e9)

    def _events(self, decision: Decision) -> tuple[Event, ...]:
        """Return when the request began and ceased to be held, and when it was sent elsewhere."""
        if not decision.held_for and not decision.retried_on:
            return ()
        events = []
        if decision.held_for:
            since = {"lora_router.held_for": _text(decision.held_for)}
            events.append(Event("lora_router.held", since, self._wall(decision.asked_at)))
            end = {"lora_router.reason": _text(decision.reason)}
            events.append(Event("lora_router.decided", end, self._wall(decision.decided_at)))
        if decision.retried_on:
            # Envoy tells with the answer that another pod was asked, not when.
            to = {"lora_router.retried_on": _text(decision.retried_on)}
            at = decision.answered_at or decision.ended_at
            events.append(Event("lora_router.retried", to, self._wall(at)))
        return tuple(events)


def read_traceparent(text: str) -> SpanContext | None:
    """Return the parent that a W3C ``traceparent`` names; ``None``: none, or it is invalid."""
    found = _TRACEPARENT.fullmatch(text)
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5] is not None):
        return None
    flags = TraceFlags(int(found[4], 16) & TraceFlags.SAMPLED)
    parent = SpanContext(int(found[2], 16), int(found[3], 16), True, flags)
    return parent if parent.is_valid else None


def attributes_of(decision: Decision) -> dict[str, Value]:
    """Return the attributes of a span: a record's fields, without those that are empty."""
    first_byte = decision.first_byte_seconds
    fields: dict[str, object] = {
        "gen_ai.operation.name": OPERATIONS.get(decision.path),
        "gen_ai.request.model": decision.model,
        "gen_ai.request.stream": decision.stream,
        "gen_ai.usage.input_tokens": decision.prompt_tokens,
        "gen_ai.usage.output_tokens": decision.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": decision.cached_tokens,
        "http.request.body.size": decision.size,
        "http.response.status_code": decision.status,
        "url.path": decision.path,
        "error.type": str(decision.status) if decision.failed else None,
        "lora_router.request_id": decision.request_id,
        "lora_router.adapter": decision.adapter,
        "lora_router.base_model": decision.base_model,
        "lora_router.algorithm": decision.algorithm,
        "lora_router.outcome": decision.outcome,
        "lora_router.reason": decision.reason,
        "lora_router.pod": decision.pod,
        "lora_router.endpoint": decision.endpoint,
        "lora_router.place": decision.place,
        "lora_router.spilled": decision.spilled,
        "lora_router.replicated": decision.replicated,
        "lora_router.retried_on": decision.retried_on,
        "lora_router.unanswered": decision.unanswered,
        "lora_router.response_code_details": decision.details,
        "lora_router.held_for": decision.held_for,
        "lora_router.held_seconds": decision.held_seconds,
        "lora_router.decision_seconds": decision.decision_seconds,
        "lora_router.first_byte_seconds": first_byte,
    }
    return {
        name: value if isinstance(value, int | float) else _text(value)
        for name, value in fields.items()
        if value
    }


def _status(decision: Decision) -> Status:
    if not decision.failed:
        return _UNSET
    details = f": {_text(decision.details)}" if decision.details else ""
    return Status(StatusCode.ERROR, f"status {decision.status}{details}")


def _text(value: object) -> str:
    """Return a value as text that can be encoded. Otherwise a whole batch would be lost."""
    text = value if isinstance(value, str) else str(value)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
