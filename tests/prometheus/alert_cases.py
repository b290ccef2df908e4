"""For each alert: series that fire it, and series that nearly do.

Values are those of promtool: ``0+60x200`` begins at 0 and grows by 60 with each scrape, which is
each minute. They replace what two healthy routers report (``HEALTHY``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Series = Mapping[str, str]
"""Values by series. The labels of the routers are added, except where ``instance`` is one of them;
``@2`` is the second router alone."""

LENGTH = 130
"""Scrapes."""
ROUTERS = ("router-1:8080", "router-2:8080")
DAY = 86400


def flat(value: float) -> str:
    """Return values that stay as they are."""
    return f"{value}+0x{LENGTH}"


def growing(by: float) -> str:
    """Return a counter that grows by so much in a minute."""
    return f"0+{by}x{LENGTH}"


def times(metric: str, below: float, above: float, *, limit: str, **labels: str) -> dict[str, str]:
    """Return a histogram that grows by so many values in a minute, below and above a limit."""
    text = "".join(f',{name}="{value}"' for name, value in labels.items())
    return {
        f'{metric}_bucket{{le="{limit}"{text}}}': growing(below),
        f'{metric}_bucket{{le="60.0"{text}}}': growing(below + above),
        f'{metric}_bucket{{le="+Inf"{text}}}': growing(below + above),
        f"{metric}_count{{{text[1:]}}}": growing(below + above),
    }


_FAILED = 'lora_router_failed_requests_total{base_model="base",cause="status"}'
_UNANSWERED = 'lora_router_failed_requests_total{base_model="base",cause="unanswered"}'
_ENDED = 'lora_router_request_duration_seconds_count{base_model="base"}'
_IN_A_ROW = 'lora_router_scrape_failures_in_a_row{kind="metrics",pod="vllm-1"}'
_SCRAPES = 'lora_router_scrape_failures_total{kind="metrics",pod="vllm-1",cause="timeout"}'
_WRITTEN = 'lora_router_model_adapter_status_writes_total{result="written"}'
_UNWRITTEN = 'lora_router_model_adapter_status_writes_total{result="failed"}'

HEALTHY: Series = {
    "up{}": flat(1),
    'lora_router_build_info{version="0.1.0"}': flat(1),
    "lora_router_ready{}": flat(1),
    "lora_router_reservations{}": flat(5),
    'lora_router_requests_total{algorithm="lora-placement",outcome="routed",reason="r"}': growing(
        600
    ),
    # Errors of clients are no fault.
    'lora_router_requests_total{algorithm="",outcome="refused",reason="unknown-model"}': growing(
        60
    ),
    _FAILED: growing(6),
    # Clients leave now and then.
    _UNANSWERED: growing(48),
    _ENDED: growing(600),
    **times("lora_router_time_to_first_byte_seconds", 600, 0, limit="1.0", base_model="base"),
    **times("lora_router_hold_seconds", 60, 0, limit="1.0", base_model="base"),
    'lora_router_adapter_requests_total{adapter="a1",found="slot"}': growing(500),
    'lora_router_adapter_requests_total{adapter="a1",found="nowhere"}': growing(20),
    'lora_router_slots_lacking{base_model="base"}': flat(0),
    'lora_router_declared_adapters{state="loaded"}': flat(20),
    'lora_router_declared_adapters{state="missing"}': flat(0),
    _WRITTEN: growing(5),
    _UNWRITTEN: flat(3),
    "lora_router_streams_closed_early_total{}": flat(0),
    'lora_router_pods{state="ready"}': flat(3),
    'lora_router_pods{state="not-ready"}': flat(1),
    'lora_router_pods_by_health{health="ejected"}': flat(0),
    'lora_router_snapshot_age_seconds{pod="vllm-1"}': flat(5),
    _SCRAPES: flat(3),
    _IN_A_ROW: flat(0),
    "lora_router_pods_age_seconds{}": flat(250),
    "lora_router_peers{}": flat(1),
    "lora_router_remote_peers{}": flat(1),
    "lora_router_peer_report_age_seconds{}": flat(0.5),
    "lora_router_redis_connected{}": flat(1),
    "lora_router_loop_lag_seconds{}": flat(0.01),
    "lora_router_loop_stalls_total{}": flat(1),
    "lora_router_failing_tasks{}": flat(0),
    "lora_router_buffered_bytes{}": flat(1e6),
    "lora_router_max_buffered_bytes{}": flat(2**28),
    "lora_router_buffered_ratio{}": flat(0.004),
    "lora_router_log_lines_dropped_total{}": flat(10),
    "lora_router_tls_certificate_expiry_timestamp_seconds{}": flat(30 * DAY),
    "lora_router_tls_files_refused_seconds{}": flat(0),
    "lora_router_pod_files_refused_seconds{}": flat(0),
}
"""What each of two routers reports."""

GONE = ""
"""Instead of values: the series is not there."""


@dataclass(frozen=True)
class Case:
    """What fires an alert, and what nearly does."""

    alert: str
    fires: Series
    quiet: Series = field(default_factory=dict)
    at: str = "40m"
    """When the alert fires."""


_MANY = 'lora_router_requests_total{algorithm="",outcome="refused",reason="overloaded"}'
_COLD = 'lora_router_adapter_requests_total{adapter="a1",found="nowhere"}'
_ROUTED = 'lora_router_requests_total{algorithm="lora-placement",outcome="routed",reason="r"}'
_REFUSED = 'lora_router_requests_total{algorithm="",outcome="refused",reason="unknown-model"}'
_ROUTED_BEFORE = _ROUTED.replace(
    "{", '{namespace="models",job="lora-router",instance="router-0:8080",'
)
_OTHERS = (
    'lora_router_build_info{namespace="others",job="fleet-b",instance="router-9:8080",'
    'version="0.1.0"}'
)
_DOWN = 'up{namespace="models",job="lora-router",instance="router-3:8080"}'
_WAS_ROUTER = _DOWN.replace("up{", "lora_router_build_info{")
_ALONE_FOR_HOURS = {
    **dict.fromkeys(HEALTHY, GONE),
    _DOWN.replace("router-3", "router-1"): "1+0x600",
    _WAS_ROUTER.replace("router-3", "router-1"): "1+0x600",
}
_STANDBY = {
    "lora_router_leader@1{}": flat(1),
    "lora_router_leader@2{}": flat(0),
    "lora_router_ready@2{}": flat(0),
    "lora_router_ready_to_lead{}": flat(1),
}
_WORKERS = {"lora_router_ready_workers{}": flat(2)}
_EXPIRES = "lora_router_tls_certificate_expiry_timestamp_seconds{}"
_FIRST_BYTE = "lora_router_time_to_first_byte_seconds"

CASES = (
    Case(
        "LoraRouterRequestsFail",
        {_FAILED: growing(36)},
        {_FAILED: growing(24)},
    ),
    Case(
        "LoraRouterRequestsFail",
        # All requests of a router that has just started fail.
        {
            **dict.fromkeys((_FAILED, _UNANSWERED, _ENDED), GONE),
            f"{_FAILED.replace('{', '@1{')}": "_x20 0+6x110",
            f"{_ENDED.replace('{', '@1{')}": "_x20 0+6x110",
        },
    ),
    Case(
        "LoraRouterRequestsUnanswered",
        # One of five clients leaves. That is nothing critical.
        {_UNANSWERED: growing(120)},
        # An hour's clients leave in one minute.
        {_UNANSWERED: "0+0x20 400+0x110"},
    ),
    Case(
        "LoraRouterFirstByteSlow",
        times(_FIRST_BYTE, 590, 10, limit="1.0", base_model="base"),
        times(_FIRST_BYTE, 599, 1, limit="1.0", base_model="base"),
    ),
    Case(
        "LoraRouterHoldsLong",
        times("lora_router_hold_seconds", 50, 10, limit="1.0", base_model="base"),
        times("lora_router_hold_seconds", 60, 0, limit="5.0", base_model="base"),
    ),
    *(
        Case(
            "LoraRouterRefusesRequests",
            {_MANY.replace("overloaded", reason): growing(2)},
            {_MANY.replace("overloaded", reason): growing(0.5)},
        )
        for reason in (
            "overloaded",
            "too-many-held",
            "no-ready-pod",
            "models-unknown",
            "adapter-not-loaded",
            "router-overloaded",
        )
    ),
    Case("LoraRouterSlotsLacking", {'lora_router_slots_lacking{base_model="base"}': flat(2)}),
    Case("LoraRouterManyColdPlacements", {_COLD: growing(400)}, {_COLD: growing(200)}),
    Case(
        "LoraRouterAdaptersMissing",
        {'lora_router_declared_adapters{state="missing"}': flat(2)},
        {'lora_router_declared_adapters{state="loaded"}': flat(2)},
    ),
    Case(
        "LoraRouterStatusWritesFail",
        # One resource: in the end it is tried every five minutes.
        {_UNWRITTEN: "0+1x8 8+0x4 9+0x4 10+0x4 11+0x4 12+0x4 13+0x4 14+0x100"},
        # The API server is away for three minutes.
        {_UNWRITTEN: "0+0x29 5+5x2 15+0x100"},
    ),
    Case("LoraRouterStreamsClosedEarly", {"lora_router_streams_closed_early_total{}": growing(1)}),
    Case(
        "LoraRouterGetsNoRequests",
        {_ROUTED: "0+600x70 42000+0x130", _REFUSED: "0+60x70 4200+0x130", _FAILED: GONE},
        {_ROUTED: "0+600x70 42000+6x130", _REFUSED: "0+60x70 4200+0x130", _FAILED: GONE},
        at="2h",
    ),
    Case(
        "LoraRouterGetsNoRequests",
        # The routers were replaced. The new ones, whose addresses are others, get no requests.
        {
            **dict.fromkeys((_ROUTED, _REFUSED, _FAILED, _UNANSWERED, _ENDED), GONE),
            _ROUTED_BEFORE: "0+600x70 stale",
            "lora_router_reservations{}": flat(0),
        },
        {_REFUSED: GONE, _ROUTED_BEFORE: "0+600x70 stale"},
        at="2h",
    ),
    Case(
        "LoraRouterGetsNoRequests",
        # The gateway goes past the router for longer than the alert looks back.
        {**_ALONE_FOR_HOURS, _ROUTED_BEFORE: "0+600x70 42000+0x530"},
        # Requests come again.
        {**_ALONE_FOR_HOURS, _ROUTED_BEFORE: "0+600x70 42000+0x330 42000+600x200"},
        at="8h",
    ),
    Case(
        "LoraRouterNoReadyPods",
        {'lora_router_pods{state="ready"}': flat(0)},
        {'lora_router_pods{state="ready"}': flat(1)},
    ),
    Case(
        "LoraRouterPodEjectedLong",
        {'lora_router_pods_by_health{health="ejected"}': flat(1)},
        {'lora_router_pods_by_health{health="suspect"}': flat(1)},
    ),
    Case(
        "LoraRouterSnapshotsStale",
        {'lora_router_snapshot_age_seconds{pod="vllm-1"}': flat(31)},
        {'lora_router_snapshot_age_seconds{pod="vllm-1"}': flat(14)},
    ),
    Case(
        "LoraRouterScrapesFail",
        {_SCRAPES: growing(12)},
        {_SCRAPES: growing(1)},
    ),
    Case(
        "LoraRouterScrapesFail",
        # A list of models is read once in a minute, and each read fails.
        {_SCRAPES: growing(1), _IN_A_ROW: growing(1)},
        # A peer reads the pod by now.
        {_SCRAPES: flat(40), _IN_A_ROW: flat(40)},
    ),
    Case(
        "LoraRouterPodsUnconfirmed",
        {"lora_router_pods_age_seconds{}": flat(1000)},
        {"lora_router_pods_age_seconds{}": flat(600)},
    ),
    Case(
        "LoraRouterNamespaceUnread",
        {"lora_router_unread_namespaces{}": flat(1)},
        {"lora_router_unread_namespaces{}": "1+0x30 0+0x170"},
    ),
    Case("LoraRouterDown", {"up@2{}": "1+0x20 0+0x180"}, {"up@2{}": "1+0x39 0+0x0 1+0x159"}),
    Case(
        "LoraRouterDown",
        # It fails for longer than Prometheus looks back for what it was.
        {**_ALONE_FOR_HOURS, _DOWN: "1+0x20 0+0x580", _WAS_ROUTER: "1+0x20 stale"},
        # A pod that is removed is no target any more.
        {**_ALONE_FOR_HOURS, _DOWN: "1+0x20 0+0x30 stale", _WAS_ROUTER: "1+0x20 stale"},
        at="8h",
    ),
    Case(
        "LoraRouterDown",
        # It has never answered.
        {_DOWN: flat(0)},
        # In a job that has other pods too, it may be one of those.
        {_DOWN: flat(0), _DOWN.replace("router-3", "vllm-1"): flat(1)},
    ),
    Case(
        "LoraRouterAbsent",
        dict.fromkeys(HEALTHY, GONE),
        {f"{series.replace('{', '@2{', 1)}": GONE for series in HEALTHY},
    ),
    Case(
        "LoraRouterAbsent",
        # The routers of another release are gone, and these are not.
        {_OTHERS: "1+0x30 stale"},
        {_OTHERS: "1+0x130"},
    ),
    Case(
        "LoraRouterNotReady",
        {"lora_router_ready@2{}": flat(0)},
        {
            "lora_router_ready@2{}": flat(0),
            "lora_router_leader@1{}": flat(1),
            "lora_router_leader@2{}": flat(0),
        },
    ),
    Case(
        "LoraRouterStandbyNotReady",
        {**_STANDBY, "lora_router_ready_to_lead@2{}": flat(0)},
        _STANDBY,
    ),
    Case(
        "LoraRouterNoLeader",
        {"lora_router_leader{}": flat(0)},
        {"lora_router_leader@1{}": flat(0), "lora_router_leader@2{}": flat(1)},
    ),
    Case(
        "LoraRouterPeersDiffer",
        {"lora_router_peers@1{}": flat(2)},
        {"lora_router_peers{}": flat(3)},
    ),
    Case(
        "LoraRouterPeersMissing",
        {"lora_router_peers{}": flat(0), "lora_router_remote_peers{}": flat(0)},
        # Without peering.
        {
            "lora_router_peers{}": GONE,
            "lora_router_remote_peers{}": GONE,
            "lora_router_peer_report_age_seconds{}": GONE,
            "lora_router_redis_connected{}": GONE,
        },
    ),
    Case(
        "LoraRouterPeersMissing",
        # Each worker has the other one of its router as a peer.
        {**_WORKERS, "lora_router_peers{}": flat(1), "lora_router_remote_peers{}": flat(0)},
        # Workers of routers that are not told of each other.
        {**_WORKERS, "lora_router_peers{}": flat(1), "lora_router_remote_peers{}": GONE},
    ),
    Case(
        "LoraRouterPeersMissing",
        {**_WORKERS, "lora_router_peers{}": flat(2), "lora_router_remote_peers{}": flat(1)},
        {**_WORKERS, "lora_router_peers{}": flat(3), "lora_router_remote_peers{}": flat(2)},
    ),
    Case(
        "LoraRouterPeersSilent",
        {"lora_router_peer_report_age_seconds{}": flat(11)},
        {"lora_router_peer_report_age_seconds{}": flat(5)},
    ),
    Case(
        "LoraRouterLoopLags",
        {"lora_router_loop_lag_seconds@1{}": flat(0.6)},
        # One stall is in the gauge for about a minute.
        {"lora_router_loop_lag_seconds@1{}": "0+0x37 0.6+0x1 0+0x160"},
    ),
    Case(
        "LoraRouterLoopStalls",
        {"lora_router_loop_stalls_total@1{}": growing(1)},
        {"lora_router_loop_stalls_total@1{}": "0+0x30 1+0x160"},
    ),
    Case("LoraRouterTasksFail", {"lora_router_failing_tasks@1{}": flat(1)}),
    Case(
        "LoraRouterBuffersNearlyFull",
        # The other workers of this router have room.
        {"lora_router_buffered_ratio@1{}": flat(0.95)},
        {"lora_router_buffered_ratio@1{}": flat(0.7)},
    ),
    Case("LoraRouterLogLinesDropped", {"lora_router_log_lines_dropped_total@1{}": growing(5)}),
    Case("LoraRouterCertificateExpires", {_EXPIRES: flat(5 * DAY)}, {_EXPIRES: flat(8 * DAY)}),
    Case(
        "LoraRouterCertificateExpires",
        {"lora_router_tls_files_refused_seconds@1{}": flat(400)},
        {"lora_router_tls_files_refused_seconds@1{}": flat(100)},
    ),
    Case(
        "LoraRouterDecisionsVanish",
        {_ROUTED: GONE, _REFUSED: GONE},
        # A router that has just started, and has no requests.
        {_ROUTED: GONE, _REFUSED: GONE, "lora_router_reservations{}": flat(0)},
    ),
)


def expanded(changes: Series) -> dict[str, str]:
    """Return the series of both routers, with these changes, as promtool takes them."""
    found: dict[str, str] = {}
    for name, values in (*HEALTHY.items(), *changes.items()):
        metric, _, labels = name.partition("{")
        metric, _, number = metric.partition("@")
        own = labels.removesuffix("}")
        if "instance=" in own:
            found[name] = values
            continue
        for place, instance in enumerate(ROUTERS, start=1):
            if number in ("", str(place)):
                ours = f'namespace="models",job="lora-router",instance="{instance}"'
                full = f"{metric}{{{','.join(filter(None, (ours, own)))}}}"
                found[full] = values
    return {series: values for series, values in found.items() if values != GONE}
