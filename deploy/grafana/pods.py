"""The dashboard of pods: load, health, and how well the router knows them."""

from deploy.grafana.panels import (
    Dashboard,
    Panel,
    Query,
    Row,
    Threshold,
    Variable,
    quantile,
    quantiles,
    rate,
)

_POD = 'pod=~"$pod"'

_LOAD = Row(
    "Load",
    (
        Panel(
            "Requests in flight",
            "Requests that the routers have sent to each pod and that have not finished.",
            (
                Query(
                    f"sum by (pod) (lora_router_in_flight_requests{{$routers, {_POD}}})", "{{pod}}"
                ),
            ),
        ),
        Panel(
            "Adapters in flight",
            "Distinct adapters of these requests, as the router with the most of them counts. "
            "More than the pod has slots means that requests wait in the pod.",
            (
                Query(
                    f"max by (pod) (lora_router_in_flight_adapters{{$routers, {_POD}}})", "{{pod}}"
                ),
            ),
        ),
        Panel(
            "Time to first byte, p99",
            "From the headers of the request to those of the answer, by the pod that answered. A "
            "pod that stands out has a slow engine or too many adapters.",
            (
                Query(
                    quantile(0.99, "lora_router_pod_time_to_first_byte_seconds", "pod", _POD),
                    "{{pod}}",
                ),
            ),
            unit="s",
            alerts=("LoraRouterFirstByteSlow",),
        ),
        Panel(
            "Duration",
            "From the headers of the request to the end of its answer, by pod.",
            quantiles("lora_router_pod_request_duration_seconds", "pod", "{{pod}}", _POD),
            unit="s",
        ),
        Panel(
            "Requests",
            "Requests that each pod answered.",
            (
                Query(
                    rate("lora_router_pod_request_duration_seconds_count", "pod", _POD), "{{pod}}"
                ),
            ),
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Failed requests",
            "Routed requests that ended with status 5xx (status), or before an answer began, "
            "mostly because the client left (unanswered). A pod that hangs has more of these than "
            "others.",
            (
                Query(
                    rate("lora_router_pod_failed_requests_total", "pod, cause", _POD),
                    "{{pod}} {{cause}}",
                ),
            ),
            unit="reqps",
            alerts=("LoraRouterRequestsFail", "LoraRouterRequestsUnanswered"),
        ),
    ),
)

_HEALTH = Row(
    "Health",
    (
        Panel(
            "Pods by state",
            "ready: Kubernetes says that the pod is ready, or the file lists it.",
            (Query("max by (state) (lora_router_pods{$routers})", "{{state}}"),),
            alerts=("LoraRouterNoReadyPods",),
        ),
        Panel(
            "Pods by health",
            "ejected: the pod failed and gets no requests. suspect: there is evidence against it. "
            "trying: it gets single requests again (docs/health.md).",
            (Query("max by (health) (lora_router_pods_by_health{$routers})", "{{health}}"),),
            alerts=("LoraRouterPodEjectedLong",),
        ),
        Panel(
            "Ejections by cause",
            "How often pods were ejected, in each second, by what they did (docs/health.md).",
            (Query(rate("lora_router_pod_ejections_total", "cause"), "{{cause}}"),),
            unit="cps",
            alerts=("LoraRouterPodEjectedLong",),
        ),
        Panel(
            "Changes of health",
            "How often pods changed to each state of health. A pod that changes all the time works "
            "only sometimes.",
            (Query(rate("lora_router_pod_health_transitions_total", "to"), "{{to}}"),),
            unit="cps",
            alerts=("LoraRouterPodEjectedLong",),
        ),
        Panel(
            "Requests that another pod served",
            "Envoy could not reach the picked pod and sent the request to another one, or tried "
            "again.",
            (Query(rate("lora_router_retried_requests_total", ""), "retried"),),
            unit="reqps",
            alerts=("LoraRouterRequestsFail",),
        ),
        Panel(
            "Closed slots",
            "Slots that are kept for the request that has waited longest.",
            (Query("sum(lora_router_closed_slots{$routers})", "closed"),),
        ),
    ),
)

_KNOWLEDGE = Row(
    "What the router knows of pods",
    (
        Panel(
            "Age of snapshots",
            "Time since the last good read of each pod's /metrics. Below a few seconds "
            "(pod_metric_refresh_interval_ms). The router does not use one that is too old.",
            (
                Query(
                    f"max by (pod) (lora_router_snapshot_age_seconds{{$routers, {_POD}}})",
                    "{{pod}}",
                ),
            ),
            unit="s",
            thresholds=(Threshold(30, "red"),),
            alerts=("LoraRouterSnapshotsStale",),
        ),
        Panel(
            "Failed scrapes",
            "Failed reads of a pod's /metrics or /v1/models, by cause, and how many failed in a "
            "row. Nothing is shown if none failed.",
            (
                Query(
                    rate("lora_router_scrape_failures_total", "pod, kind, cause", _POD),
                    "{{pod}} {{kind}} {{cause}}",
                ),
                Query(
                    "max by (pod, kind) (lora_router_scrape_failures_in_a_row"
                    f"{{$routers, {_POD}}})",
                    "{{pod}} {{kind}} in a row",
                ),
            ),
            unit="cps",
            alerts=("LoraRouterScrapesFail",),
        ),
        Panel(
            "Time of scrapes, p99",
            "Time of a successful read. It takes the router's time, too.",
            (Query(quantile(0.99, "lora_router_scrape_seconds", "kind"), "{{kind}}"),),
            unit="s",
        ),
        Panel(
            "Pods that do not show their load",
            "Ready pods whose page has no known metric of their load, by engine (docs/engines.md).",
            (Query("max by (engine) (lora_router_pods_without_load{$routers})", "{{engine}}"),),
        ),
        Panel(
            "Age of the list of pods",
            "Time since the Kubernetes API server last confirmed the pods. Empty without "
            "Kubernetes.",
            (Query("lora_router_pods_age_seconds{$routers}", "{{instance}}"),),
            unit="s",
            alerts=("LoraRouterPodsUnconfirmed",),
        ),
        Panel(
            "Namespaces that cannot be read",
            "Namespaces that the router could not read since its start, and whose pods it does not "
            "know. `/readyz` names them (docs/kubernetes.md). Empty without Kubernetes.",
            (Query("lora_router_unread_namespaces{$routers}", "{{instance}}"),),
            alerts=("LoraRouterNamespaceUnread",),
        ),
        Panel(
            "Discovery",
            "Events of pods from the API server, and failures to list or watch them.",
            (
                Query(rate("lora_router_pod_events_total", "kind"), "{{kind}}"),
                Query(rate("lora_router_discovery_failures_total", "cause"), "failed: {{cause}}"),
            ),
            unit="cps",
            alerts=("LoraRouterPodsUnconfirmed",),
        ),
        Panel(
            "Names of models that mean two things",
            "Names that pods use for different models. `/readyz` describes them (docs/models.md).",
            (Query("max(lora_router_ambiguous_models{$routers})", "names"),),
            thresholds=(Threshold(1, "orange"),),
        ),
    ),
)

PODS = Dashboard(
    "pods",
    "lora-router / Pods",
    "Load and health of the pods, and how well the router knows them.",
    (Variable("pod", "Pod", "lora_router_in_flight_requests{$routers}"),),
    (_LOAD, _HEALTH, _KNOWLEDGE),
)
