"""Reads what a running router says into ``facts``, from its admin port."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from time import time
from typing import TypeVar

import aiohttp
import msgspec
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from lora_router.debug.fact_rows import PodFacts, RouterFacts
from lora_router.debug.pages import AdaptersPage, DecisionsPage, FactsPage, RoutersPage
from lora_router.debug.rows import AdapterRow, RouterRow
from lora_router.doctor.facts import Adapter, Facts, Labels, Pod, Router

TIMEOUT_SECONDS = 15.0
"""Time for one page. A router waits for its peers for some seconds."""
MAX_PAGE_BYTES = 64 * 1024 * 1024
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
_MAX_TEXT = 300

_Page = TypeVar("_Page", bound=Struct)


class DoctorError(Exception):
    """The router cannot be asked. The message says why."""


async def read_facts(url: str, token: str = "", *, pause_seconds: float = 1.0) -> Facts:
    """Read what a router says.

    Args:
        url: The admin port, ``http://HOST:PORT``.
        token: The token of the admin port; empty: none is sent.
        pause_seconds: Time between two looks at the requests on the pods.

    Raises:
        DoctorError: The router does not answer, or its pages cannot be read.
    """
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        pages = _Pages(session, url.rstrip("/"))
        readiness = await pages.readiness()
        routers = await pages.debug("routers", RoutersPage)
        adapters = await pages.debug("adapters?limit=2048", AdaptersPage)
        try:
            decisions = await pages.debug("decisions?abnormal=true&limit=1000", DecisionsPage)
        except DoctorError:  # They may not be recorded.
            decisions = DecisionsPage()
        facts = [await pages.debug("facts", FactsPage)]
        for _ in range(LOOKS - 1):
            await asyncio.sleep(pause_seconds)
            facts.append(await pages.debug("facts", FactsPage))
        metrics = await pages.metrics()
    told = {router.name: router for router in facts[0].routers}
    return Facts(
        routers=[_router(row, told.get(row.name)) for row in _first(routers.routers, facts[0])],
        unreachable=sorted({*routers.unreachable, *facts[0].unreachable}),
        pods=_pods([page.pods for page in facts]),
        adapters=[_adapter(row) for row in adapters.adapters],
        readiness=readiness,
        metrics=metrics,
        details=Counter(row.details for row in decisions.decisions if row.details),
        now=time(),
    )


class _Pages:
    """The pages of one admin port."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def readiness(self) -> Mapping[str, object]:
        # A router that is not ready answers with 503 and the same fields.
        body = await self._get("/readyz", {200, 503})
        try:
            return msgspec.json.decode(body, type=dict[str, object])
        except msgspec.MsgspecError:
            raise DoctorError(self._no_router("/readyz", body)) from None

    async def debug(self, name: str, kind: type[_Page]) -> _Page:
        body = await self._get(f"/debug/{name}", {200})
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise DoctorError(f"{self._url}/debug/{name}: {error}") from None

    async def metrics(self) -> Mapping[str, Sequence[tuple[Labels, float]]]:
        text = (await self._get("/metrics", {200})).decode(errors="replace")
        lines = [line for line in text.splitlines() if _metric(line) in METRICS]
        found: dict[str, list[tuple[Labels, float]]] = {}
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    async def _get(self, path: str, statuses: Collection[int]) -> bytes:
        try:
            async with self._session.get(self._url + path) as response:
                body = b""
                while more := await response.content.read(1 << 20):
                    body += more
                    if len(body) > MAX_PAGE_BYTES:
                        raise DoctorError(f"{self._url}{path}: longer than {MAX_PAGE_BYTES} bytes")
                if response.status not in statuses:
                    raise DoctorError(
                        f"{self._url}{path} answered with status {response.status}: {_text(body)}"
                    )
                return body
        except TimeoutError:
            raise DoctorError(f"{self._url}: no answer within {TIMEOUT_SECONDS:g} s") from None
        except aiohttp.ClientConnectorError as error:
            why = error.os_error.strerror or str(error.os_error)
            raise DoctorError(
                f"{self._url}: no router answers ({why}); --admin names the admin port of another"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise DoctorError(f"{self._url}: {str(error) or type(error).__name__}") from None

    def _no_router(self, path: str, body: bytes) -> str:
        return f"{self._url}{path} is no page of a lora-router: {_text(body)}"


def _metric(line: str) -> str:
    """Return the name of the metric of a line; of a comment, ``#``."""
    return line.partition("{")[0].partition(" ")[0]


def _text(body: bytes) -> str:
    return " ".join(body.decode(errors="replace").split())[:_MAX_TEXT] or "no text"


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
    return Adapter(row.name, row.base_model, row.listed, row.requests, busy)


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
