"""The dashboard to start with: are clients served well, and if not, in which part to look."""

from deploy.grafana.panels import (
    BASE_MODEL,
    Dashboard,
    Panel,
    Query,
    Row,
    Threshold,
    quantile,
    quantiles,
    rate,
)

_MODEL = 'base_model=~"$base_model"'
_FIRST_BYTE = "lora_router_time_to_first_byte_seconds"
_HITS = (
    'sum(rate(lora_router_adapter_requests_total{$routers, found=~"running|slot"}'
    "[$__rate_interval])) / sum(rate(lora_router_adapter_requests_total{$routers}"
    "[$__rate_interval]))"
)
_ROUTED = rate("lora_router_requests_total", "", 'outcome="routed"')
_FAILED = rate("lora_router_failed_requests_total", "", f'{_MODEL}, cause="status"')
_ENDED = rate("lora_router_request_duration_seconds_count", "", _MODEL)
_FAILED_SHARE = f"{_FAILED} / {_ENDED}"


def _slots(metric: str, by: str, legend: str) -> Query:
    # Each router reports the whole fleet, so their values are not added up.
    return Query(f"max by ({by}) ({metric}{{$routers, {_MODEL}}})", legend)


_NOW = Row(
    "Now",
    (
        Panel(
            "Routers that are ready",
            "Routers that say that they can route requests. Compare it with the number that you "
            "run.",
            (Query("sum(lora_router_ready{$routers})", "ready"),),
            kind="stat",
            width=3,
            height=4,
            thresholds=(Threshold(1, "green"),),
            alerts=("LoraRouterDown", "LoraRouterNotReady"),
        ),
        Panel(
            "Pods that are ready",
            "Pods that can get requests, as the router that knows fewest of them sees it.",
            (Query('min(lora_router_pods{$routers, state="ready"})', "ready"),),
            kind="stat",
            width=3,
            height=4,
            thresholds=(Threshold(1, "green"),),
            alerts=("LoraRouterNoReadyPods",),
        ),
        Panel(
            "Requests",
            "Requests that were sent to a pod, in each second.",
            (Query(_ROUTED, "routed"),),
            unit="reqps",
            kind="stat",
            width=3,
            height=4,
        ),
        Panel(
            "Failed share",
            "Share of the routed requests that ended with status 5xx, from the pod or from Envoy "
            "in its place.",
            (Query(_FAILED_SHARE, "failed"),),
            unit="percentunit",
            kind="stat",
            width=3,
            height=4,
            thresholds=(Threshold(0.01, "orange"), Threshold(0.05, "red")),
            alerts=("LoraRouterRequestsFail",),
        ),
        Panel(
            "First byte, p99",
            "99 of 100 requests got the first byte of their answer sooner, the time in the router "
            "included.",
            (Query(quantile(0.99, _FIRST_BYTE, "", _MODEL), "p99"),),
            unit="s",
            kind="stat",
            width=3,
            height=4,
            thresholds=(Threshold(5, "orange"), Threshold(15, "red")),
            alerts=("LoraRouterFirstByteSlow",),
        ),
        Panel(
            "Held now",
            "Requests that wait in the routers for a slot.",
            (Query("sum(lora_router_held_requests{$routers})", "held"),),
            kind="stat",
            width=3,
            height=4,
            thresholds=(Threshold(1, "orange"), Threshold(100, "red")),
            alerts=("LoraRouterHoldsLong", "LoraRouterRefusesRequests"),
        ),
        Panel(
            "Slots lacking",
            "Slots that the fleet would need in addition, so that no adapter waits for one.",
            (Query("sum(max by (base_model) (lora_router_slots_lacking{$routers}))", "slots"),),
            kind="stat",
            width=3,
            height=4,
            thresholds=(Threshold(1, "orange"), Threshold(4, "red")),
            alerts=("LoraRouterSlotsLacking",),
        ),
        Panel(
            "Hits",
            "Share of the requests for adapters that found their adapter in a slot of the pod. "
            "Each of the others waits until the adapter is loaded.",
            (Query(_HITS, "hits"),),
            unit="percentunit",
            kind="stat",
            width=3,
            height=4,
            thresholds=(Threshold(0.5, "orange"), Threshold(0.8, "green")),
            alerts=("LoraRouterManyColdPlacements",),
        ),
    ),
)

_CLIENTS = Row(
    "What clients see",
    (
        Panel(
            "Time to first byte",
            "From the headers of the request to those of the answer. It contains the time in which "
            "the body arrives, the time for which the router holds the request, and the pod's "
            "time.",
            quantiles(_FIRST_BYTE, "base_model", "{{base_model}}", _MODEL),
            unit="s",
            alerts=("LoraRouterFirstByteSlow",),
        ),
        Panel(
            "Duration",
            "From the headers of the request to the end of its answer. It grows with the number of "
            "tokens that clients ask for.",
            quantiles(
                "lora_router_request_duration_seconds", "base_model", "{{base_model}}", _MODEL
            ),
            unit="s",
        ),
        Panel(
            "Requests by outcome",
            "routed: sent to a pod. refused: the router answered with an error. answered: the "
            "router answered in place of a pod. cancelled: the client left while its request was "
            "held. held: the request began to wait, and has a second outcome later.",
            (Query(rate("lora_router_requests_total", "outcome"), "{{outcome}}"),),
            unit="reqps",
            alerts=("LoraRouterGetsNoRequests", "LoraRouterDecisionsVanish"),
        ),
        Panel(
            "Refused requests by reason",
            "overloaded and too-many-held: the fleet lacks slots. no-ready-pod and models-unknown: "
            "pods are missing. adapter-not-loaded: no pod could load a declared adapter. "
            "router-overloaded: the router has no memory for bodies, or no time. shutting-down: "
            "the router stopped. none-selected: a filter, or the gateway's subset, leaves no pod. "
            "The others are errors of clients.",
            (
                Query(
                    rate("lora_router_requests_total", "reason", 'outcome="refused"'), "{{reason}}"
                ),
            ),
            unit="reqps",
            alerts=("LoraRouterRefusesRequests",),
        ),
        Panel(
            "Answers by who gave them",
            "by=pod is the pod's own answer. by=envoy is an answer that Envoy gave in its place, "
            "for example because it could not connect.",
            (Query(rate("lora_router_answers_total", "by, status"), "{{by}} {{status}}"),),
            unit="reqps",
            alerts=("LoraRouterRequestsFail", "LoraRouterStreamsClosedEarly"),
        ),
        Panel(
            "Failed requests by pod",
            "Routed requests that ended with status 5xx. One pod alone: look at its log. All pods: "
            "look at what clients send, and at the gateway. The failures of a pod that has left "
            "are in the next panel only.",
            (
                Query(
                    rate(
                        "lora_router_pod_failed_requests_total", "pod", f'{_MODEL}, cause="status"'
                    ),
                    "{{pod}}",
                ),
            ),
            unit="reqps",
            alerts=("LoraRouterRequestsFail", "LoraRouterPodEjectedLong"),
        ),
        Panel(
            "Failed requests by cause",
            "status: they ended with status 5xx, from the pod or from Envoy in its place. "
            "unanswered: they ended before an answer began, mostly because the client left. Pods "
            "that have left count, too. An answer that was cut after it began counts in neither.",
            (Query(rate("lora_router_failed_requests_total", "cause", _MODEL), "{{cause}}"),),
            unit="reqps",
            alerts=("LoraRouterRequestsFail", "LoraRouterRequestsUnanswered"),
        ),
    ),
)

_WAITING = Row(
    "Waiting for slots",
    (
        Panel(
            "Hold time",
            "For how long the router held the requests that it held. Requests that were not held "
            "do not count.",
            quantiles("lora_router_hold_seconds", "base_model", "{{base_model}}", _MODEL),
            unit="s",
            alerts=("LoraRouterHoldsLong",),
        ),
        Panel(
            "Held requests",
            "Requests that wait, by router. It is bounded by the setting max_held_requests.",
            (Query("lora_router_held_requests{$routers}", "{{instance}}"),),
            alerts=("LoraRouterHoldsLong",),
        ),
        Panel(
            "Why requests are held",
            "Requests that began to wait, by the reason of the algorithm (docs/routing.md).",
            (Query(rate("lora_router_requests_total", "reason", 'outcome="held"'), "{{reason}}"),),
            unit="reqps",
            alerts=("LoraRouterHoldsLong",),
        ),
        Panel(
            "Slots",
            "Slots of the ready pods, slots that the adapters with work need, and slots that are "
            "missing now. Add pods, or raise max_loras of vLLM (docs/autoscaling.md).",
            (
                _slots("lora_router_slots", "base_model, state", "{{base_model}} {{state}}"),
                _slots("lora_router_slots_wanted", "base_model", "{{base_model}} wanted"),
                _slots("lora_router_slots_lacking", "base_model", "{{base_model}} lacking"),
            ),
            alerts=("LoraRouterSlotsLacking",),
        ),
        Panel(
            "Closed slots",
            "Slots that the router keeps for the request that has waited longest: requests for the "
            "adapter that is in such a slot go to other pods.",
            (Query("sum by (instance) (lora_router_closed_slots{$routers})", "{{instance}}"),),
            alerts=("LoraRouterHoldsLong",),
        ),
        Panel(
            "Spills and replications",
            "A spill is a request that went to a pod without a free slot. A replication is an "
            "adapter that got a further pod.",
            (
                Query(rate("lora_router_spills_total", "", _MODEL), "spills"),
                Query(rate("lora_router_replications_total", "", _MODEL), "replications"),
            ),
            unit="reqps",
        ),
    ),
)

_PLACES = Row(
    "Where requests go",
    (
        Panel(
            "Where adapters were found",
            "running: in a running batch. slot: in a slot. host-memory: in the pod's memory, from "
            "which a load takes about a tenth of a second. nowhere: loaded from disk.",
            (Query(rate("lora_router_adapter_requests_total", "found"), "{{found}}"),),
            unit="reqps",
            stacked=True,
            alerts=("LoraRouterManyColdPlacements",),
        ),
        Panel(
            "Why a pod was picked",
            "Routed requests by the reason of the algorithm (docs/routing.md).",
            (
                Query(
                    rate("lora_router_requests_total", "algorithm, reason", 'outcome="routed"'),
                    "{{algorithm}} {{reason}}",
                ),
            ),
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Tokens",
            "Tokens of prompts and completions in each second. Empty unless the setting tokens "
            "is on.",
            (
                Query(
                    rate("lora_router_tokens_total", "base_model, kind", _MODEL),
                    "{{base_model}} {{kind}}",
                ),
            ),
            unit="short",
        ),
    ),
)

OVERVIEW = Dashboard(
    "overview",
    "lora-router / Overview",
    "Whether clients are served well, and in which part to look if they are not.",
    (BASE_MODEL,),
    (_NOW, _CLIENTS, _WAITING, _PLACES),
)
