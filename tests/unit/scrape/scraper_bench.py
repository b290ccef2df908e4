"""A scraper with pods to read: servers that fail or are slow as a test needs it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_state import PodState
from lora_router.scrape.scraper import Scraper

PAGE = "vllm:num_requests_running 3\n"
MODELS = '{"data": [{"id": "base"}, {"id": "a", "parent": "base"}]}'
TWO_ADAPTERS = (
    '{"data": [{"id": "base"}, {"id": "a", "parent": "base"}, {"id": "b", "parent": "base"}]}'
)


@dataclass
class Server:
    """A pod's pages, with the failures and delays that a test needs."""

    page: str | bytes = PAGE
    models: str = MODELS
    status: int = 200
    models_status: int = 200
    delay: float = 0.0
    metrics_reads: int = 0
    models_reads: int = 0
    at_once: int = 0
    most_at_once: int = 0
    connections: set[object] = field(default_factory=set)
    headers: dict[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        self.metrics_reads += 1
        assert request.transport is not None
        self.connections.add(request.transport.get_extra_info("peername"))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.at_once -= 1
        body = self.page if isinstance(self.page, bytes) else self.page.encode()
        return web.Response(body=body, status=self.status, headers=self.headers)

    async def _models(self, request: web.Request) -> web.Response:
        self.models_reads += 1
        self.authorization = request.headers.get("authorization")
        return web.Response(text=self.models, status=self.models_status)


@dataclass
class Counts:
    """A ``ScrapeObserver`` that records."""

    good: list[tuple[str, str]] = field(default_factory=list)
    bad: list[tuple[str, str, str]] = field(default_factory=list)

    def scraped(self, kind: str, pod: str, seconds: float) -> None:
        assert seconds >= 0
        self.good.append((kind, pod))

    def failed(self, kind: str, pod: str, cause: str) -> None:
        self.bad.append((kind, pod, cause))


def pod(name: str, address: str, **changes: object) -> Pod:
    values: dict[str, object] = {
        "name": name,
        "address": address,
        "metrics_url": f"http://{address}/metrics",
        "models_url": f"http://{address}/v1/models",
    }
    return Pod(**(values | changes))  # type: ignore[arg-type]


class Bench:
    """A scraper, its fleet and its counts."""

    def __init__(self, *pods: Pod, **options: object) -> None:
        self.fleet = Fleet()
        self.fleet.replace(pods)
        self.counts = Counts()
        values: dict[str, object] = {"interval": 0.02, "models_interval": 0.02, "timeout": 30.0}
        self.scraper = Scraper(self.fleet, self.counts, **(values | options))  # type: ignore[arg-type]

    async def __aenter__(self) -> "Bench":
        await self.scraper.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.scraper.stop()

    def state(self, name: str) -> PodState:
        state = self.fleet.get(name)
        assert state is not None
        return state
