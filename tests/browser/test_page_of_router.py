"""The page of a real router, behind a real Envoy, in a real browser."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import expect

from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from tests.browser.browsing import SECONDS, started_browser, watched
from tests.envoy import Envoy
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import write_pods
from tests.integration.served import Served
from tests.waiting import until

pytestmark = pytest.mark.envoy
expect.set_options(timeout=SECONDS * 1000)


@asynccontextmanager
async def one_runs_and_one_waits(
    folder: Path, workers: int
) -> AsyncIterator[tuple[Served, "asyncio.Task[None]"]]:
    """Run a router whose only slot has a1, and hold a request for a2 until a1's is cancelled."""
    async with EchoPod("vllm-0", ("a1", "a2"), max_lora=1) as pod:
        write_pods(folder / "pods.yaml", [pod])
        # The browser may need long to start where other tests run.
        config: dict[str, object] = {
            "workers": workers,
            "max_hold_seconds": 300,
            # On a busy machine, every request is decided by a router all the same.
            "envoy_fail_open": False,
            "envoy_message_timeout_seconds": 60,
        }
        served = Served(folder, config)
        settings = load_settings(file=served.file, environ={}, flags={}).settings
        async with served.run(), aiohttp.ClientSession() as client:
            await served.until_ready()
            async with Envoy(bootstrap_yaml(settings), folder) as envoy:
                url = f"http://127.0.0.1:{envoy.port}/v1/completions"

                async def post(document: dict[str, object]) -> None:
                    async with client.post(url, json=document) as response:
                        await response.read()

                runs = {"model": "a1", "tokens": 10_000, "pause": 0.1}
                running = asyncio.create_task(post(runs))
                await until(lambda: len(pod.received) == 1)
                if workers > 1:
                    await other_workers_know(served, client)
                waiting = asyncio.create_task(post({"model": "a2"}))
                yield served, running
                await waiting


async def other_workers_know(served: Served, client: aiohttp.ClientSession) -> None:
    """Wait until a worker knows that the slot of another one is taken. It would use it too."""
    async with asyncio.timeout(SECONDS):
        while True:
            async with client.get(f"http://127.0.0.1:{served.admin_port}/metrics") as response:
                if "\nlora_router_peer_in_flight_requests 1.0\n" in await response.text():
                    return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_page_shows_the_adapter_that_waits_and_then_why_it_did(
    tmp_path: Path, workers: int
) -> None:
    async with (
        started_browser() as browser,
        one_runs_and_one_waits(tmp_path, workers) as (served, running),
        watched(browser, f"http://127.0.0.1:{served.admin_port}") as seen,
    ):
        page = seen.page
        held = page.locator("#held li")
        await expect(held).to_have_count(1)
        await expect(held.locator(".model")).to_have_text("a2")
        await expect(held.locator(".why")).not_to_be_empty()
        slot = page.locator("#fleet .slot")
        # A slot is closed for a request that waits for long.
        await expect(slot).to_have_text(re.compile("^a1(closed )?1 ?$"))
        assert await slot.get_attribute("data-kind") in ("running", "closed")

        await held.click()
        await expect(page.locator("#detail .told")).to_contain_text("a2")
        await expect(page.locator("#detail tbody tr")).to_contain_text("vllm-0")
        await page.keyboard.press("Escape")

        running.cancel()
        decided = page.locator("#decisions tbody tr", has_text="a2").filter(has_text="200")
        await decided.click()
        dialog = page.locator("#detail")
        await expect(dialog.locator(".told")).to_contain_text("held")
        await expect(dialog.locator(".timeline li").first).to_contain_text("Held")
        await expect(dialog.locator(".facts")).to_contain_text("Held because")
        await expect(dialog.locator("tbody tr").first).to_contain_text("vllm-0")
        await page.keyboard.press("Escape")

        await expect(page.locator("#adapters tbody tr")).to_have_count(2)
        await expect(page.locator("#routers tbody tr")).to_have_count(workers)
        await expect(held).to_have_count(0)
