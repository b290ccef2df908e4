"""Makes what observes requests: their records, log lines and traces. ``front`` connects it."""

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lora_router.clock import Clock
from lora_router.config.settings import Settings
from lora_router.telemetry.abnormal_lines import AbnormalLines
from lora_router.telemetry.decisions import DecisionLog
from lora_router.telemetry.trace_settings import trace_settings

if TYPE_CHECKING:
    from lora_router.telemetry.trace_export import TraceExport

log = logging.getLogger("lora_router")


def make_decisions(
    settings: Settings, on_failure: Callable[[str, BaseException], None] | None = None
) -> DecisionLog | None:
    """Return the log of decisions, or ``None`` if they are not recorded.

    Args:
        settings: The settings.
        on_failure: Called with the name of a follower that raised, and what it raised. Default:
            it is logged.
    """
    if not settings.decisions:
        return None
    decisions = DecisionLog(
        settings.decisions,
        share=settings.decisions_share,
        candidates_share=settings.decisions_candidates_share,
        slow_seconds=settings.slow_request_seconds,
    )
    decisions.on_failure = on_failure or decisions.on_failure
    return decisions


def follow_decisions(settings: Settings, decisions: DecisionLog, clock: Clock) -> None:
    """Let the log have a line of each abnormal request, if it should have any."""
    if settings.log_abnormal_per_second:
        AbnormalLines(decisions, settings.log_abnormal_per_second, clock.call_later, clock.now)


def make_traces(environ: Mapping[str, str], decisions: DecisionLog | None) -> "TraceExport | None":
    """Return what traces requests, or ``None`` if OpenTelemetry's variables ask for no traces.

    A variable that cannot be used stops no router, since such variables are set for many services
    at once. The log says what is wrong.
    """
    try:
        wanted = trace_settings(environ)
        if wanted is None:
            return None
        if decisions is None:
            log.warning("requests are not traced: decisions is 0, so nothing is known of requests")
            return None
        # Importing the SDK takes long, and few need it.
        from lora_router.telemetry.trace_export import TraceExport

        traces = TraceExport(decisions, wanted)
    except ImportError as error:
        log.warning(
            "requests are not traced, although OpenTelemetry's variables ask for it: the extra "
            "otel is not installed (pip install 'lora-router[otel]'): %s",
            error,
        )
    except (ValueError, OSError) as error:
        log.warning("requests are not traced: %s", error)
    else:
        log.info("requests are traced: spans are sent by OTLP over %s", wanted.protocol)
        return traces
    return None
