"""What it costs to observe a request beyond its record: a log line if it is abnormal, and a span.

Spans cost what is done for them in this process, without what the exporter does with them.
"""

import logging
import random
from collections.abc import Callable
from time import monotonic

from lora_router.telemetry.abnormal_lines import AbnormalLines
from lora_router.telemetry.decisions import DecisionLog

_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"


def records() -> dict[str, Callable[[], object]]:
    """Return what is measured, by name. Each call is a record from its beginning to its end."""
    return {
        "record": _record(_log()),
        "record, abnormal, without a line": _record(_log(), status=503),
        "record, abnormal, its line over the limit": _record(_with_lines(), status=503),
        "record, traced, not sampled": _record(_traced(), traceparent=f"{_TRACE}0"),
        "record, traced, with a span": _record(_traced(), traceparent=f"{_TRACE}1"),
    }


def _log() -> DecisionLog:
    # It keeps the candidates of the same requests in each run.
    return DecisionLog(1000, rng=random.Random(1))


def _with_lines() -> DecisionLog:
    log = _log()
    lines = logging.getLogger("lora_router.requests")
    lines.addHandler(logging.NullHandler())
    lines.propagate = False
    AbnormalLines(log, 1, lambda _seconds, _call: None, monotonic)
    return log


def _traced() -> DecisionLog:
    # The SDK is imported here, as in the router, only where it is used.
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.sampling import DEFAULT_ON

    from lora_router.telemetry.traces import Traces

    log = _log()
    Traces(log, SpanProcessor(), sampler=DEFAULT_ON, resource=Resource({}))
    return log


def _record(log: DecisionLog, *, traceparent: str = "", status: int = 200) -> Callable[[], object]:
    def request() -> None:
        decision = log.begin("7f0a3c9e", "/v1/chat/completions")
        decision.traceparent = traceparent
        decision.asked_at = decision.decided_at = log.now()
        decision.model = decision.adapter = "sql-lora"
        decision.base_model, decision.algorithm = "llama", "lora-placement"
        decision.outcome, decision.reason = "routed", "slot"
        decision.pod, decision.endpoint = "vllm-0", "10.0.0.1:8000"
        log.decided(decision)
        decision.answered_at, decision.status = log.now(), status
        log.ended(decision)

    return request
