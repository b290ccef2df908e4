"""The dashboard of the router itself: its event loop, memory, tasks and peers."""

from deploy.grafana.panels import (
    Dashboard,
    Panel,
    Query,
    Row,
    Threshold,
    Variable,
    quantiles,
    rate,
)

_ONE = 'instance=~"$instance"'


def _gauge(metric: str, legend: str = "{{instance}}") -> tuple[Query, ...]:
    return (Query(f"{metric}{{$routers, {_ONE}}}", legend),)


def _rate(metric: str, by: str = "instance", legend: str = "{{instance}}") -> Query:
    return Query(rate(metric, by, _ONE), legend)


_PROCESS = Row(
    "Process",
    (
        Panel(
            "Ready",
            "1: the router says that it can route requests. `/readyz` says why not. A standby is "
            "not ready; able to lead: it could route requests if it led.",
            (
                *_gauge("lora_router_ready"),
                *_gauge("lora_router_ready_to_lead", "{{instance}} able to lead"),
            ),
            highest=1.0,
            alerts=(
                "LoraRouterDown",
                "LoraRouterNotReady",
                "LoraRouterStandbyNotReady",
                "LoraRouterAbsent",
            ),
        ),
        Panel(
            "Versions",
            "Routers by version. Two versions are normal during a rollout.",
            (
                Query(
                    f"sum by (version) (lora_router_build_info{{$routers, {_ONE}}})", "{{version}}"
                ),
            ),
        ),
        Panel(
            "Decision time",
            "Time to pick a pod and count the request, without the body and without waiting. "
            "Below a millisecond.",
            quantiles("lora_router_decision_seconds", "algorithm", "{{algorithm}}", _ONE),
            unit="s",
            alerts=("LoraRouterLoopLags",),
        ),
        Panel(
            "Lag of the event loop",
            "Largest lag within the last minute. Everything that the router does waits for so "
            "long.",
            _gauge("lora_router_loop_lag_seconds"),
            unit="s",
            thresholds=(Threshold(0.5, "red"),),
            alerts=("LoraRouterLoopLags", "LoraRouterLoopStalls"),
        ),
        Panel(
            "Stalls of the event loop",
            "Lags longer than the setting loop_stall_seconds. Each is logged with its cause.",
            (_rate("lora_router_loop_stalls_total"),),
            unit="cps",
            alerts=("LoraRouterLoopStalls",),
        ),
        Panel(
            "Failures of background tasks",
            "Tasks that failed and were started again, and tasks that fail each time.",
            (
                _rate("lora_router_task_failures_total", "task", "{{task}}"),
                *_gauge("lora_router_failing_tasks", "{{instance}} fail each time"),
            ),
            unit="cps",
            alerts=("LoraRouterTasksFail",),
        ),
        Panel(
            "Log lines dropped",
            "Lines that nobody read fast enough from standard error.",
            (_rate("lora_router_log_lines_dropped_total"),),
            unit="cps",
            alerts=("LoraRouterLogLinesDropped",),
        ),
        Panel(
            "Workers",
            "Processes of each router that are ready, and restarts of them. Empty with one worker.",
            (
                *_gauge("lora_router_ready_workers", "{{instance}} ready"),
                _rate("lora_router_worker_restarts_total", "instance", "{{instance}} restarts/s"),
            ),
        ),
    ),
)

_GATEWAY = Row(
    "What the gateway sends",
    (
        Panel(
            "Open streams",
            "Envoy keeps one open for each request until it ends.",
            _gauge("lora_router_open_streams"),
        ),
        Panel(
            "Reservations",
            "Requests that count on pods. They follow the open streams. The difference does not "
            "grow.",
            _gauge("lora_router_reservations"),
        ),
        Panel(
            "Streams that the gateway closed early",
            "Streams that ended before the answers did, because of the gateway's configuration. "
            "The router then does not see how requests end.",
            (_rate("lora_router_streams_closed_early_total"),),
            unit="cps",
            alerts=("LoraRouterStreamsClosedEarly",),
        ),
        Panel(
            "Memory for bodies",
            "Bytes of request bodies in memory, and the bound (the setting max_buffered_bytes, of "
            "all workers together).",
            (
                *_gauge("lora_router_buffered_bytes"),
                *_gauge("lora_router_max_buffered_bytes", "{{instance}} bound"),
            ),
            unit="bytes",
            alerts=("LoraRouterBuffersNearlyFull",),
        ),
        Panel(
            "Share of the memory for bodies",
            "The share of max_buffered_bytes in use. With several workers: of the worker that uses "
            "most of its own. It may be full while the others have room.",
            _gauge("lora_router_buffered_ratio"),
            unit="percentunit",
            highest=1.0,
            thresholds=(Threshold(0.8, "red"),),
            alerts=("LoraRouterBuffersNearlyFull",),
        ),
        Panel(
            "Bodies that wait, and refused work",
            "Bodies that wait for memory; bodies, streams and connections refused because of a "
            "limit; streams that failed or that the gateway reset before an answer.",
            (
                *_gauge("lora_router_waiting_bodies", "{{instance}} waiting"),
                _rate("lora_router_refused_bodies_total", "", "refused bodies/s"),
                _rate("lora_router_refused_streams_total", "", "refused streams/s"),
                _rate("lora_router_refused_connections_total", "", "refused connections/s"),
                _rate("lora_router_wasted_streams_total", "", "wasted streams/s"),
            ),
            alerts=("LoraRouterBuffersNearlyFull",),
        ),
        Panel(
            "Envoys that follow the list of pods",
            "Envoys that get the list from this router (EDS), and lists that one rejected.",
            (
                *_gauge("lora_router_endpoint_streams"),
                _rate("lora_router_endpoint_lists_rejected_total", "", "rejected lists/s"),
            ),
        ),
        Panel(
            "Known IDs",
            "IDs of responses, files and batches whose pod is known (docs/paths.md).",
            _gauge("lora_router_known_ids"),
        ),
    ),
)

_PEERS = Row(
    "Routers that act as one",
    (
        Panel(
            "Peers",
            "Other routers that each router exchanges reports with, its own workers included, and "
            "those without them (remote). It is the same for all. Empty without peering.",
            (
                *_gauge("lora_router_peers"),
                *_gauge("lora_router_remote_peers", "{{instance}} remote"),
            ),
            alerts=("LoraRouterPeersDiffer", "LoraRouterPeersMissing"),
        ),
        Panel(
            "Age of peers' reports",
            "Age of the oldest of the last reports of all peers. Below a second or two.",
            _gauge("lora_router_peer_report_age_seconds"),
            unit="s",
            alerts=("LoraRouterPeersSilent",),
        ),
        Panel(
            "What peers have in flight",
            "Requests and adapters of peers, and adapters that they hold requests for, according "
            "to their last reports.",
            (
                *_gauge("lora_router_peer_in_flight_requests", "{{instance}} requests"),
                *_gauge("lora_router_peer_in_flight_adapters", "{{instance}} adapters"),
                *_gauge("lora_router_peer_held_adapters", "{{instance}} held adapters"),
            ),
        ),
        Panel(
            "Reports",
            "Reports to and from peers, and readings of pods.",
            (
                _rate("lora_router_peer_reports_total", "direction", "reports {{direction}}"),
                _rate("lora_router_peer_readings_total", "direction", "readings {{direction}}"),
            ),
            unit="cps",
        ),
        Panel(
            "Bytes of peering",
            "Bytes of the messages to and from peers.",
            (_rate("lora_router_peer_bytes_total", "direction", "{{direction}}"),),
            unit="Bps",
        ),
        Panel(
            "Rejected and forgotten peers",
            "Messages that were rejected (a wrong key, for example), peers that left or were "
            "silent, and audits in which a pod's page differed from what a peer had said.",
            (
                _rate("lora_router_peer_rejected_total", "cause", "rejected: {{cause}}"),
                _rate("lora_router_peer_forgotten_total", "cause", "forgotten: {{cause}}"),
                _rate("lora_router_peer_contradictions_total", "", "contradictions"),
                _rate("lora_router_peer_distrusted_total", "", "distrusted"),
            ),
            unit="cps",
            alerts=("LoraRouterPeersDiffer", "LoraRouterPeersSilent"),
        ),
        Panel(
            "Leader",
            "1: this router leads. Empty unless the setting replication is lease.",
            (
                *_gauge("lora_router_leader"),
                _rate("lora_router_leader_transitions_total", "to", "became {{to}}/s"),
                _rate("lora_router_lease_errors_total", "cause", "failed: {{cause}}/s"),
            ),
            alerts=("LoraRouterNoLeader",),
        ),
        Panel(
            "Valkey or Redis",
            "1: connected. Empty unless the setting peering names a server.",
            _gauge("lora_router_redis_connected"),
            highest=1.0,
            alerts=("LoraRouterPeersMissing",),
        ),
    ),
)

_FILES = Row(
    "Certificates and keys",
    (
        Panel(
            "Time until the TLS certificate expires",
            "Of the certificate that the router uses. Empty without TLS.",
            (
                Query(
                    "lora_router_tls_certificate_expiry_timestamp_seconds"
                    f"{{$routers, {_ONE}}} - time()",
                    "{{instance}}",
                ),
            ),
            unit="s",
            alerts=("LoraRouterCertificateExpires",),
        ),
        Panel(
            "Files that cannot be used",
            "Time for which files with keys and certificates have held something that cannot be "
            "used. 0: they are used.",
            (
                *_gauge("lora_router_tls_files_refused_seconds", "{{instance}} of the router"),
                *_gauge("lora_router_pod_files_refused_seconds", "{{instance}} for pods"),
            ),
            unit="s",
            alerts=("LoraRouterCertificateExpires",),
        ),
    ),
)

ROUTER = Dashboard(
    "router",
    "lora-router / Router",
    "The router itself: its event loop, memory, tasks, certificates and peers.",
    (Variable("instance", "Router", "lora_router_build_info{$routers}"),),
    (_PROCESS, _GATEWAY, _PEERS, _FILES),
)
