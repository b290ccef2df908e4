"""Orders over HTTP: they need the token itself."""

from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest

from lora_router.admin.orders import NO_TOKEN
from lora_router.admin.server import AdminServer, Readiness
from lora_router.admin.shown import Shown
from lora_router.debug.client import DebugClient, DebugPageError
from lora_router.telemetry.exposition import Page

RIGHT = "a-token-that-is-right"
BEARER = {"authorization": f"Bearer {RIGHT}"}
ORDER = {"action": "load", "name": "sql"}


class Orders:
    """An admin port that takes orders."""

    def __init__(self, token_file: Path | None) -> None:
        self.given: list[Mapping[str, str]] = []

        async def page(_accept: str) -> Page:
            return Page(b"", "text/plain")

        async def show(_name: str, _query: Mapping[str, str]) -> Shown:
            return Shown(b"{}")

        self.server = AdminServer(
            page,
            lambda: Readiness(ready=True, reason="ready", details={}),
            lambda: 0.0,
            host="127.0.0.1",
            port=0,
            token_file=token_file,
            show=show,
            order=self._order,
        )

    async def _order(self, order: Mapping[str, str]) -> Shown:
        if order.get("name") == "unknown":
            return Shown(b'{"error": "no pod lists an adapter \'unknown\'"}', 400)
        self.given.append(order)
        return Shown(b'{"router": "router-a", "message": "sql is loaded now", "at": 1.0}')

    async def __aenter__(self) -> "Orders":
        await self.server.start()
        self.url = f"http://127.0.0.1:{self.server.port}"
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.server.stop()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(RIGHT)
    return file


async def test_an_order_with_the_token_is_given(token_file: Path) -> None:
    async with Orders(token_file) as orders, DebugClient(orders.url, RIGHT) as client:
        page = await client.order(ORDER)
        assert (page.router, page.message) == ("router-a", "sql is loaded now")
        assert orders.given == [ORDER]
        with pytest.raises(DebugPageError, match="no pod lists an adapter 'unknown'"):
            await client.order({"action": "unload", "name": "unknown"})


async def test_without_admin_token_file_there_are_no_orders() -> None:
    async with Orders(None) as orders, DebugClient(orders.url) as client:
        with pytest.raises(DebugPageError, match="set admin_token_file"):
            await client.order(ORDER)
        assert orders.given == []


async def test_the_session_of_a_browser_gives_no_orders(token_file: Path) -> None:
    jar = aiohttp.CookieJar(unsafe=True)
    async with Orders(token_file) as orders, aiohttp.ClientSession(cookie_jar=jar) as browser:
        await browser.post(f"{orders.url}/sign-in", data={"token": RIGHT})
        async with browser.get(f"{orders.url}/debug/pods") as seen:
            assert seen.status == 200
        async with browser.post(f"{orders.url}/debug/order", json=ORDER) as answer:
            assert answer.status == 403
            assert await answer.json() == {"error": NO_TOKEN}
        assert orders.given == []


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"action=load", "application/x-www-form-urlencoded", 415),
        (b"[1]", "application/json", 400),
        (b'{"copies": 2}', "application/json", 400),
        (b"\xff", "application/json", 400),
        (b" " * 20_000, "application/json", 413),
    ],
)
async def test_a_body_that_is_no_order_is_refused(
    token_file: Path, body: bytes, kind: str, status: int
) -> None:
    headers = {**BEARER, "content-type": kind}
    async with Orders(token_file) as orders, aiohttp.ClientSession(headers=headers) as client:
        async with client.post(f"{orders.url}/debug/order", data=body) as answer:
            assert answer.status == status
        async with client.get(f"{orders.url}/debug/order") as answer:
            assert answer.status == 200, "a page of that name shows nothing and changes nothing"
        assert orders.given == []


async def test_a_router_that_is_busy_says_so(token_file: Path) -> None:
    async with Orders(token_file) as orders, DebugClient(orders.url, RIGHT) as client:
        orders.server.read_seconds = 0.0
        with pytest.raises(DebugPageError, match="the event loop does not respond"):
            await client.order(ORDER)
