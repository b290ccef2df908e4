"""Scenes in which what happened is known, and the value that each metric must have after it.

Together they have every metric that is described: ``test_known_values`` fails otherwise.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from prometheus_client.core import Metric

from lora_router import __version__
from lora_router.adapters.calls import Outcome
from lora_router.app_metrics import (
    add_app_metrics,
    add_certificate_metrics,
    add_endpoint_metrics,
    add_gateway_metrics,
    add_name_metrics,
    add_pod_access_metrics,
    add_readiness_metrics,
    add_trace_metrics,
    add_watchdog_metrics,
    add_worker_metrics,
)
from lora_router.config.settings import Settings
from lora_router.discovery.kubernetes import KubernetesPods
from lora_router.fleet.answer import FROM_THE_POD, Answer
from lora_router.fleet.health import HealthRules
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.prompt import Prompt
from lora_router.fleet.unwell_pods import UNREACHABLE
from lora_router.kubernetes_assembly import make_kubernetes_discovery
from lora_router.loader_metrics import LoaderMetrics
from lora_router.peering.metrics import PeerMetrics, ReadingMetrics
from lora_router.replication.metrics import LeaseMetrics
from lora_router.routing.priorities import Priorities
from lora_router.supervision import Supervisor
from lora_router.telemetry.decisions import Decision, DecisionLog
from lora_router.telemetry.lacking_slots import HELD_SECONDS, LackingSlots
from lora_router.telemetry.logs import dropped_lines
from lora_router.telemetry.metrics import Telemetry
from lora_router.telemetry.traffic import Traffic
from lora_router.telemetry.usage_counts import UsageCounts
from tests.fleet import make_fleet, make_metrics, make_pod, state_of
from tests.unit.adapters.loading import Loading, adapters
from tests.unit.routing.router import Router

Series = tuple[str, tuple[tuple[str, str], ...]]
"""The name of a sample and its labels."""


@dataclass(frozen=True)
class Scene:
    """What happened, and what must be on the page then."""

    metrics: Callable[[], Iterable[Metric]]
    values: Mapping[Series, float]
    """The value of each series. Of histograms: the series ``_count`` and ``_sum``."""


def at(name: str, **labels: str) -> Series:
    return name, tuple(sorted(labels.items()))


def values_of(metrics: Iterable[Metric]) -> dict[Series, float]:
    """Return the value of each series."""
    return {
        at(sample.name, **sample.labels): sample.value
        for metric in metrics
        for sample in metric.samples
    }


def traffic() -> Scene:
    """Four requests for an adapter and one for a base model, with tokens."""
    now = 100.0
    log = DecisionLog(10, now=lambda: now, wall=lambda: now)
    seen = Traffic(log, 5)
    telemetry = Telemetry(make_fleet(1))
    telemetry.follow(seen)

    def request(adapter: str, place: str, first_byte: float, **fields: Any) -> None:
        nonlocal now
        decision = Decision(
            arrived_at=now,
            decided_at=now,
            outcome="routed",
            pod="pod-1",
            base_model="base",
            adapter=adapter,
            place=place,
            **fields,
        )
        log.decided(decision)
        decision.answered_at, now = now + first_byte, now + 2.0
        log.ended(decision)

    request("a", "nowhere", 0.5, status=200, replicated=True)
    request(
        "a",
        "slot",
        0.25,
        status=200,
        prompt_tokens=10,
        completion_tokens=5,
        cached_tokens=8,
        estimated_prompt_tokens=12,
        expected_cached_tokens=9,
    )
    request("a", "running", 0.25, status=503)
    request(
        "a", "host-memory", 1.0, status=200, held_for="no-slot", held_seconds=0.75, spilled=True
    )
    request("", "", 1.5, status=200, prompt_tokens=1, completion_tokens=2)

    values: dict[Series, float] = {}
    for prefix, labels, requests, first_bytes in (
        ("", {"base_model": "base"}, 5, 3.5),
        ("pod_", {"pod": "pod-1"}, 5, 3.5),
        ("adapter_", {"adapter": "a"}, 4, 2.0),
        ("adapter_", {"adapter": "other"}, 0, 0.0),
    ):
        first, duration = (
            f"lora_router_{prefix}{kind}_seconds"
            for kind in ("time_to_first_byte", "request_duration")
        )
        values |= {
            at(f"{first}_count", **labels): requests,
            at(f"{first}_sum", **labels): first_bytes,
            at(f"{duration}_count", **labels): requests,
            at(f"{duration}_sum", **labels): 2.0 * requests,
        }
    for prefix, labels in (("", {"base_model": "base"}), ("adapter_", {"adapter": "a"})):
        values |= {
            at(f"lora_router_{prefix}hold_seconds_count", **labels): 1,
            at(f"lora_router_{prefix}hold_seconds_sum", **labels): 0.75,
        }
    for found in ("running", "slot", "host-memory", "nowhere"):
        values[at("lora_router_adapter_requests_total", adapter="a", found=found)] = 1
    values |= {
        at("lora_router_spills_total", base_model="base"): 1,
        at("lora_router_replications_total", base_model="base"): 1,
        at("lora_router_failed_requests_total", base_model="base", cause="status"): 1,
        at(
            "lora_router_pod_failed_requests_total",
            base_model="base",
            pod="pod-1",
            cause="status",
        ): 1,
        at("lora_router_adapter_failed_requests_total", adapter="a", cause="status"): 1,
        at("lora_router_tokens_total", kind="prompt", base_model="base"): 11,
        at("lora_router_tokens_total", kind="completion", base_model="base"): 7,
        at("lora_router_prefix_tokens_total", kind="estimated", base_model="base"): 12,
        at("lora_router_prefix_tokens_total", kind="expected_cached", base_model="base"): 9,
        at("lora_router_prefix_tokens_total", kind="stated", base_model="base"): 10,
        at("lora_router_prefix_tokens_total", kind="stated_cached", base_model="base"): 8,
        at("lora_router_adapter_tokens_total", kind="prompt", adapter="a"): 10,
        at("lora_router_adapter_tokens_total", kind="completion", adapter="a"): 5,
    }
    return Scene(telemetry.metrics, values)


def counts() -> Scene:
    """What other parts tell the telemetry."""
    telemetry = Telemetry(make_fleet(2))
    telemetry.counts.decided("random", "routed", "random", 0.5)
    telemetry.counts.decided("none", "refused", "bad-body", 0.0)
    telemetry.answers.answered(Answer(200, details=FROM_THE_POD))
    telemetry.answers.answered(Answer(503, details="upstream_reset"))
    telemetry.scraped("metrics", "pod-1", 0.25)
    telemetry.failed("models", "pod-2", "timeout")
    telemetry.pod_events("added", 3)
    telemetry.discovery_lost("gone")
    telemetry.task_failed("pods-file")
    usage = UsageCounts()
    usage.stated, usage.missing, usage.encoded = 5, 6, 7
    telemetry.registry.register(usage)
    failures = {"kind": "models", "pod": "pod-2", "cause": "timeout"}
    return Scene(
        telemetry.metrics,
        {
            at(
                "lora_router_requests_total", algorithm="random", outcome="routed", reason="random"
            ): 1,
            at(
                "lora_router_requests_total", algorithm="none", outcome="refused", reason="bad-body"
            ): 1,
            at("lora_router_decision_seconds_count", algorithm="random"): 1,
            at("lora_router_decision_seconds_sum", algorithm="random"): 0.5,
            at("lora_router_answers_total", by="pod", status="2xx"): 1,
            at("lora_router_answers_total", by="envoy", status="5xx"): 1,
            at("lora_router_scrape_seconds_count", kind="metrics"): 1,
            at("lora_router_scrape_seconds_sum", kind="metrics"): 0.25,
            at("lora_router_scrape_failures_total", **failures): 1,
            at("lora_router_scrape_failures_in_a_row", kind="models", pod="pod-2"): 1,
            at("lora_router_pod_events_total", kind="added"): 3,
            at("lora_router_discovery_failures_total", cause="gone"): 1,
            at("lora_router_task_failures_total", task="pods-file"): 1,
            at("lora_router_usage_answers_total", usage="stated"): 5,
            at("lora_router_usage_answers_total", usage="missing"): 6,
            at("lora_router_usage_answers_total", usage="encoded"): 7,
            at("lora_router_build_info", version=__version__): 1,
        },
    )


def fleet() -> Scene:
    """Four pods: one idle, one with two requests, one ejected, one that is not ready."""
    fleet = make_fleet(4, outliers=Outliers(HealthRules(), lambda: 100.0))
    telemetry = Telemetry(fleet, clock=lambda: 107.5)
    fleet.put_metrics(state_of(fleet, 1), make_metrics(scraped_at=100.0))
    reserved = fleet.ledger.reserve(state_of(fleet, 2), "sql-lora")
    fleet.ledger.reserve(state_of(fleet, 2), None)
    reserved.answered(Answer(200, state_of(fleet, 1).pod.address, FROM_THE_POD))
    assert fleet.outliers is not None
    fleet.outliers.unwell.eject(state_of(fleet, 3), UNREACHABLE, 100.0)
    fleet.prefixes.sent(state_of(fleet, 1), "base", Prompt(200.0, (1, 2), (100.0, 200.0)))
    fleet.upsert(make_pod(4, ready=False))
    fleet.put_metrics(state_of(fleet, 3), PodMetrics(scraped_at=107.0))
    return Scene(
        telemetry.metrics,
        {
            at("lora_router_prefix_chunks"): 2,
            at("lora_router_pods", state="ready"): 3,
            at("lora_router_pods", state="not-ready"): 1,
            at("lora_router_in_flight_requests", pod="pod-1"): 1,
            at("lora_router_in_flight_requests", pod="pod-2"): 1,
            at("lora_router_in_flight_adapters", pod="pod-1"): 1,
            at("lora_router_in_flight_adapters", pod="pod-2"): 0,
            at("lora_router_reservations"): 2,
            at("lora_router_retried_requests_total"): 1,
            at("lora_router_requests_served_elsewhere_total"): 1,
            at("lora_router_snapshot_age_seconds", pod="pod-1"): 7.5,
            at("lora_router_snapshot_age_seconds", pod="pod-3"): 0.5,
            at("lora_router_pods_without_load", engine="unknown"): 1,
            at("lora_router_pods_by_health", health="healthy"): 3,
            at("lora_router_pods_by_health", health="ejected"): 1,
            at("lora_router_pod_health_transitions_total", to="ejected"): 1,
            at("lora_router_pod_health_transitions_total", to="healthy"): 0,
            at("lora_router_pod_ejections_total", cause="unreachable"): 1,
        },
    )


def full_fleet() -> Scene:
    """Two pods with two slots each, all in use, and an adapter that waits for one of them."""
    adapters = tuple(f"adapter-{number}" for number in range(5))
    fleet = make_fleet(2, adapters=adapters)
    for state in fleet:
        fleet.put_metrics(state, make_metrics(max_lora=2))
    router = Router(fleet)
    for adapter in adapters[:4]:
        router.routed(adapter)
    router.held("adapter-4", priority="high")
    router.clock.advance(HELD_SECONDS + 5.0)
    lacking = LackingSlots(fleet, router.director, router.clock.now)
    lacking.count()
    telemetry = Telemetry(fleet)
    telemetry.registry.register(lacking)
    add_app_metrics(telemetry, transport(), router.director, double(failing=list))
    return Scene(
        telemetry.metrics,
        {
            at("lora_router_held_requests"): 1,
            at("lora_router_closed_slots"): 1,
            at("lora_router_ignored_priorities_total"): 1,
            at("lora_router_slots", base_model="base", state="used"): 4,
            at("lora_router_slots", base_model="base", state="free"): 0,
            at("lora_router_slots_wanted", base_model="base"): 5,
            at("lora_router_slots_lacking", base_model="base"): 1,
        },
    )


def double(**fields: object) -> Any:
    """A part of the router with the few fields that its metrics read."""
    return SimpleNamespace(**fields)


def transport() -> Any:
    return double(
        open_streams=3,
        bounds=double(
            budget=double(used=4, limit=5, waiting=6, refused=7),
            refused_streams=8,
            refused_connections=9,
            resets=double(total=10),
        ),
    )


def parts() -> Scene:
    """Numbers of the parts of a router, each another one."""
    telemetry = Telemetry(make_fleet(1))
    director = double(
        held=1, closed_slots=2, sticky=double(made=["id"] * 11), priorities=double(ignored=0)
    )
    add_app_metrics(telemetry, transport(), director, double(failing=lambda: ["task"] * 12))
    add_gateway_metrics(telemetry, double(closed_early=13))
    add_name_metrics(telemetry, double(count=lambda: 14))
    add_watchdog_metrics(telemetry, double(lag=0.15, stalls=16))
    add_certificate_metrics(telemetry, double(expires=17.0, refused_seconds=18.0))
    add_pod_access_metrics(telemetry, double(refused_seconds=19.0))
    add_endpoint_metrics(telemetry, double(open_streams=20, rejected=21))
    add_trace_metrics(telemetry, lambda: 22)
    standby = double(ready=False, standby=True)
    add_readiness_metrics(telemetry, lambda: standby, may_lead=True)
    return Scene(
        telemetry.metrics,
        {
            at("lora_router_open_streams"): 3,
            at("lora_router_buffered_bytes"): 4,
            at("lora_router_max_buffered_bytes"): 5,
            at("lora_router_buffered_ratio"): 0.8,
            at("lora_router_waiting_bodies"): 6,
            at("lora_router_refused_bodies_total"): 7,
            at("lora_router_refused_streams_total"): 8,
            at("lora_router_refused_connections_total"): 9,
            at("lora_router_wasted_streams_total"): 10,
            at("lora_router_known_ids"): 11,
            at("lora_router_failing_tasks"): 12,
            at("lora_router_streams_closed_early_total"): 13,
            at("lora_router_ambiguous_models"): 14,
            at("lora_router_loop_lag_seconds"): 0.15,
            at("lora_router_loop_stalls_total"): 16,
            at("lora_router_tls_certificate_expiry_timestamp_seconds"): 17,
            at("lora_router_tls_files_refused_seconds"): 18,
            at("lora_router_pod_files_refused_seconds"): 19,
            at("lora_router_endpoint_streams"): 20,
            at("lora_router_endpoint_lists_rejected_total"): 21,
            at("lora_router_spans_dropped_total"): 22,
            at("lora_router_ready"): 0,
            at("lora_router_ready_to_lead"): 1,
            at("lora_router_log_lines_dropped_total"): dropped_lines(),
        },
    )


def parent_of_workers() -> Scene:
    """Two workers, of which one was replaced three times."""
    telemetry = Telemetry(make_fleet(1))
    add_worker_metrics(telemetry, lambda: 2, lambda: 3, lambda: 4, lambda: 5)
    return Scene(
        telemetry.metrics,
        {
            at("lora_router_ready_workers"): 2,
            at("lora_router_worker_restarts_total"): 3,
            at("lora_router_refused_connections_total"): 4,
            at("lora_router_nameless_readings_total"): 5,
        },
    )


def peers() -> Scene:
    """Two peers, one of which was heard 1 s ago and the other 3 s ago."""
    hub = double(
        now=lambda: 10.0,
        peers={"a": double(heard_at=9.0), "b": double(heard_at=7.0)},
        counts=double(
            reports_sent=1,
            reports_received=2,
            bytes_sent=3,
            bytes_received=4,
            rejected={"version": 5},
            left=6,
            silent=7,
        ),
        load=lambda: double(requests=8, adapters=9, held=10),
        prefixes=double(told=18, heard=19, untold=20),
    )
    exchange = double(
        told=11, used=12, receiver=double(counts=double(contradictions=13, distrusted=14))
    )
    leadership = double(
        began_to_lead=15, ceased_to_lead=16, leads=True, candidate=double(errors={"timeout": 17})
    )
    telemetry = Telemetry(make_fleet(1))
    redis = double(broadcasts=double(is_connected=True))
    peer_metrics = PeerMetrics(hub, redis, lambda name: name == "b")
    for collector in (peer_metrics, ReadingMetrics(exchange), LeaseMetrics(leadership)):
        telemetry.registry.register(collector)
    return Scene(
        telemetry.metrics,
        {
            at("lora_router_peers"): 2,
            at("lora_router_remote_peers"): 1,
            at("lora_router_peer_report_age_seconds"): 3,
            at("lora_router_peer_reports_total", direction="sent"): 1,
            at("lora_router_peer_reports_total", direction="received"): 2,
            at("lora_router_peer_bytes_total", direction="sent"): 3,
            at("lora_router_peer_bytes_total", direction="received"): 4,
            at("lora_router_peer_rejected_total", cause="version"): 5,
            at("lora_router_peer_forgotten_total", cause="left"): 6,
            at("lora_router_peer_forgotten_total", cause="silent"): 7,
            at("lora_router_peer_in_flight_requests"): 8,
            at("lora_router_peer_in_flight_adapters"): 9,
            at("lora_router_peer_held_adapters"): 10,
            at("lora_router_peer_readings_total", direction="sent"): 11,
            at("lora_router_peer_readings_total", direction="received"): 12,
            at("lora_router_peer_prompts_total", direction="sent"): 18,
            at("lora_router_peer_prompts_total", direction="received"): 19,
            at("lora_router_peer_prompts_total", direction="dropped"): 20,
            at("lora_router_peer_contradictions_total"): 13,
            at("lora_router_peer_distrusted_total"): 14,
            at("lora_router_leader_transitions_total", to="leader"): 15,
            at("lora_router_leader_transitions_total", to="standby"): 16,
            at("lora_router_leader"): 1,
            at("lora_router_lease_errors_total", cause="timeout"): 17,
            at("lora_router_redis_connected"): 1,
        },
    )


def loader() -> Scene:
    """Four declared adapters: one has no source, and two hang, so that their only pod rests."""
    loading = Loading(1, memory=3, declared=adapters(4))
    outcomes: dict[str, Outcome] = {"a0": "refused", "a1": "timeout", "a2": "timeout"}
    loading.pods.answer = lambda call: outcomes.get(call.name, "done")
    loading.run(1.0)
    for state in loading.fleet:
        loading.loader.list_read(state, loading.clock.now())
    loading.run(2.0)
    telemetry = Telemetry(loading.fleet)
    metrics = LoaderMetrics(loading.loader)
    metrics.status_writes = Counter(written=5, failed=2)
    telemetry.registry.register(metrics)
    writes = "lora_router_model_adapter_status_writes_total"
    (calls, seconds) = "lora_router_adapter_calls_total", "lora_router_adapter_load_seconds"
    return Scene(
        telemetry.metrics,
        {
            at("lora_router_loads_adapters"): 1,
            at("lora_router_declared_adapters", state="loaded"): 0,
            at("lora_router_declared_adapters", state="missing"): 0,
            at("lora_router_declared_adapters", state="unplaced"): 4,
            at(calls, action="load", outcome="done"): 0,
            at(calls, action="load", outcome="refused"): 1,
            at(calls, action="load", outcome="timeout"): 2,
            at(calls, action="unload", outcome="done"): 0,
            at(f"{seconds}_count"): 0,
            at("lora_router_failing_adapters"): 3,
            at("lora_router_pods_put_off", reason="cannot-load"): 1,
            at("lora_router_pods_put_off", reason="stall"): 0,
            at(writes, result="written"): 5,
            at(writes, result="conflict"): 0,
            at(writes, result="failed"): 2,
        },
    )


def kubernetes() -> Scene:
    """Pods that the API server has confirmed 30 s ago, and a namespace that cannot be read."""
    fleet = make_fleet(1)
    telemetry = Telemetry(fleet)
    now = 100.0
    settings = Settings(kubernetes_namespaces=("models", "gone"))
    pods = make_kubernetes_discovery(
        settings, fleet, telemetry, Supervisor(telemetry.task_failed), Priorities()
    )
    assert isinstance(pods, KubernetesPods)
    for scope in pods._scopes:
        scope.heard = now
        scope.is_left_out = scope.namespace == "gone"
    pods._clock = lambda: now + 30.0
    shown = {at("lora_router_pods_age_seconds"): 30.0, at("lora_router_unread_namespaces"): 1.0}
    return Scene(telemetry.metrics, shown)


SCENES: tuple[Callable[[], Scene], ...] = (
    traffic,
    counts,
    fleet,
    full_fleet,
    parts,
    parent_of_workers,
    peers,
    loader,
    kubernetes,
)
