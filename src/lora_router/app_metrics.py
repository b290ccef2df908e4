"""Metrics that are read from the parts of the router whenever ``/metrics`` is."""

from collections.abc import Callable, Iterable

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from lora_router.admin.server import Readiness
from lora_router.endpoint_discovery.service import EndpointDiscovery
from lora_router.extproc.certificate_watch import CertificateWatch
from lora_router.extproc.gateway_faults import GatewayFaults
from lora_router.extproc.transport import Transport
from lora_router.fleet.ambiguous_names import AmbiguousNames
from lora_router.grpc_server.bounds import Bounds
from lora_router.routing.director import Director
from lora_router.scrape.pod_access import PodAccess
from lora_router.supervision import Supervisor
from lora_router.telemetry.catalog import CATALOG
from lora_router.telemetry.logs import dropped_lines
from lora_router.telemetry.metrics import Telemetry
from lora_router.watchdog import Watchdog


def add_app_metrics(
    telemetry: Telemetry, transport: Transport, director: Director, supervisor: Supervisor
) -> None:
    """Add the metrics of these parts to the page."""
    telemetry.add_gauge(
        "lora_router_open_streams",
        "Open ext_proc streams. Envoy keeps one open for each request until it ends.",
        lambda: transport.open_streams,
    )
    telemetry.add_gauge(
        "lora_router_held_requests",
        "Requests that wait in this router for a pod.",
        lambda: director.held,
    )
    telemetry.add_gauge(
        "lora_router_closed_slots",
        "Slots that this router has closed to further requests of the adapter in them, so that an "
        "adapter that waits gets them.",
        lambda: director.closed_slots,
    )
    telemetry.add_counter(
        "lora_router_ignored_priorities_total",
        "Requests whose priority_header has no valid value.",
        lambda: director.priorities.ignored,
    )
    telemetry.add_gauge(
        "lora_router_known_ids",
        "IDs of responses, files and batches whose pod is known.",
        lambda: len(director.sticky.made),
    )
    add_process_metrics(telemetry, supervisor)
    add_bounds_metrics(telemetry, transport.bounds)


def add_process_metrics(telemetry: Telemetry, supervisor: Supervisor) -> None:
    """Add what every process of the router has to the page."""
    telemetry.add_counter(
        "lora_router_log_lines_dropped_total",
        "Log lines dropped because standard error is not read fast enough or is closed.",
        dropped_lines,
    )
    telemetry.add_gauge(
        "lora_router_failing_tasks",
        "Background tasks that keep failing. /readyz describes them.",
        lambda: len(supervisor.failing()),
    )


def add_bounds_metrics(telemetry: Telemetry, bounds: Bounds) -> None:
    """Add what all connections share to the page."""
    budget = bounds.budget
    telemetry.add_gauge(
        "lora_router_buffered_bytes",
        "Bytes of max_buffered_bytes in use: reserved or held for request bodies, or output that "
        "waits for a gateway.",
        lambda: budget.used,
    )
    telemetry.add_gauge(
        "lora_router_max_buffered_bytes",
        "The setting max_buffered_bytes. With workers above 1, the sum of all workers.",
        lambda: budget.limit,
    )
    telemetry.add_gauge(
        "lora_router_buffered_ratio",
        "Share of max_buffered_bytes in use. With workers above 1, that of the worker that uses "
        "most of its own.",
        lambda: budget.used / budget.limit,
    )
    telemetry.add_gauge(
        "lora_router_waiting_bodies",
        "Request bodies that wait in flow control until max_buffered_bytes has room for them.",
        lambda: budget.waiting,
    )
    telemetry.add_counter(
        "lora_router_refused_bodies_total",
        "Request bodies refused with 503 because max_buffered_bytes had no room for them.",
        lambda: budget.refused,
    )
    telemetry.add_counter(
        "lora_router_refused_streams_total",
        "Streams refused because grpc_max_streams were open.",
        lambda: bounds.refused_streams,
    )
    _add_refused_connections(telemetry, lambda: bounds.refused_connections)
    telemetry.add_counter(
        "lora_router_wasted_streams_total",
        "Streams that failed, or that the gateway reset before they were answered.",
        lambda: bounds.resets.total,
    )


def add_readiness_metrics(
    telemetry: Telemetry, readiness: Callable[[], Readiness], *, may_lead: bool = False
) -> None:
    """Add what ``/readyz`` says to the page.

    Args:
        telemetry: Has the page.
        readiness: Returns what ``/readyz`` says.
        may_lead: Whether one of several routers leads, so that the others are not ready.
    """
    telemetry.registry.register(_ReadinessMetrics(readiness, may_lead=may_lead))


class _ReadinessMetrics(Collector):
    """The collector, which asks once for both metrics."""

    def __init__(self, readiness: Callable[[], Readiness], *, may_lead: bool) -> None:
        self._readiness = readiness
        self._may_lead = may_lead

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        found = self._readiness()
        ready = CATALOG.gauge("lora_router_ready")
        ready.add_metric((), found.ready)
        able = CATALOG.gauge("lora_router_ready_to_lead")
        if self._may_lead:
            able.add_metric((), found.ready or found.standby)
        return (ready, able)


def add_gateway_metrics(telemetry: Telemetry, gateway: GatewayFaults) -> None:
    """Add the faults of the gateway to the page."""
    telemetry.add_counter(
        "lora_router_streams_closed_early_total",
        "Streams that the gateway closed before their answers ended. /readyz says how to fix it.",
        lambda: gateway.closed_early,
    )


def add_name_metrics(telemetry: Telemetry, ambiguous: AmbiguousNames) -> None:
    """Add how many names of models mean two things to the page."""
    telemetry.add_gauge(
        "lora_router_ambiguous_models",
        "Names of models that mean two things. /readyz describes them.",
        ambiguous.count,
    )


def add_watchdog_metrics(telemetry: Telemetry, watchdog: Watchdog) -> None:
    """Add the lag of the event loop to the page."""
    telemetry.add_gauge(
        "lora_router_loop_lag_seconds",
        "Largest lag of the event loop within the last minute.",
        lambda: watchdog.lag,
    )
    telemetry.add_counter(
        "lora_router_loop_stalls_total",
        "Lags of the event loop longer than loop_stall_seconds. Each is logged with its cause.",
        lambda: watchdog.stalls,
    )


def add_certificate_metrics(telemetry: Telemetry, certificates: CertificateWatch) -> None:
    """Add the age of the TLS certificate to the page."""
    telemetry.add_gauge(
        "lora_router_tls_certificate_expiry_timestamp_seconds",
        "When the TLS certificate in use expires, in seconds since 1970.",
        lambda: certificates.expires,
    )
    telemetry.add_gauge(
        "lora_router_tls_files_refused_seconds",
        "Time for which the TLS files have held something that cannot be used; 0: they are used.",
        lambda: certificates.refused_seconds,
    )


def add_pod_access_metrics(telemetry: Telemetry, access: PodAccess) -> None:
    """Add the state of the keys and certificates for pods to the page."""
    telemetry.add_gauge(
        "lora_router_pod_files_refused_seconds",
        "Time for which the files with keys and certificates for pods have held something that "
        "cannot be used; 0: they are used.",
        lambda: access.refused_seconds,
    )


def add_endpoint_metrics(telemetry: Telemetry, discovery: EndpointDiscovery) -> None:
    """Add who follows the list of pods to the page."""
    telemetry.add_gauge(
        "lora_router_endpoint_streams",
        "Envoys that follow the list of pods of this router (EDS).",
        lambda: discovery.open_streams,
    )
    telemetry.add_counter(
        "lora_router_endpoint_lists_rejected_total",
        "Lists of pods that an Envoy rejected. The log has the reason.",
        lambda: discovery.rejected,
    )


def add_trace_metrics(telemetry: Telemetry, dropped: Callable[[], int]) -> None:
    """Add how many spans were dropped to the page."""
    telemetry.add_counter(
        "lora_router_spans_dropped_total",
        "Spans dropped because the collector of traces does not take them, or not fast enough. "
        "Only where requests are traced.",
        dropped,
    )


def add_worker_metrics(
    telemetry: Telemetry,
    ready: Callable[[], int],
    restarts: Callable[[], int],
    refused_connections: Callable[[], int],
    nameless_readings: Callable[[], int],
) -> None:
    """Add how many workers serve, how often one was replaced, and what they lack, to the page."""
    _add_refused_connections(telemetry, refused_connections)
    telemetry.add_gauge(
        "lora_router_ready_workers", "Workers that are ready. Only with workers above 1.", ready
    )
    telemetry.add_counter(
        "lora_router_worker_restarts_total",
        "Workers that ended or hung and were started again. Only with workers above 1.",
        restarts,
    )
    telemetry.add_counter(
        "lora_router_nameless_readings_total",
        "Readings of pods that workers got without the names of adapters, because they were too "
        "many or not valid Unicode. Only with workers above 1.",
        nameless_readings,
    )


def _add_refused_connections(telemetry: Telemetry, read: Callable[[], int]) -> None:
    telemetry.add_counter(
        "lora_router_refused_connections_total",
        "Connections closed because grpc_max_connections were open, because no worker was there to "
        "take them, or because a worker had no file descriptors left.",
        read,
    )
