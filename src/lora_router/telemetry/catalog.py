"""Every metric of the router: its type, labels and meaning, and what bounds its series.

``docs/metrics.md`` is made from this. Names follow the conventions of Prometheus: base units,
``_total`` at the end of counters, the unit at the end of others.
"""

from collections.abc import Mapping

from lora_router.telemetry.described import Catalog, Described

_ADAPTERS = "`metrics_adapters` + 1"
_MODELS = "65"
_PODS = "pods"
_POD_LABEL = ("pod",)
_MODEL_LABEL = ("base_model",)
_ADAPTER_LABEL = ("adapter",)

_REQUESTS = {
    "lora_router_requests_total": Described(
        "counter",
        "Requests by outcome: routed, refused, answered (by the router itself), held (waits in "
        "the router), cancelled (the client disconnected while the request was held).",
        ("algorithm", "outcome", "reason"),
        "513",
    ),
    "lora_router_decision_seconds": Described(
        "histogram",
        "Time to choose a pod and count the request, without body parsing and waiting.",
        ("algorithm",),
        "257",
    ),
    "lora_router_time_to_first_byte_seconds": Described(
        "histogram",
        "Time from the headers of a routed request to those of its answer, with the time for "
        "which it was held, by base model.",
        _MODEL_LABEL,
        _MODELS,
    ),
    "lora_router_request_duration_seconds": Described(
        "histogram",
        "Time from the headers of a routed request to the end of its stream, by base model.",
        _MODEL_LABEL,
        _MODELS,
    ),
    "lora_router_hold_seconds": Described(
        "histogram",
        "Time for which requests were held that waited in the router for a pod, by base model.",
        _MODEL_LABEL,
        _MODELS,
    ),
    "lora_router_spills_total": Described(
        "counter",
        "Requests sent to a pod on which their adapter had no slot and no slot was free, by base "
        "model.",
        _MODEL_LABEL,
        _MODELS,
    ),
    "lora_router_replications_total": Described(
        "counter",
        "Requests sent to a pod on which their adapter was not in flight while it was on other "
        "pods, by base model.",
        _MODEL_LABEL,
        _MODELS,
    ),
    "lora_router_tokens_total": Described(
        "counter",
        "Tokens according to the usage in answers, by kind (prompt, completion) and base model. "
        "Only with the setting tokens.",
        ("kind", "base_model"),
        "130",
    ),
    "lora_router_prefix_tokens_total": Described(
        "counter",
        "Prompt tokens by kind and base model: estimated (of requests whose prompts the router "
        "read, because the algorithm asked), expected_cached (those of them that it believed to be "
        "in the prefix cache of the pod), stated (of answers whose usage states cached tokens) and "
        "stated_cached (these). The last two only with the setting tokens.",
        ("kind", "base_model"),
        "260",
    ),
    "lora_router_usage_answers_total": Described(
        "counter",
        "Answers that may state how many tokens the request took: usage is stated, missing, or "
        "encoded (the answer is compressed, and the router did not read it). Only with the "
        "setting tokens.",
        ("usage",),
        "3",
    ),
    "lora_router_answers_total": Described(
        "counter",
        "Answers to routed requests, by who gave them (the pod, or Envoy in its place) and by "
        "the class of the HTTP status.",
        ("by", "status"),
        "18",
    ),
    "lora_router_retried_requests_total": Described(
        "counter",
        "Requests that Envoy sent to another pod than the picked one.",
    ),
    "lora_router_requests_served_elsewhere_total": Described(
        "counter",
        "Deprecated: the old name of lora_router_retried_requests_total.",
        renamed="lora_router_retried_requests_total",
    ),
    "lora_router_held_requests": Described("gauge", "Requests that wait in this router for a pod."),
    "lora_router_reservations": Described(
        "gauge",
        "Requests in the in-flight ledger, including those on pods that have left the fleet.",
    ),
}

_BY_ADAPTER = {
    "lora_router_adapter_requests_total": Described(
        "counter",
        "Requests sent to a pod, by adapter and by where the adapter was found there: running, "
        "slot, host-memory (hits), or nowhere (a cold placement).",
        ("adapter", "found"),
        f"4 for each of {_ADAPTERS}",
    ),
    "lora_router_adapter_time_to_first_byte_seconds": Described(
        "histogram",
        "Time from the headers of a routed request to those of its answer, with the time for "
        "which it was held, by adapter.",
        _ADAPTER_LABEL,
        _ADAPTERS,
    ),
    "lora_router_adapter_request_duration_seconds": Described(
        "histogram",
        "Time from the headers of a routed request to the end of its stream, by adapter.",
        _ADAPTER_LABEL,
        _ADAPTERS,
    ),
    "lora_router_adapter_hold_seconds": Described(
        "histogram",
        "Time for which requests were held that waited in the router for a pod, by adapter.",
        _ADAPTER_LABEL,
        _ADAPTERS,
    ),
    "lora_router_adapter_failed_requests_total": Described(
        "counter",
        "Routed requests that ended with a status from 500 on, or without an answer, by adapter.",
        _ADAPTER_LABEL,
        _ADAPTERS,
    ),
    "lora_router_adapter_tokens_total": Described(
        "counter",
        "Tokens according to the usage in answers, by kind (prompt, completion) and adapter. Only "
        "with tokens=on.",
        ("kind", "adapter"),
        f"2 for each of {_ADAPTERS}",
    ),
}

_BY_POD = {
    "lora_router_pod_time_to_first_byte_seconds": Described(
        "histogram",
        "Time from the headers of a routed request to those of its answer, with the time for "
        "which it was held, by the pod that was picked.",
        _POD_LABEL,
        _PODS,
    ),
    "lora_router_pod_request_duration_seconds": Described(
        "histogram",
        "Time from the headers of a routed request to the end of its stream, by the pod that was "
        "picked.",
        _POD_LABEL,
        _PODS,
    ),
    "lora_router_failed_requests_total": Described(
        "counter",
        "Routed requests that ended with a status from 500 on, or without an answer, by base "
        "model and by the pod that was picked.",
        ("base_model", "pod"),
        "base models of each pod",
    ),
    "lora_router_in_flight_requests": Described(
        "gauge",
        "Requests sent to the pod by this router and not finished.",
        _POD_LABEL,
        _PODS,
    ),
    "lora_router_in_flight_adapters": Described(
        "gauge",
        "Distinct adapters of the requests in flight on the pod.",
        _POD_LABEL,
        _PODS,
    ),
    "lora_router_snapshot_age_seconds": Described(
        "gauge",
        "Age of the pod's last successful scrape; absent before the first.",
        _POD_LABEL,
        _PODS,
    ),
    "lora_router_scrape_failures_total": Described(
        "counter",
        "Failed reads of a pod's /metrics or /v1/models. The last snapshot stays in use.",
        ("kind", "pod", "cause"),
        "20 for each pod that fails",
    ),
}

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
    "lora_router_ready_workers": Described(
        "gauge", "Workers that are ready. Only with workers above 1."
    ),
    "lora_router_worker_restarts_total": Described(
        "counter",
        "Workers that ended or hung and were started again. Only with workers above 1.",
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
        "gauge", "The setting max_buffered_bytes, of each worker with workers above 1."
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
        "Connections closed because grpc_max_connections were open, or because no worker was "
        "there to take them.",
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
    "Requests": _REQUESTS,
    "Requests by adapter": _BY_ADAPTER,
    "Requests by pod, and what is known of each pod": _BY_POD,
    "The fleet": _FLEET,
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
