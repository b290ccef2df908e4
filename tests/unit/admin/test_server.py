"""The admin pages, beside an event loop that is busy."""

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lora_router.admin.server import DEAD_SECONDS, AdminError, AdminServer, Readiness
from lora_router.fleet.fleet import Fleet
from lora_router.telemetry.exposition import Page
from lora_router.telemetry.metrics import Telemetry
from lora_router.threads import in_thread


class Router:
    """What the pages show, which a test sets."""

    def __init__(self) -> None:
        self.readiness = Readiness(ready=True, reason="ready", details={"pods": 3})
        self.silence = 0.0
        self.read_in: set[str] = set()

    def read(self) -> Readiness:
        self.read_in.add(threading.current_thread().name)
        return self.readiness


@pytest.fixture
def router() -> Router:
    return Router()


@pytest_asyncio.fixture
async def server(router: Router) -> AsyncIterator[AdminServer]:
    server = AdminServer(page, router.read, lambda: router.silence, host="127.0.0.1", port=0)
    await server.start()
    yield server
    await server.stop()


async def page(accept: str) -> Page:
    return await Telemetry(Fleet()).served(accept)


def get(server: AdminServer, page: str) -> tuple[int, str]:
    """Read a page. Blocks the calling thread."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{page}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def test_pages_are_read_in_the_routers_loop(server: AdminServer, router: Router) -> None:
    status, page = await in_thread(lambda: get(server, "/readyz"), "client")

    assert status == 200
    assert json.loads(page) == {"ready": True, "reason": "ready", "pods": 3}
    assert router.read_in == {threading.main_thread().name}
    status, page = await in_thread(lambda: get(server, "/metrics"), "client")
    assert status == 200
    assert "lora_router_pods" in page
    assert (await in_thread(lambda: get(server, "/nothing"), "client"))[0] == 404


async def test_a_busy_router_is_alive_and_says_that_it_is_busy(server: AdminServer) -> None:
    server.read_seconds = 0.05

    # These calls block the router's event loop until the answer has come.
    assert get(server, "/healthz") == (200, "ok\n")
    status, page = get(server, "/readyz")
    assert status == 503
    assert json.loads(page) == {"ready": False, "reason": "the event loop does not respond"}
    assert get(server, "/metrics") == (503, "the event loop does not respond\n")


async def test_a_loop_without_progress_for_long_is_not_alive(
    server: AdminServer, router: Router
) -> None:
    router.silence = DEAD_SECONDS - 1
    assert get(server, "/healthz")[0] == 200
    router.silence = DEAD_SECONDS + 12
    assert get(server, "/healthz") == (503, "the event loop has made no progress for 72 s\n")


async def test_a_page_that_cannot_be_made_is_a_500_and_the_next_one_is_served(
    server: AdminServer, router: Router
) -> None:
    router.readiness = None  # type: ignore[assignment]
    assert (await in_thread(lambda: get(server, "/readyz"), "client"))[0] == 500
    assert get(server, "/healthz")[0] == 200


async def test_a_port_that_is_taken_is_named(server: AdminServer, router: Router) -> None:
    threads = set(threading.enumerate())
    second = AdminServer(page, router.read, lambda: 0.0, host="127.0.0.1", port=server.port)

    with pytest.raises(AdminError, match=f"cannot listen on 127.0.0.1:{server.port} for the admin"):
        await second.start()

    async with asyncio.timeout(60):
        while any(each.name == "admin" for each in set(threading.enumerate()) - threads):
            await asyncio.sleep(0.01)
    await second.stop()


async def test_it_can_stop_before_the_start_twice_and_start_again(router: Router) -> None:
    server = AdminServer(page, router.read, lambda: 0.0, host="127.0.0.1", port=0)
    await server.stop()
    await server.start()
    await server.stop()
    await server.stop()
    await server.start()
    assert get(server, "/healthz")[0] == 200
    await server.stop()


async def test_a_standby_is_unready_unless_the_question_is_whether_it_could_lead(
    server: AdminServer, router: Router
) -> None:
    async def status(page: str) -> int:
        return (await in_thread(lambda: get(server, page), "client"))[0]

    router.readiness = Readiness(ready=False, reason="standby: b leads", details={}, standby=True)
    assert await status("/readyz") == 503
    assert await status("/readyz?exclude=leader") == 200
    assert await status("/readyz?exclude=pods&exclude=leader") == 200
    assert await status("/readyz?exclude=pods") == 503

    router.readiness = Readiness(ready=False, reason="shutting down", details={})
    assert await status("/readyz?exclude=leader") == 503
