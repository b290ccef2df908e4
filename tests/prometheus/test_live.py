"""Every expression of the dashboards and of the alerts, against routers that served requests."""

import asyncio
import math

import pytest

from tests.prometheus.conftest import Observed
from tests.prometheus.expressions import Expression, alerts, choices, queries, rules
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

RATE_SECONDS = 900
"""Grafana's ``$__rate_interval``. All traffic is within it, also on a slow machine."""
WITHOUT = {
    "lora_router_pods_without_load": "every pod shows its load",
    "lora_router_pods_age_seconds": "pods come from a file",
    "lora_router_pod_events_total": "pods come from a file",
    "lora_router_discovery_failures_total": "pods come from a file",
    "lora_router_unread_namespaces": "pods come from a file",
    "lora_router_ready_workers": "each router is one process",
    "lora_router_worker_restarts_total": "each router is one process",
    "lora_router_leader": "both routers serve",
    "lora_router_ready_to_lead": "both routers serve",
    "lora_router_leader_transitions_total": "both routers serve",
    "lora_router_lease_errors_total": "both routers serve",
    "lora_router_redis_connected": "peers use streams",
    "lora_router_declared_adapters": "no adapters are declared",
    "lora_router_adapter_calls_total": "no adapters are declared",
    "lora_router_adapter_load_seconds": "no adapters are declared",
    "lora_router_pods_put_off": "no adapters are declared",
    "lora_router_model_adapter_status_writes_total": "no ModelAdapters are followed",
    "lora_router_tls_certificate_expiry_timestamp_seconds": "no TLS",
    "lora_router_tls_files_refused_seconds": "no TLS",
}
"""Metrics that these routers do not have, and why."""


def identified(expressions: list[Expression]) -> list[object]:
    return [pytest.param(each, id=each.place) for each in expressions]


@pytest.mark.parametrize("query", identified(queries()))
async def test_a_panel_has_data_or_none_of_the_routers_has_the_metric(
    query: Expression, observed: Observed
) -> None:
    found = await observed.prometheus.query(query.filled(RATE_SECONDS), observed.at)

    if found:
        assert not all(math.isnan(float(each["value"][1])) for each in found)
        return
    for metric in query.metrics:
        assert metric in WITHOUT, query.filled(RATE_SECONDS)
        assert not await observed.prometheus.query(metric, observed.at)


@pytest.mark.parametrize("query", identified(choices()))
async def test_a_variable_has_choices(query: Expression, observed: Observed) -> None:
    assert await observed.prometheus.query(query.filled(RATE_SECONDS), observed.at)


@pytest.mark.parametrize("query", identified(alerts()))
async def test_an_alert_can_be_evaluated(query: Expression, observed: Observed) -> None:
    """Most alerts have no result, so their operands are asked for, too."""
    await observed.prometheus.query(query.text, observed.at)

    for metric in query.metrics - WITHOUT.keys():
        series = f'{{__name__=~"{metric}(_bucket)?"}}'
        assert await observed.prometheus.query(series, observed.at), metric


async def test_panels_show_what_happened(observed: Observed) -> None:
    traffic, prometheus = observed.traffic, observed.prometheus

    async def labels(place: str, label: str) -> set[str]:
        """The values of a label in the series of a panel that are not 0."""
        (text,) = {each.filled(RATE_SECONDS) for each in queries() if each.place == place}
        series = await prometheus.query(f"{text} > 0", observed.at)
        return {each["metric"][label] for each in series}

    async def value(place: str) -> float | None:
        (text,) = {each.filled(RATE_SECONDS) for each in queries() if each.place == place}
        return await prometheus.value(text, observed.at)

    assert await value("overview: Routers that are ready") == 2
    assert await value("overview: Pods that are ready") == 3
    assert await value("overview: Held now") == 0
    assert await labels("overview: Failed requests by pod", "pod") == {"vllm-0"}
    assert await labels("overview: Refused requests by reason", "reason") == {"too-many-held"}
    assert await labels("overview: Why requests are held", "reason") == {"no-slot"}
    assert await labels("adapters: Held requests", "adapter") == {"a3"}
    assert await labels("adapters: Requests", "adapter") == {"a1", "a2", "a3"}
    assert "status-5xx" in await labels("pods: Ejections by cause", "cause")
    routed = 'sum(lora_router_requests_total{outcome="routed"})'
    statuses = traffic.statuses
    assert await prometheus.value(routed, observed.at) == statuses[200] + statuses[500]
    refused = 'sum(lora_router_requests_total{outcome="refused"})'
    assert await prometheus.value(refused, observed.at) == statuses[429]


async def test_no_alert_fires_after_ordinary_traffic(observed: Observed) -> None:
    assert observed.was_quiet


async def test_alerts_fire_for_what_was_wrong_and_say_it(observed: Observed) -> None:
    """A pod fails, no slot is free, and requests are refused."""
    expected = {
        "LoraRouterRequestsFail",
        "LoraRouterPodEjectedLong",
        "LoraRouterRefusesRequests",
        "LoraRouterSlotsLacking",
    }
    # Some have ended by now: a slot is lacking for a minute after the last refusal.
    fired = observed.fired
    await until(lambda: expected <= fired.keys(), seconds=120.0)

    assert fired["LoraRouterPodEjectedLong"]["annotations"]["summary"] == "Ejected pods: 1"
    assert fired["LoraRouterRefusesRequests"]["labels"]["reason"] == "too-many-held"
    assert fired["LoraRouterSlotsLacking"]["annotations"]["summary"].startswith(
        "Slots that the pods"
    )
    for alert in list(fired.values()):
        assert "<error" not in str(alert["annotations"])
        assert alert["labels"]["severity"] in {"critical", "warning"}


# The last test, because it ends a router.
async def test_an_alert_fires_when_a_router_is_gone(observed: Observed) -> None:
    router, other = observed.traffic.routers
    await router.close()

    # On a busy machine, a scrape of the other router fails now and then, too.
    async with asyncio.timeout(60):
        while True:
            firing = await observed.prometheus.instances_by_alert()
            down = f"127.0.0.1:{router.served.admin_port}"
            if firing.get("LoraRouterDown") == {down} and "LoraRouterAbsent" not in firing:
                break
            await asyncio.sleep(0.1)

    assert {each["alert"] for each in rules()} >= firing.keys()
    assert (await other.served.readiness())[0] == 200
