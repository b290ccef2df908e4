"""The service that all clients call. It is started once for each body mode."""

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.clients.api_pod import ApiPod
from tests.clients.service import MODELS, Service, make_pods
from tests.integration.routers import site


@pytest.fixture(scope="session", params=["buffered", "full-duplex"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The service, with each body mode in which the router sees the whole body."""
    # The clients read these variables, and fail if the files are not there.
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        os.environ.pop(name, None)
    with _in_a_thread(tmp_path_factory.mktemp("clients"), make_pods(), request.param) as service:
        yield service


@pytest.fixture
def service(running: Service) -> Iterator[Service]:
    """The service, without the calls of earlier tests. In the end, all calls were routed right."""
    running.forget()
    yield running
    running.check()


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    """Each model."""
    name: str = request.param
    return name


@contextmanager
def _in_a_thread(directory: Path, pods: list[ApiPod], mode: str) -> Iterator[Service]:
    """Run the service in a loop of its own, because some clients block theirs for seconds."""
    started: Future[Service] = Future()
    stop = threading.Event()

    async def run() -> None:
        async with site(directory, pods, routers=1, envoy_body_mode=mode) as running:
            service = Service(f"http://127.0.0.1:{running.envoy.port}", pods)
            await _until_models_are_known(running.client, service)
            started.set_result(service)
            await asyncio.to_thread(stop.wait)

    def guarded() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=guarded, name="service")
    thread.start()
    try:
        yield started.result()
    finally:
        stop.set()
        thread.join()


async def _until_models_are_known(client: aiohttp.ClientSession, service: Service) -> None:
    async with asyncio.timeout(60):
        while True:
            async with client.get(f"{service.openai_url}/models") as response:
                document = await response.json()
            if {model["id"] for model in document.get("data", ())} == set(MODELS):
                return
            await asyncio.sleep(0.05)
