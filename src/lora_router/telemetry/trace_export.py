"""Sends spans to a collector: a bounded queue, and a thread that does the network.

A collector that is away, slow or hangs costs spans, never requests. A log line says how many.
"""

import logging
import os
import socket
from collections.abc import Sequence

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from lora_router import __version__
from lora_router.log_limit import LogLimit
from lora_router.telemetry.decisions import DecisionLog
from lora_router.telemetry.logs import quoted
from lora_router.telemetry.trace_settings import Protocol, TraceSettings
from lora_router.telemetry.traces import Traces
from lora_router.threads import in_thread

log = logging.getLogger("lora_router.traces")

_REPORT_SECONDS = 60.0
_REASON_CHARACTERS = 500


class TraceExport:
    """Traces the requests of a log of decisions, and sends the spans."""

    def __init__(
        self, decisions: DecisionLog, settings: TraceSettings, exporter: SpanExporter | None = None
    ) -> None:
        """Begin. The SDK reads what the settings do not say from the process's environment.

        Args:
            decisions: The log to follow.
            settings: How spans are sent.
            exporter: Sends them, instead of the one of the settings.

        Raises:
            ValueError: A variable has a value that the SDK refuses.
            ImportError: The exporter is not installed.
        """
        self._words = _Words()
        self._words.begin()
        try:
            self._queue = self._start(decisions, settings, exporter)
        except BaseException:
            self._words.end()
            raise

    def _start(
        self, decisions: DecisionLog, settings: TraceSettings, exporter: SpanExporter | None
    ) -> "BoundedQueue":
        watched = WatchedExporter(exporter or _exporter(settings.protocol))
        batches = BatchSpanProcessor(
            watched,
            max_queue_size=settings.max_queued,
            max_export_batch_size=settings.max_batch,
        )
        queue = BoundedQueue(batches, watched, settings.max_queued)
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        Traces(decisions, queue, sampler=provider.sampler, resource=provider.resource)
        return queue

    @property
    def dropped(self) -> int:
        """Spans that were dropped, because they waited too long or could not be sent."""
        return self._queue.dropped + self._queue.exporter.failed

    async def stop(self) -> None:
        """Send the spans that wait, and report those that are lost. The caller limits the time."""
        try:
            await in_thread(self._queue.shutdown, "traces-stop")
        finally:
            self._queue.report()
            self._words.end()


class WatchedExporter(SpanExporter):
    """Counts what an exporter receives and what it cannot send, and says so in the log."""

    def __init__(self, exporter: SpanExporter, limit: LogLimit | None = None) -> None:
        self._exporter = exporter
        self._limit = limit or LogLimit(_REPORT_SECONDS)
        self._reported = 0
        self.received = 0
        self.sent = 0
        self.failed = 0
        self.dropped = 0
        """Spans that did not get here. Written by the thread that makes spans."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans. Called in the exporter's thread."""
        self.received += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is SpanExportResult.SUCCESS:
                self.sent += len(spans)
            else:
                self.failed += len(spans)
            lost = self.failed + self.dropped
            if lost != self._reported and self._limit.allow("lost") is not None:
                self.report(lost)
        return result

    def shutdown(self) -> None:
        """Stop. Sends that wait for the network are given up."""
        self._exporter.shutdown()

    def report(self, lost: int) -> None:
        """Say how many spans were lost since the last time.

        Args:
            lost: How many were lost in all.
        """
        if lost > self._reported:
            log.warning(
                "%d spans were dropped: the collector of traces does not take them, or not fast "
                "enough",
                lost - self._reported,
            )
            self._reported = lost


class BoundedQueue(SpanProcessor):
    """Passes spans to the SDK's queue while there is room, and counts the others.

    The SDK's queue would drop the oldest span, and log each time.
    """

    def __init__(self, batches: SpanProcessor, exporter: WatchedExporter, most: int) -> None:
        self._batches = batches
        self.exporter = exporter
        self._most = most
        self._passed = 0

    @property
    def dropped(self) -> int:
        """Spans that found no room."""
        return self.exporter.dropped

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span."""
        if self._passed - self.exporter.received >= self._most:
            self.exporter.dropped += 1
            return
        self._passed += 1
        self._batches.on_end(span)

    def report(self) -> None:
        """Say how many spans were lost. What still waits to be sent is lost, too."""
        self.exporter.report(self.dropped + self._passed - self.exporter.sent)

    def shutdown(self) -> None:
        """Send the spans that wait. May block for long."""
        self._batches.shutdown()


class _Words(logging.Handler):
    """Writes what the SDK has to say into our log, at a limited rate.

    Parts of it come from the collector.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._limit = LogLimit(_REPORT_SECONDS)
        self._logger = logging.getLogger("opentelemetry")

    def begin(self) -> None:
        """Take in what the SDK says."""
        self._logger.addHandler(self)
        self._logger.propagate = False

    def end(self) -> None:
        """Leave it to others."""
        self._logger.removeHandler(self)
        self._logger.propagate = not self._logger.handlers

    def emit(self, record: logging.LogRecord) -> None:
        text = quoted(record.getMessage()[:_REASON_CHARACTERS])
        self._limit.log(log, record.levelno, record.msg, "OpenTelemetry: %s", text)


def _resource() -> Resource:
    """Return what spans are from. The variables take precedence."""
    ours = {
        "service.name": "lora-router",
        "service.version": __version__,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
    }
    return Resource.create(ours).merge(OTELResourceDetector().detect())


def _exporter(protocol: Protocol) -> SpanExporter:
    # grpcio takes a large part of the time to start, and requests are not needed with it.
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as over_grpc

        return over_grpc.OTLPSpanExporter()
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as over_http

    return over_http.OTLPSpanExporter()
