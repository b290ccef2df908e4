"""The pages behind the gate, over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from lora_router.admin import gate
from lora_router.admin.pages import HEADERS, Shown
from lora_router.admin.server import AdminServer, Readiness
from lora_router.telemetry.exposition import Page

RIGHT = "a-token-that-is-right"


async def show(name: str, query: Mapping[str, str]) -> Shown:
    """Show what was asked."""
    if name == "nothing":
        return Shown(b'{"error": "there is no such page"}', 404)
    return Shown(json.dumps({"name": name, **query}).encode())


@asynccontextmanager
async def serving(
    host: str = "127.0.0.1", token_file: Path | None = None
) -> AsyncIterator[tuple[AdminServer, aiohttp.ClientSession]]:
    async def page(_accept: str) -> Page:
        return Page(b"metrics\n", "text/plain")

    server = AdminServer(
        page,
        lambda: Readiness(ready=True, reason="ready", details={}),
        lambda: 0.0,
        host=host,
        port=0,
        token_file=token_file,
        show=show,
    )
    await server.start()
    base = f"http://127.0.0.1:{server.port}"
    async with aiohttp.ClientSession(base, cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        yield server, client
    await server.stop()


@pytest.fixture(autouse=True)
def short_wait_after_a_wrong_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "WRONG_SECONDS", 0.1)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(RIGHT)
    return file


async def test_a_page_gets_the_rest_of_its_path_and_its_query() -> None:
    async with serving() as (_, client), client.get("/debug/decisions/a%2Fb?limit=3") as answer:
        assert await answer.json() == {"name": "decisions/a/b", "limit": "3"}
        assert answer.status == 200
        assert answer.content_type == "application/json"
        for name, value in HEADERS.items():
            assert answer.headers[name] == value


async def test_a_page_says_its_status() -> None:
    async with serving() as (_, client), client.get("/debug/nothing") as answer:
        assert answer.status == 404
        assert await answer.json() == {"error": "there is no such page"}


@pytest.mark.parametrize("path", ["/debug", "/debug/"])
async def test_the_folder_of_the_pages_is_one_without_a_name(path: str) -> None:
    async with serving() as (_, client), client.get(path) as answer:
        assert await answer.json() == {"name": ""}


async def test_a_router_that_is_busy_says_so() -> None:
    async with serving() as (server, client):
        server.read_seconds = 0.0
        async with client.get("/debug/pods") as answer:
            assert answer.status == 503
            assert await answer.text() == "the event loop does not respond\n"


@pytest.mark.parametrize("path", ["/", "/debug/pods", "/anything", "/healthz/", "/metrics/"])
async def test_with_a_token_each_path_needs_it_but_those_of_probes(
    token_file: Path, path: str
) -> None:
    async with serving("0.0.0.0", token_file) as (_, client):
        async with client.get(path) as answer:
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["cache-control"] == "no-store"
        for probed in ("/healthz", "/readyz", "/metrics"):
            async with client.get(probed) as answer:
                assert answer.status == 200
                assert "x-frame-options" not in answer.headers


async def test_the_token_opens_the_pages(token_file: Path) -> None:
    headers = {"authorization": f"Bearer {RIGHT}"}
    async with (
        serving("0.0.0.0", token_file) as (_, client),
        client.get("/debug/pods", headers=headers) as answer,
    ):
        assert answer.status == 200


async def test_many_wrong_tokens_delay_no_probe(token_file: Path) -> None:
    headers = {"authorization": "Bearer wrong"}

    async def guess(client: aiohttp.ClientSession) -> int:
        async with client.get("/debug/pods", headers=headers) as answer:
            return answer.status

    async with serving("0.0.0.0", token_file) as (_, client):
        guesses = asyncio.gather(*(guess(client) for _ in range(40)))
        async with client.get("/healthz") as answer:
            assert answer.status == 200
        assert set(await guesses) == {401, 429}


async def test_without_a_token_other_addresses_show_nothing() -> None:
    async with serving("0.0.0.0") as (_, client), client.get("/debug/pods") as answer:
        assert answer.status == 403
        assert "Set admin_token_file" in await answer.text()


async def test_another_host_name_is_refused_on_a_loopback_address() -> None:
    headers = {"host": "evil.example"}
    async with serving() as (_, client), client.get("/debug/pods", headers=headers) as answer:
        assert answer.status == 403


async def sign_in(client: aiohttp.ClientSession, **form: str) -> aiohttp.ClientResponse:
    return await client.post("/sign-in", data=form, allow_redirects=False)


async def test_a_browser_signs_in_and_out(token_file: Path) -> None:
    async with serving("0.0.0.0", token_file) as (_, client):
        async with client.get("/") as answer:
            assert answer.status == 401
            assert 'action="/sign-in"' in await answer.text()
        answer = await sign_in(client, token=f" {RIGHT}\n")
        assert answer.status == 303
        assert answer.headers["location"] == "/"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "Secure" not in cookie
        assert RIGHT not in cookie
        async with client.get("/debug/pods") as answer:
            assert answer.status == 200
        async with client.get("/") as answer:
            assert "Sign out" in await answer.text()

        await client.post("/sign-out", allow_redirects=False)
        async with client.get("/debug/pods") as answer:
            assert answer.status == 401


async def test_a_cookie_that_a_proxy_sends_over_tls_stays_there(token_file: Path) -> None:
    async with (
        serving("0.0.0.0", token_file) as (_, client),
        client.post(
            "/sign-in",
            data={"token": RIGHT},
            headers={"x-forwarded-proto": "https"},
            allow_redirects=False,
        ) as answer,
    ):
        assert "Secure" in answer.headers["set-cookie"]


async def test_a_token_that_is_no_text_is_a_wrong_one(token_file: Path) -> None:
    form = {"content-type": "application/x-www-form-urlencoded; charset=unicode_escape"}
    async with (
        serving("0.0.0.0", token_file) as (_, client),
        client.post("/sign-in", data=rb"token=\ud800", headers=form) as answer,
    ):
        assert answer.status == 401


@pytest.mark.parametrize("form", [{"token": "wrong"}, {}, {"token": ""}])
async def test_a_wrong_token_gets_the_form_again(token_file: Path, form: dict[str, str]) -> None:
    async with serving("0.0.0.0", token_file) as (_, client):
        answer = await sign_in(client, **form)
        assert answer.status in (401, 415)
        assert "set-cookie" not in answer.headers


async def test_without_a_token_there_is_nothing_to_sign_in_to() -> None:
    async with serving() as (_, client):
        assert (await sign_in(client, token=RIGHT)).status == 404


async def test_the_page_allows_nothing_but_itself() -> None:
    async with serving() as (_, client), client.get("/") as answer:
        policy = answer.headers["content-security-policy"]
        text = await answer.text()

    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "script-src 'sha256-" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    assert "/* style */" not in text
    assert "/* script */" not in text
    assert "<!-- sign out -->" not in text
    assert text.count("</script>") == 1
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
