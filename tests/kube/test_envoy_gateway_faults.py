"""Pods and routers that fail behind an Envoy that Envoy Gateway configured."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from aiohttp import ClientSession, web

from tests.chart.rendering import render
from tests.envoy import Envoy, free_port
from tests.integration.echo_pod import EchoPod
from tests.kube.binaries import GATEWAY_TRANSLATOR, why_not
from tests.kube.gateway_config import bootstrap, translate, without_router
from tests.kube.gateway_install import gateway_values, installed, router_endpoints
from tests.kube.installed import Releases
from tests.kube.server import KubeClient, KubeServer
from tests.waiting import until

_missing = why_not(GATEWAY_TRANSLATOR)
pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(_missing is not None, reason=str(_missing)),
    pytest.mark.usefixtures("resources"),
]

DESTINATION = "x-gateway-destination-endpoint"


async def test_a_request_that_cannot_reach_its_pod_goes_to_the_routers_second_choice(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    """Envoy reads ``ip:port,ip:port`` as a list, and takes the next entry with each retry."""
    pods = [EchoPod(name, ("a1",)) for name in ("one", "two", "three")] + [EchoPod("other")]
    service = (namespace, "base")
    # The router must not learn that the pod is gone.
    values = gateway_values(service) | {"settings": {"outlier_ejection": False}}
    async with installed(kube, admin, releases, folder, {service: pods}, values) as gateway:
        await pods[0].__aexit__(None, None, None)
        served: Counter[int] = Counter()
        for _ in range(30):
            status, name = await gateway.post({"model": "a1"}, {"routing-strategy": "random"})
            assert status == 200
            [pod] = [pod for pod in pods if pod.name == name]
            [destination] = pod.received[-1].header(DESTINATION)
            served[destination.split(",").index(pod.address)] += 1
        # Nothing was served by a pod that the router did not name, such as "other".
        assert served[0] > 0
        assert served[1] > 0
        assert served.total() == 30


async def test_one_of_two_routers_is_enough(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    pods = [EchoPod("one", ("a1",)), EchoPod("two", ("a2",))]
    service = (namespace, "base")
    async with installed(
        *(kube, admin, releases, folder, {service: pods}, gateway_values(service)), routers=2
    ) as gateway:

        async def all_are_routed() -> None:
            for _ in range(20):
                assert await gateway.post({"model": "a1"}) == (200, "one")
                # Not merely balanced.
                assert pods[0].received[-1].header("target-pod") == [pods[0].address]

        await all_are_routed()
        streamed = {"model": "a2", "tokens": 8, "pause": 0.2}
        running = [asyncio.create_task(gateway.post(streamed)) for _ in range(4)]
        await until(lambda: len(pods[1].received) == 4)
        first, _ = gateway.apps
        await first.stop()
        await all_are_routed()
        assert await asyncio.gather(*running) == [(200, "two")] * 4
        assert pods[1].aborted == 0


async def test_a_router_that_hangs_is_not_asked(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    """It accepts connections and never answers, as a stopped process does."""
    service = (namespace, "base")
    async with await asyncio.start_server(_never_answer, "127.0.0.1", 0) as hanging:
        port = hanging.sockets[0].getsockname()[1]

        async with installed(
            *(kube, admin, releases, folder, {service: [EchoPod("one")]}, gateway_values(service)),
            change=lambda config: router_endpoints(config, [port]),
        ) as gateway:
            async with asyncio.timeout(10):  # Far below the message timeout of 35 s.
                assert await gateway.post({"model": "base"}) == (200, "one")


async def test_passive_health_checks_change_envoys_own_choice_and_not_the_routers(
    folder: Path,
) -> None:
    async with _pod(500) as failing, _pod(200) as well:
        service = ("models", "base")
        documents = render(gateway_values(service))
        found = await translate(documents, folder, {service: [failing, well]})
        config = bootstrap(found, free_port(), gateway="models/llm")
        without_router(config)
        async with Envoy(yaml.safe_dump(config), folder) as envoy, ClientSession() as client:

            async def statuses(headers: dict[str, str], number: int) -> list[int]:
                found = []
                for _ in range(number):
                    url = f"http://127.0.0.1:{envoy.port}/"
                    async with client.get(url, headers=headers) as response:
                        found.append(response.status)
                return found

            chosen = {DESTINATION: failing}
            assert await statuses(chosen, 5) == [500] * 5
            ejected = "cluster.httproute/.*.outlier_detection.ejections_active"
            async with asyncio.timeout(60):
                while await envoy.stat(ejected) != 1:
                    await asyncio.sleep(0.01)
            assert await statuses(chosen, 1) == [500]
            assert await statuses({}, 10) == [200] * 10
            # An endpoint that is not of this cluster is skipped.
            assert await statuses({DESTINATION: f"127.0.0.1:1,{failing}"}, 1) == [500]


@asynccontextmanager
async def _pod(status: int) -> AsyncIterator[str]:
    """Run a pod that answers everything with a status. Yields its address."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.read(1 << 16):
            pass
    except ConnectionError:
        pass
    finally:
        writer.close()
