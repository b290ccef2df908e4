"""The endpoints of a Service, followed through a scripted API server."""

import asyncio
import json
from collections.abc import Collection
from pathlib import Path

import pytest
from aiohttp import web

from lora_router.discovery import endpoint_slices, watch_pace
from lora_router.discovery.endpoint_slices import (
    EndpointSlices,
    ServiceError,
    SliceQuery,
    service_query,
)
from lora_router.discovery.kubernetes_api import Credentials

Endpoints = list[tuple[str, int]]


def endpoint(address: str, **conditions: bool) -> dict[str, object]:
    return {"addresses": [address], "conditions": conditions}


def slice_of(*endpoints: object, ports: object = ({"name": "grpc", "port": 50052},)) -> object:
    return {"metadata": {"name": "s"}, "endpoints": endpoints, "ports": ports}


class ApiServer:
    """Has slices, and announces each change to the watches."""

    def __init__(self, *slices: object) -> None:
        self.slices = slices
        self.changed = asyncio.Event()
        self.event: dict[str, object] = {"type": "MODIFIED", "object": {}}
        self.queries: list[dict[str, str]] = []
        self.fail = 0

    async def start(self, folder: Path) -> Path:
        app = web.Application()
        path = "/apis/discovery.k8s.io/v1/namespaces/ml/endpointslices"
        app.router.add_get(path, self._answer)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        config = folder / "kubeconfig"
        document = {
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "c", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        }
        config.write_text(json.dumps(document))
        return config

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.queries.append(dict(request.query))
        if self.fail:
            self.fail -= 1
            return web.json_response({"message": "no"}, status=403)
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "7"}, "items": self.slices})
        response = web.StreamResponse()
        await response.prepare(request)
        await self.changed.wait()
        self.changed.clear()
        await response.write(json.dumps(self.event).encode() + b"\n")
        await asyncio.sleep(3600)
        return response


class Follower:
    """Follows the Service ``routers`` in the namespace ``ml``."""

    def __init__(self, kubeconfig: Path) -> None:
        self.seen: list[Endpoints] = []
        self.news = asyncio.Event()
        slices = EndpointSlices(
            SliceQuery("ml", "routers"), Credentials(kubeconfig), port=1234, watch_seconds=30
        )
        self.task = asyncio.create_task(slices.follow(self._use))

    def _use(self, found: Collection[tuple[str, int]]) -> None:
        self.seen.append(list(found))
        self.news.set()

    async def next(self) -> Endpoints:
        async with asyncio.timeout(60):
            await self.news.wait()
            self.news.clear()
        return self.seen[-1]

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def first_endpoints(folder: Path, *slices: object) -> Endpoints:
    server = ApiServer(*slices)
    follower = Follower(await server.start(folder))
    try:
        return await follower.next()
    finally:
        await follower.stop()
        await server.runner.cleanup()


async def test_endpoints_that_are_not_ready_count_and_those_that_terminate_do_not(
    tmp_path: Path,
) -> None:
    found = await first_endpoints(
        tmp_path,
        slice_of(endpoint("10.0.0.1", ready=True), endpoint("10.0.0.2", ready=False)),
        slice_of(endpoint("10.0.0.3", ready=False, terminating=True), endpoint("fd00::1")),
    )

    assert found == [("10.0.0.1", 50052), ("10.0.0.2", 50052), ("fd00::1", 50052)]


@pytest.mark.parametrize(
    ("ports", "port"),
    [
        ([{"name": "admin", "port": 8080}, {"name": "grpc", "port": 50052}], 50052),
        ([{"name": "anything", "port": 5000}], 5000),
        ([{"port": 1}, {"port": 2}], 1234),
        (None, 1234),
    ],
)
async def test_the_port_is_the_one_named_grpc_or_the_only_one(
    tmp_path: Path, ports: object, port: int
) -> None:
    assert await first_endpoints(tmp_path, slice_of(endpoint("10.0.0.1"), ports=ports)) == [
        ("10.0.0.1", port)
    ]


async def test_a_service_without_endpoints_has_none(tmp_path: Path) -> None:
    assert await first_endpoints(tmp_path, {"endpoints": None, "ports": None}) == []


async def test_changes_that_the_watch_announces_are_read(tmp_path: Path) -> None:
    server = ApiServer(slice_of(endpoint("10.0.0.1")))
    follower = Follower(await server.start(tmp_path))
    try:
        await follower.next()
        server.slices = (slice_of(endpoint("10.0.0.1"), endpoint("10.0.0.2")),)
        server.changed.set()

        assert await follower.next() == [("10.0.0.1", 50052), ("10.0.0.2", 50052)]
        assert server.queries[0]["labelSelector"] == "kubernetes.io/service-name=routers"
        assert server.queries[1]["resourceVersion"] == "7"
    finally:
        await follower.stop()
        await server.runner.cleanup()


async def test_a_version_that_is_too_old_leads_to_a_new_list(tmp_path: Path) -> None:
    server = ApiServer(slice_of(endpoint("10.0.0.1")))
    server.event = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "old"}}
    follower = Follower(await server.start(tmp_path))
    try:
        await follower.next()
        server.changed.set()

        assert await follower.next() == [("10.0.0.1", 50052)]
    finally:
        await follower.stop()
        await server.runner.cleanup()


async def test_failures_are_logged_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_pace, "FIRST_PAUSE_SECONDS", 0.01)
    server = ApiServer(slice_of(endpoint("10.0.0.1")))
    server.fail = 2
    follower = Follower(await server.start(tmp_path))
    try:
        assert await follower.next() == [("10.0.0.1", 50052)]
        assert "cannot follow the EndpointSlices of Service ml/routers: status 403" in caplog.text
    finally:
        await follower.stop()
        await server.runner.cleanup()


def test_the_namespace_is_the_pods_own_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_slices, "NAMESPACE_FILE", tmp_path / "namespace")
    with pytest.raises(ServiceError, match="write NAMESPACE/routers"):
        service_query("routers")
    (tmp_path / "namespace").write_text("own\n")

    assert service_query("routers") == SliceQuery("own", "routers")
    assert service_query("ml/routers") == SliceQuery("ml", "routers")
