"""Reads what a running router says into ``facts``, from its admin port."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from time import time

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from lora_router.debug.client import DebugClient, DebugPageError
from lora_router.debug.fact_rows import PodFacts, RouterFacts
from lora_router.debug.pages import AdaptersPage, DecisionsPage, FactsPage, RoutersPage
from lora_router.debug.rows import AdapterRow, RouterRow
from lora_router.doctor.facts import Adapter, Facts, Labels, Pod, Router

LOOKS = 3
"""How often the doctor looks at the requests on the pods. A page is a second old now and then, so
one look also shows requests that have just ended."""
METRICS = frozenset(
    {
        "lora_router_slots_lacking",
        "lora_router_scrape_failures_total",
        "lora_router_refused_streams_total",
        "lora_router_refused_connections_total",
        "lora_router_refused_bodies_total",
        "lora_router_peer_report_age_seconds",
        "lora_router_task_failures_total",
        "lora_router_loop_stalls_total",
        "lora_router_log_lines_dropped_total",
        "lora_router_tls_certificate_expiry_timestamp_seconds",
    }
)
"""The metrics that checks look at."""


async def read_facts(client: DebugClient, *, pause_seconds: float = 1.0) -> Facts:
    """Read what a router says.

    Args:
        client: Reads the pages of its admin port.
        pause_seconds: Time between two looks at the requests on the pods.

    Raises:
        DebugPageError: The router does not answer, or a page cannot be read.
    """
    # A router that is not ready answers with 503 and the same fields.
    readiness = _readiness(await client.get("/readyz", statuses=(200, 503)))
    routers = await client.page(RoutersPage)
    adapters = await client.page(AdaptersPage, {"limit": "2048"})
    try:
        decisions = await client.page(DecisionsPage, {"abnormal": "true", "limit": "1000"})
    except DebugPageError:  # They may not be recorded.
        decisions = DecisionsPage()
    facts = [await client.page(FactsPage)]
    for _ in range(LOOKS - 1):
        await asyncio.sleep(pause_seconds)
        facts.append(await client.page(FactsPage))
    metrics = _metrics(await client.get("/metrics"))
    told = {router.name: router for router in facts[0].routers}
    return Facts(
        routers=[_router(row, told.get(row.name)) for row in _first(routers.routers, facts[0])],
        unreachable=sorted({*routers.unreachable, *facts[0].unreachable}),
        pods=_pods([page.pods for page in facts]),
        adapters=[_adapter(row) for row in adapters.adapters],
        adapters_more=adapters.more,
        readiness=readiness,
        metrics=metrics,
        details=Counter(row.details for row in decisions.decisions if row.details),
        given_up=[
            row.held_seconds
            for row in decisions.decisions
            if row.held_for and row.outcome == "cancelled"
        ],
        now=time(),
    )


def _readiness(body: bytes) -> Mapping[str, object]:
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except msgspec.MsgspecError as error:
        raise DebugPageError(f"/readyz is no page of a lora-router: {error}") from None


def _metrics(body: bytes) -> Mapping[str, Sequence[tuple[Labels, float]]]:
    """Return the samples that checks look at. The page may have thousands of others."""
    # Not `splitlines`, which also splits at characters that values of labels may have.
    lines = [line for line in body.decode(errors="replace").split("\n") if _metric(line) in METRICS]
    found: dict[str, list[tuple[Labels, float]]] = {}
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                if isfinite(sample.value):
                    found.setdefault(sample.name, []).append((sample.labels, sample.value))
    except (ValueError, IndexError, KeyError) as error:
        raise DebugPageError(f"/metrics is no page of a lora-router: {error}") from None
    return found


def _metric(line: str) -> str:
    """Return the name of the metric of a line; of a comment, ``#``."""
    return line.partition("{")[0].partition(" ")[0]


def _first(rows: Sequence[RouterRow], facts: FactsPage) -> list[RouterRow]:
    """Return the processes, the one that was asked first: it is the first of the facts."""
    asked = facts.routers[0].name if facts.routers else ""
    return sorted(rows, key=lambda row: row.name != asked)


def _router(row: RouterRow, told: RouterFacts | None) -> Router:
    known = told or RouterFacts(decisions=1)
    return Router(
        name=row.name,
        version=row.version,
        algorithm=row.algorithm,
        ready=row.ready,
        reason=row.reason,
        has_peers=known.has_peers,
        peers=tuple(row.peers),
        decisions=known.decisions,
        max_hold_seconds=known.max_hold_seconds,
        metrics_max_age_seconds=known.metrics_max_age_seconds,
        loop_lag_seconds=row.loop_lag_seconds,
    )


def _adapter(row: AdapterRow) -> Adapter:
    busy = bool(row.held or row.in_flight)
    failing = tuple((each.pod, each.reason) for each in row.failing)
    return Adapter(
        row.name,
        row.base_model,
        row.listed,
        row.requests,
        busy,
        row.state,
        row.unplaced_because,
        row.wanted,
        failing,
    )


def _pods(looks: Sequence[Sequence[PodFacts]]) -> list[Pod]:
    """Return the pods as of the last look, with the fewest strangers of all looks."""
    strangers: dict[str, int] = {}
    for look in looks:
        for pod in look:
            strangers[pod.name] = min(strangers.get(pod.name, pod.strangers), pod.strangers)
    return [
        Pod(
            **{
                **{name: getattr(pod, name) for name in PodFacts.__struct_fields__},
                "base_models": tuple(pod.base_models),
                "strangers": strangers[pod.name],
            }
        )
        for pod in looks[-1]
    ]
