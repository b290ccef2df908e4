"""``lora-router scrape``: what the router understands of a page."""

import io
import json
from pathlib import Path

import pytest
from aiohttp import web
from rich.console import Console

from lora_router.scrape.page_reader import MAX_PAGE_BYTES
from lora_router.scrape.report import SourceError, read_source, render_reports

RECORDED = Path(__file__).parents[2] / "data" / "vllm-0.32.0"
WAITING = RECORDED / "06_three_lora_one_waits_t1s.prom"


async def test_a_file_is_understood() -> None:
    report = await read_source(str(WAITING))

    assert json.loads(json.dumps(report)) == {
        "source": str(WAITING),
        "engine": "vllm",
        "running": 2,
        "waiting": 1,
        "kv_cache_usage": 0.00012207776353534427,
        "deferred": 1,
        "lora": {"max_lora": 2, "active": ["a1", "a2"], "updated_at": 1795427249.684291},
        "started_at": 1795427105.13,
    }


async def test_nothing_known_of_adapters_is_null() -> None:
    report = await read_source(str(RECORDED / "01_fresh_before_any_request.prom"))

    assert report["lora"] is None


async def test_what_the_page_does_not_say_is_null(tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.write_text("sglang:num_running_reqs 0.5\n")

    report = await read_source(str(page))

    assert (report["running"], report["waiting"], report["deferred"]) == (0.5, None, None)
    assert report["engine"] == "sglang"


async def test_standard_input_is_a_source() -> None:
    assert (await read_source("-", WAITING.read_bytes()))["running"] == 2


@pytest.mark.parametrize("path", ["", "/", "/metrics", "/other", "/long"])
async def test_a_url_is_read_and_without_a_path_it_is_metrics(path: str) -> None:
    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=WAITING.read_bytes())

    app = web.Application()

    async def long(_request: web.Request) -> web.Response:
        return web.Response(body=b"x" * (MAX_PAGE_BYTES + 1))

    app.router.add_get("/metrics", metrics)
    app.router.add_get("/long", long)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
    try:
        if path == "/other":
            with pytest.raises(SourceError, match="returned status 404"):
                await read_source(url)
        elif path == "/long":
            with pytest.raises(SourceError, match="is longer than"):
                await read_source(url)
        else:
            assert (await read_source(url))["deferred"] == 1
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/no/such/file", "/no/such/file: cannot be read: No such file"),
        ("bad\x00name", "cannot be read"),
        ("http://127.0.0.1:1/metrics", "http://127.0.0.1:1/metrics: "),
        ("http://[bad/metrics", r"http://\[bad/metrics: "),
    ],
)
async def test_a_source_that_cannot_be_read_is_named(source: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        await read_source(source)


async def test_a_page_of_something_else_is_named(tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.write_text("up 1\n")

    with pytest.raises(SourceError, match="page: not the page of a known model server"):
        await read_source(str(page))


async def test_people_get_a_table(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_text("vllm:num_requests_running 1\n")
    idle = str(RECORDED / "07_idle_10s_after_everything.prom")
    reports = [await read_source(source) for source in (str(WAITING), str(bare), idle)]
    console = Console(file=io.StringIO(), width=200)

    console.print(render_reports(reports, console.width))

    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "a1, a2" in text
    assert "unknown" in text
    assert "none" in text
