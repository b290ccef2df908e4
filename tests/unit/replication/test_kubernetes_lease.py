"""The calls of the Kubernetes API for a Lease, and what can come back."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from lora_router.discovery.kubernetes_api import ApiError, Credentials
from lora_router.replication import kubernetes_lease
from lora_router.replication.kubernetes_lease import (
    KubernetesLease,
    LeaseName,
    LeaseNameError,
    lease_name,
)
from lora_router.replication.lease import Claim, Lease

CLAIM = Claim("a", 2, "2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:05.000000Z", 3)
SPEC = {
    "holderIdentity": "a",
    "leaseDurationSeconds": 2,
    "acquireTime": "2026-01-01T00:00:00.000000Z",
    "renewTime": "2026-01-01T00:00:05.000000Z",
    "leaseTransitions": 3,
}
METADATA = {"name": "l", "namespace": "ml", "resourceVersion": "7", "labels": {"team": "x"}}


class ApiServer:
    """Answers each request with what a test has set, and keeps the requests."""

    def __init__(self) -> None:
        self.answer: tuple[int, object] = (200, {"metadata": METADATA, "spec": SPEC})
        self.events: list[object] = []
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.hangs = False

    async def serve(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        self.requests.append((request.method, request.path, dict(request.query), body))
        if self.hangs:
            await asyncio.sleep(3600)
        status, document = self.answer
        if "watch" in request.query and status == 200:
            lines = "".join(f"{json.dumps(event)}\n" for event in self.events)
            return web.Response(text=lines)
        return web.Response(status=status, body=json.dumps(document))


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ApiServer]:
    yield ApiServer()


@pytest_asyncio.fixture
async def store(server: ApiServer, tmp_path: Path) -> AsyncIterator[KubernetesLease]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = tmp_path / "kubeconfig"
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    document = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "c", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }
    config.write_text(json.dumps(document))
    lease = await KubernetesLease.open(
        Credentials(config), LeaseName("ml", "l"), request_seconds=10, watch_seconds=30
    )
    yield lease
    await lease.close()
    await runner.cleanup()


LEASES = "/apis/coordination.k8s.io/v1/namespaces/ml/leases"


async def test_a_lease_is_read_by_its_name(server: ApiServer, store: KubernetesLease) -> None:
    lease = await store.read()

    assert lease == Lease(CLAIM, "7")
    assert server.requests == [("GET", f"{LEASES}/l", {}, None)]


async def test_a_lease_that_does_not_exist_is_created(
    server: ApiServer, store: KubernetesLease
) -> None:
    server.answer = (404, {"message": 'leases "l" not found'})
    assert await store.read() is None
    server.answer = (201, {"metadata": METADATA, "spec": SPEC})

    assert await store.write(CLAIM, None) == Lease(CLAIM, "7")

    method, path, _, body = server.requests[-1]
    assert (method, path) == ("POST", LEASES)
    assert body["metadata"] == {"name": "l", "namespace": "ml"}
    assert body["spec"] == SPEC


async def test_a_write_keeps_what_others_set_and_names_the_version_that_it_replaces(
    server: ApiServer, store: KubernetesLease
) -> None:
    server.answer = (200, {"metadata": METADATA, "spec": {"strategy": "s"}})
    lease = await store.read()
    assert lease is not None
    assert lease.claim == Claim()

    await store.write(CLAIM, lease)

    method, path, _, body = server.requests[-1]
    assert (method, path) == ("PUT", f"{LEASES}/l")
    assert body["metadata"] == METADATA
    assert body["spec"] == {"strategy": "s", **SPEC}


async def test_a_release_writes_no_holder(server: ApiServer, store: KubernetesLease) -> None:
    lease = await store.read()

    await store.write(Claim("", 1, "then", "then", 3), lease)

    assert "holderIdentity" not in server.requests[-1][3]["spec"]


async def test_a_watch_names_the_lease_so_that_a_role_may_be_limited_to_it(
    server: ApiServer, store: KubernetesLease
) -> None:
    server.events = [
        {"type": "MODIFIED", "object": {"metadata": METADATA, "spec": SPEC}},
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}},
        {"type": "DELETED", "object": {"metadata": METADATA, "spec": SPEC}},
    ]

    assert [each async for each in store.watch("7")] == [Lease(CLAIM, "7"), None]

    method, path, query, _ = server.requests[-1]
    assert (method, path) == ("GET", LEASES)
    assert query == {
        "fieldSelector": "metadata.name=l",
        "watch": "true",
        "resourceVersion": "7",
        "timeoutSeconds": "30",
    }


async def test_a_watch_may_report_an_error(server: ApiServer, store: KubernetesLease) -> None:
    server.events = [{"type": "ERROR", "object": {"code": 410, "message": "too old"}}]

    with pytest.raises(ApiError, match="status 410: too old") as raised:
        _ = [each async for each in store.watch("7")]
    assert raised.value.cause == "expired"


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "missing"),
        (409, "conflict"),
        (429, "throttled"),
        (500, "status"),
    ],
)
async def test_refusals_have_causes(
    server: ApiServer, store: KubernetesLease, status: int, cause: str
) -> None:
    lease = await store.read()
    server.answer = (status, {"message": "no"})

    with pytest.raises(ApiError, match=f"status {status}: no") as raised:
        await store.write(CLAIM, lease)
    assert raised.value.cause == cause


@pytest.mark.parametrize(
    "document",
    [
        [],
        "text",
        {"metadata": None},
        {"metadata": METADATA, "spec": {"leaseDurationSeconds": "two"}},
        {"metadata": METADATA, "spec": {"holderIdentity": ["a"]}},
        {"metadata": METADATA, "filler": "x" * (1024 * 1024)},
    ],
)
async def test_answers_that_are_no_lease_are_refused(
    server: ApiServer, store: KubernetesLease, document: object
) -> None:
    server.answer = (200, document)

    with pytest.raises(ApiError) as raised:
        await store.read()
    assert raised.value.cause == "malformed"


async def test_an_api_server_that_does_not_answer_is_not_waited_for(
    server: ApiServer, store: KubernetesLease
) -> None:
    server.hangs = True
    store.request_seconds = 0.05

    with pytest.raises(ApiError, match=r"no complete response within 0\.05 s"):
        await store.read()


def test_the_namespace_is_the_routers_own_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_lease, "NAMESPACE_FILE", tmp_path / "namespace")
    with pytest.raises(LeaseNameError, match="set lease_namespace"):
        lease_name("l", None)
    (tmp_path / "namespace").write_text("own\n")

    assert lease_name("l", None) == LeaseName("own", "l")
    assert str(lease_name("l", "ml")) == "ml/l"
