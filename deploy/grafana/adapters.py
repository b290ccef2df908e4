"""The dashboard of adapters: which one waits, which one is slow, and where it was found."""

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

_ADAPTER = 'adapter=~"$adapter"'
_REQUESTS = "lora_router_adapter_requests_total"
_FIRST_BYTE = "lora_router_adapter_time_to_first_byte_seconds"
_HOLD = "lora_router_adapter_hold_seconds"
_IN_SLOT = f'{_ADAPTER}, found=~"running|slot"'
_COLD = f'{_ADAPTER}, found=~"host-memory|nowhere"'


def _hits(by: str) -> str:
    every = rate(_REQUESTS, by, _ADAPTER)
    return f"({rate(_REQUESTS, by, _IN_SLOT)} or {every} * 0) / {every}"


_TABLE = Row(
    "The busiest adapters",
    (
        Panel(
            "Adapters",
            "The busiest adapters (the setting metrics_adapters), and the others as 'other'. "
            "Sort by 'Hold p99' to find the adapter that waits, and by 'First byte p99' to find "
            "the slow one. An adapter with few hits is loaded again and again: the fleet lacks "
            "slots for it.",
            (
                Query(rate(_REQUESTS, "adapter", _ADAPTER), "Requests/s", "reqps"),
                Query(_hits("adapter"), "Hits", "percentunit"),
                Query(rate(f"{_HOLD}_count", "adapter", _ADAPTER), "Held/s", "reqps"),
                Query(quantile(0.99, _HOLD, "adapter", _ADAPTER), "Hold p99", "s"),
                Query(quantile(0.5, _FIRST_BYTE, "adapter", _ADAPTER), "First byte p50", "s"),
                Query(quantile(0.99, _FIRST_BYTE, "adapter", _ADAPTER), "First byte p99", "s"),
            ),
            kind="table",
            width=24,
            height=11,
            by="adapter",
            alerts=("LoraRouterHoldsLong", "LoraRouterManyColdPlacements"),
        ),
    ),
)

_WAIT = Row(
    "Which adapter waits, and why",
    (
        Panel(
            "Hold time, p99",
            "For how long the router held the requests for each adapter that it held. Requests "
            "that were not held do not count.",
            (Query(quantile(0.99, _HOLD, "adapter", _ADAPTER), "{{adapter}}"),),
            unit="s",
            thresholds=(Threshold(10, "red"),),
            alerts=("LoraRouterHoldsLong",),
        ),
        Panel(
            "Held requests",
            "Requests for each adapter that were held and then decided, in each second.",
            (Query(rate(f"{_HOLD}_count", "adapter", _ADAPTER), "{{adapter}}"),),
            unit="reqps",
            alerts=("LoraRouterHoldsLong", "LoraRouterRefusesRequests"),
        ),
        Panel(
            "Why requests are held",
            "Requests that began to wait, by the reason of the algorithm, for all adapters. "
            "`lora-router explain --model ADAPTER` shows it for one.",
            (Query(rate("lora_router_requests_total", "reason", 'outcome="held"'), "{{reason}}"),),
            unit="reqps",
            alerts=("LoraRouterHoldsLong",),
        ),
    ),
)

_HITS = Row(
    "Hits and cold placements",
    (
        Panel(
            "Hits",
            "Share of the requests for each adapter that found it in a slot of the pod.",
            (Query(_hits("adapter"), "{{adapter}}"),),
            unit="percentunit",
            highest=1.0,
            alerts=("LoraRouterManyColdPlacements",),
        ),
        Panel(
            "Cold placements",
            "Requests that went to a pod that had to load the adapter first. An adapter that "
            "shows up all the time is evicted again and again.",
            (Query(rate(_REQUESTS, "adapter", _COLD), "{{adapter}}"),),
            unit="reqps",
            alerts=("LoraRouterManyColdPlacements",),
        ),
        Panel(
            "Where adapters were found",
            "running: in a running batch. slot: in a slot. host-memory: in the pod's memory. "
            "nowhere: loaded from disk.",
            (Query(rate(_REQUESTS, "found", _ADAPTER), "{{found}}"),),
            unit="reqps",
            stacked=True,
            alerts=("LoraRouterManyColdPlacements",),
        ),
    ),
)

_TIMES = Row(
    "Times and tokens",
    (
        Panel(
            "Time to first byte",
            "From the headers of the request to those of the answer, the time in the router "
            "included.",
            quantiles(_FIRST_BYTE, "adapter", "{{adapter}}", _ADAPTER),
            unit="s",
            alerts=("LoraRouterFirstByteSlow",),
        ),
        Panel(
            "Duration, p99",
            "From the headers of the request to the end of its answer.",
            (
                Query(
                    quantile(
                        0.99, "lora_router_adapter_request_duration_seconds", "adapter", _ADAPTER
                    ),
                    "{{adapter}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            "Requests",
            "Routed requests for each adapter.",
            (Query(rate(_REQUESTS, "adapter", _ADAPTER), "{{adapter}}"),),
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Tokens",
            "Tokens of prompts and completions in each second. Empty unless the setting tokens "
            "is on.",
            (
                Query(
                    rate("lora_router_adapter_tokens_total", "adapter, kind", _ADAPTER),
                    "{{adapter}} {{kind}}",
                ),
            ),
            unit="short",
        ),
    ),
)

_CALLS = "lora_router_adapter_calls_total"
_LOADS = "lora_router_adapter_load_seconds"
_DECLARED = "lora_router_declared_adapters{$routers}"
_PUT_OFF = "lora_router_pods_put_off{$routers}"
_WRITES = "lora_router_model_adapter_status_writes_total"

_LOADING = Row(
    "Declared adapters",
    (
        Panel(
            "Declared adapters",
            "loaded: a ready pod lists it. missing: it belongs on a pod, and no pod lists it. "
            "unplaced: no pod is fit or has room. Empty if no adapters are declared.",
            (Query(f"max by (state) ({_DECLARED})", "{{state}}"),),
            unit="short",
            stacked=True,
            alerts=("LoraRouterAdaptersMissing",),
        ),
        Panel(
            "Loads and unloads",
            "Calls of pods by outcome. refused: the pod cannot load this adapter. cannot-load: it "
            "takes no such calls.",
            (Query(rate(_CALLS, "action, outcome"), "{{action}} {{outcome}}"),),
            unit="short",
            alerts=("LoraRouterAdaptersMissing",),
        ),
        Panel(
            "Pods whose loads are put off",
            "stall: they serve requests, and loads have stalled them enough. memory: host memory "
            "is full. failing: what is missing failed.",
            (Query(f"max by (reason) ({_PUT_OFF})", "{{reason}}"),),
            unit="short",
            stacked=True,
            alerts=("LoraRouterAdaptersMissing",),
        ),
        Panel(
            "Duration of loads",
            "How long pods took to load adapters.",
            quantiles(_LOADS, "", ""),
            unit="s",
        ),
        Panel(
            "Writes of statuses",
            "Writes of the status of ModelAdapters. conflict: the resource has changed meanwhile, "
            "and is looked at again. failed: the API server refused the write, or could not be "
            "reached. Empty if no ModelAdapters are followed.",
            (Query(rate(_WRITES, "result"), "{{result}}"),),
            unit="cps",
            alerts=("LoraRouterStatusWritesFail",),
        ),
    ),
)

ADAPTERS = Dashboard(
    "adapters",
    "lora-router / Adapters",
    "Which adapter waits, which one is slow, and where it was found.",
    (Variable("adapter", "Adapter", "lora_router_adapter_requests_total{$routers}"),),
    (_TABLE, _WAIT, _HITS, _TIMES, _LOADING),
)
