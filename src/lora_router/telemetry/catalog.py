"""Every metric of the router: its type, labels and meaning, and what bounds its series.

``docs/metrics.md`` is made from this. Names follow the conventions of Prometheus: base units,
``_total`` at the end of counters, the unit at the end of others.
"""

from collections.abc import Mapping

from lora_router.telemetry.described import Catalog, Described
from lora_router.telemetry.loading_catalog import LOADING
from lora_router.telemetry.request_catalog import BY_ADAPTER, BY_POD, REQUESTS

_MODEL_LABEL = ("base_model",)

_FLEET = {
    "lora_router_pods": Described("gauge", "Pods in the fleet.", ("state",), "2"),
    "lora_router_prefix_chunks": Described(
        "gauge",
        "Chunks of prompts that pods are believed to have in their prefix caches. 250,000 at most.",
    ),
    "lora_router_pods_by_health": Described(
        "gauge", "Pods in the fleet, by health.", ("health",), "4"
    ),
    "lora_router_pod_health_transitions_total": Described(
        "counter",
        "Changes of the health of pods, by the state that they changed to.",
        ("to",),
        "4",
    ),
    "lora_router_pod_ejections_total": Described(
        "counter",
        "Pods that were ejected because they failed, by cause.",
        ("cause",),
        "6",
    ),
    "lora_router_pods_without_load": Described(
        "gauge",
        "Ready pods whose metrics page was read and does not show their load, by the engine of "
        "their label.",
        ("engine",),
        "engines",
    ),
    "lora_router_slots": Described(
        "gauge",
        "Adapter slots of the ready pods, by whether an adapter with requests in flight uses them.",
        ("base_model", "state"),
        "202",
    ),
    "lora_router_slots_wanted": Described(
        "gauge",
        "Adapter slots that the adapters with work need, whatever the size of the fleet. "
        "Divided by the slots of a pod: how many pods are needed.",
        _MODEL_LABEL,
        "101",
    ),
    "lora_router_slots_lacking": Described(
        "gauge",
        "Adapter slots that the fleet lacks now: for adapters that are held, or were refused "
        "within the last minute, or wait on pods.",
        _MODEL_LABEL,
        "101",
    ),
    "lora_router_closed_slots": Described(
        "gauge",
        "Slots that this router has closed to further requests of the adapter in them, so that an "
        "adapter that waits gets them.",
    ),
    "lora_router_ignored_priorities_total": Described(
        "counter", "Requests whose priority_header has no valid value."
    ),
    "lora_router_ambiguous_models": Described(
        "gauge", "Names of models that mean two things. /readyz describes them."
    ),
    "lora_router_known_ids": Described(
        "gauge", "IDs of responses, files and batches whose pod is known."
    ),
    "lora_router_pods_age_seconds": Described(
        "gauge",
        "Seconds since the Kubernetes API server last confirmed the list of pods.",
    ),
    "lora_router_unread_namespaces": Described(
        "gauge",
        "Namespaces that could not be read since the start. The router works without their pods.",
    ),
    "lora_router_pod_events_total": Described(
        "counter",
        "Pods that the Kubernetes API server listed, changed or deleted.",
        ("kind",),
        "4",
    ),
    "lora_router_discovery_failures_total": Described(
        "counter",
        "Failures to list or watch the pods. The last known pods stay in use.",
        ("cause",),
        "20",
    ),
    "lora_router_scrape_seconds": Described(
        "histogram",
        "Time of a successful read of a pod's /metrics or /v1/models.",
        ("kind",),
        "2",
    ),
    "lora_router_pod_files_refused_seconds": Described(
        "gauge",
        "Time for which the files with keys and certificates for pods have held something that "
        "cannot be used; 0: they are used.",
    ),
}

_PEERS = {
    "lora_router_peers": Described(
        "gauge", "Other routers that this router exchanges reports with."
    ),
    "lora_router_remote_peers": Described(
        "gauge",
        "Those of lora_router_peers that are no workers of the same router. Each worker of another "
        "router counts. Only where routers are told how to find each other.",
    ),
    "lora_router_peer_report_age_seconds": Described(
        "gauge", "Age of the oldest of the last reports of all peers; 0 without peers."
    ),
    "lora_router_peer_in_flight_requests": Described(
        "gauge", "Requests that peers have in flight, according to their last reports."
    ),
    "lora_router_peer_in_flight_adapters": Described(
        "gauge", "Adapters that peers have in flight, each counted on every pod."
    ),
    "lora_router_peer_held_adapters": Described("gauge", "Adapters that peers hold requests for."),
    "lora_router_peer_reports_total": Described(
        "counter", "Reports sent to and received from peers.", ("direction",), "2"
    ),
    "lora_router_peer_bytes_total": Described(
        "counter", "Bytes of the messages of peering.", ("direction",), "2"
    ),
    "lora_router_peer_rejected_total": Described(
        "counter",
        "Streams and messages of peers that were rejected, by cause.",
        ("cause",),
        "20",
    ),
    "lora_router_peer_forgotten_total": Described(
        "counter",
        "Peers that were forgotten because they left or were silent.",
        ("cause",),
        "2",
    ),
    "lora_router_peer_readings_total": Described(
        "counter",
        "Readings of pods that were sent to peers, or received from peers and used.",
        ("direction",),
        "2",
    ),
    "lora_router_peer_prompts_total": Described(
        "counter",
        "Prompts whose pods were told to peers (sent), or that peers told (received), and prompts "
        "that were not told because too many waited (dropped).",
        ("direction",),
        "3",
    ),
    "lora_router_peer_contradictions_total": Described(
        "counter", "Audits in which a pod's page differed from what a peer had reported."
    ),
    "lora_router_peer_distrusted_total": Described(
        "counter",
        "How often the router stopped trusting a peer, after repeated contradictions.",
    ),
    "lora_router_redis_connected": Described(
        "gauge", "Whether this router is connected to the Valkey or Redis of peering."
    ),
    "lora_router_leader": Described(
        "gauge", "Whether this router holds the Lease and leads: 1 or 0."
    ),
    "lora_router_leader_transitions_total": Described(
        "counter",
        "How often this router began to lead, and how often it became a standby.",
        ("to",),
        "2",
    ),
    "lora_router_lease_errors_total": Described(
        "counter",
        "Failed calls of the Kubernetes API for the Lease, by cause.",
        ("cause",),
        "20",
    ),
}

_PROCESS = {
    "lora_router_build_info": Described(
        "gauge", "Constant 1, labelled with the version.", ("version",)
    ),
    "lora_router_ready": Described(
        "gauge", "1 if /readyz says that this router can route requests, else 0."
    ),
    "lora_router_ready_to_lead": Described(
        "gauge",
        "1 if this router could route requests if it led, as /readyz?exclude=leader says, else 0. "
        "Only with replication=lease.",
    ),
    "lora_router_loop_lag_seconds": Described(
        "gauge", "Largest lag of the event loop within the last minute."
    ),
    "lora_router_loop_stalls_total": Described(
        "counter",
        "Lags of the event loop longer than loop_stall_seconds. Each is logged with its cause.",
    ),
    "lora_router_task_failures_total": Described(
        "counter",
        "Failures of background tasks. A task that fails restarts with backoff.",
        ("task",),
        "names of tasks in the code",
    ),
    "lora_router_failing_tasks": Described(
        "gauge", "Background tasks that keep failing. /readyz describes them."
    ),
    "lora_router_log_lines_dropped_total": Described(
        "counter",
        "Log lines dropped because standard error is not read fast enough or is closed.",
    ),
    "lora_router_spans_dropped_total": Described(
        "counter",
        "Spans dropped because the collector of traces does not take them, or not fast enough. "
        "Only where requests are traced.",
    ),
    "lora_router_ready_workers": Described(
        "gauge", "Workers that are ready. Only with workers above 1."
    ),
    "lora_router_worker_restarts_total": Described(
        "counter",
        "Workers that ended or hung and were started again. Only with workers above 1.",
    ),
    "lora_router_nameless_readings_total": Described(
        "counter",
        "Readings of pods that workers got without the names of adapters, because they were too "
        "many or not valid Unicode. Only with workers above 1.",
    ),
}

_GATEWAY = {
    "lora_router_open_streams": Described(
        "gauge",
        "Open ext_proc streams. Envoy keeps one open for each request until it ends.",
    ),
    "lora_router_buffered_bytes": Described(
        "gauge",
        "Bytes of max_buffered_bytes in use: reserved or held for request bodies, or output that "
        "waits for a gateway.",
    ),
    "lora_router_max_buffered_bytes": Described(
        "gauge",
        "The setting max_buffered_bytes. With workers above 1, the sum of all workers.",
    ),
    "lora_router_buffered_ratio": Described(
        "gauge",
        "Share of max_buffered_bytes in use. With workers above 1, that of the worker that uses "
        "most of its own.",
    ),
    "lora_router_waiting_bodies": Described(
        "gauge",
        "Request bodies that wait in flow control until max_buffered_bytes has room for them.",
    ),
    "lora_router_refused_bodies_total": Described(
        "counter",
        "Request bodies refused with 503 because max_buffered_bytes had no room for them.",
    ),
    "lora_router_refused_streams_total": Described(
        "counter", "Streams refused because grpc_max_streams were open."
    ),
    "lora_router_refused_connections_total": Described(
        "counter",
        "Connections closed because grpc_max_connections were open, because no worker was there to "
        "take them, or because a worker had no file descriptors left.",
    ),
    "lora_router_wasted_streams_total": Described(
        "counter",
        "Streams that failed, or that the gateway reset before they were answered.",
    ),
    "lora_router_streams_closed_early_total": Described(
        "counter",
        "Streams that the gateway closed before their answers ended. /readyz says how to fix it.",
    ),
    "lora_router_endpoint_streams": Described(
        "gauge", "Envoys that follow the list of pods of this router (EDS)."
    ),
    "lora_router_endpoint_lists_rejected_total": Described(
        "counter", "Lists of pods that an Envoy rejected. The log has the reason."
    ),
    "lora_router_tls_certificate_expiry_timestamp_seconds": Described(
        "gauge", "When the TLS certificate in use expires, in seconds since 1970."
    ),
    "lora_router_tls_files_refused_seconds": Described(
        "gauge",
        "Time for which the TLS files have held something that cannot be used; 0: they are used.",
    ),
}

GROUPS: Mapping[str, Mapping[str, Described]] = {
    "Requests": REQUESTS,
    "Requests by adapter": BY_ADAPTER,
    "Requests by pod, and what is known of each pod": BY_POD,
    "The fleet": _FLEET,
    "Declared adapters": LOADING,
    "Other routers": _PEERS,
    "Gateways": _GATEWAY,
    "The process": _PROCESS,
}
"""The metrics, by what they are about."""
METRICS: Mapping[str, Described] = {
    name: metric for group in GROUPS.values() for name, metric in group.items()
}
"""All metrics, by the names that a query uses; of histograms, without a suffix."""
CATALOG = Catalog(METRICS)
