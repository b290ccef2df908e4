"""The page in a real browser, over debug pages that the tests make up."""

import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.browser.browsing import SECONDS, started_browser, watched
from tests.browser.made_router import MadeRouter, adapter, decision, held, pod, router

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.envoy,
]
expect.set_options(timeout=SECONDS * 1000)

HOSTILE = "<img src=x onerror=alert(1)>\"'</script><script>alert(2)</script>&lt;b&gt;"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with started_browser() as started:
        yield started


@asynccontextmanager
async def opened(browser: Browser, made: MadeRouter, **context: Any) -> AsyncIterator[Page]:
    """Open the page of a router."""
    server = made.admin()
    await server.start()
    try:
        async with watched(browser, f"http://127.0.0.1:{server.port}", **context) as seen:
            await expect(seen.page.locator("#connection")).to_have_text("Live")
            yield seen.page
    finally:
        await server.stop()


def rows(page: Page, section: str) -> Any:
    return page.locator(f"#{section} tbody tr")


async def test_a_request_that_waits_is_shown_with_its_reason_and_its_time(browser: Browser) -> None:
    made = MadeRouter()
    made.held = [
        held("r-1", "sql-lora", 27.3, closing={"pod": "vllm-0", "adapter": "chat"}),
        held("r-2", "sql-lora", 3.0),
    ]
    async with opened(browser, made) as page:
        first = page.locator("#held li").first

        await expect(first).to_contain_text("sql-lora")
        await expect(first).to_contain_text("no pod has a free slot")
        await expect(first).to_contain_text("closing chat on vllm-0")
        await expect(page.locator("#held .count")).to_have_text("2")
        await expect(page.locator("#attention li").first).to_contain_text(
            "sql-lora: 2 requests held for up to"
        )
        before = float((await first.locator(".time").inner_text()).split()[0])
        assert before >= 27.3
        await expect(first.locator(".time")).not_to_have_text(f"{before} s")

        made.held = []
        await expect(page.locator("#held .note")).to_have_text("No request waits for a slot.")
        await expect(page.locator("#attention li")).to_have_text("Nothing.")


async def test_pods_are_shown_with_their_slots_and_what_is_in_them(browser: Browser) -> None:
    made = MadeRouter(0)
    made.pods = [
        pod(0, running=1, loaded=1, slots=3),
        pod(1, health="ejected", why="5 answers in a row failed"),
        pod(2, running=0, loaded=0, slots=None, age_seconds=31.0),
    ]
    made.pods[0]["adapters"][1]["closed"] = True
    async with opened(browser, made) as page:
        cards = page.locator("#fleet .pod")

        await expect(cards.nth(0).locator(".slot")).to_have_text(
            ["adapter-03", "adapter-1closed", ""]
        )
        await expect(cards.nth(1)).to_contain_text("ejected")
        await expect(cards.nth(2)).to_contain_text("scrape 30 s old")
        await expect(page.locator("#summary .tile").first).to_contain_text("1 of 3")

        made.pods[0]["adapters"][0]["in_flight"] = 9
        del made.pods[2]
        await expect(cards.nth(0).locator(".slot").first).to_have_text("adapter-09")
        await expect(cards).to_have_count(2)

        await page.get_by_label("Problems only").check()
        await expect(page.locator("#fleet .count")).to_have_text("1 of 2 pods")
        await page.get_by_label("Problems only").uncheck()
        await page.get_by_label("Find").fill("adapter-3")
        await expect(page.locator("#fleet .slot[data-hit]")).to_have_text(["adapter-33"])


async def test_of_a_declared_adapter_it_shows_how_far_it_is_and_what_fails(
    browser: Browser,
) -> None:
    made = MadeRouter(1)
    failing = {
        "pod": "pods/vllm-0003",
        "action": "load",
        "reason": "No adapter found for <path>",
        "failures": 4,
        "next_try_seconds": 7.5,
    }
    declared = {"declared_by": "file", "state": "partly", "wanted": 4, "failing": [failing]}
    unplaced = {
        "declared_by": "file",
        "state": "unplaced",
        "unplaced_because": "no ready pod serves its base model",
    }
    made.adapters = [
        adapter("sql-lora", 5, **declared),
        adapter("by-hand", 4),
        adapter("new", 3, **unplaced),
    ]
    async with opened(browser, made) as page:
        cells = rows(page, "adapters").locator('td[data-name="As declared"]')
        cell = cells.nth(0)
        await expect(cell).to_have_text("partly, 3 of 4 pods")
        await expect(cell).to_have_attribute(
            "title", "pods/vllm-0003 cannot load it: No adapter found for <path>"
        )
        await expect(cells.nth(1)).to_have_text("")
        await expect(cells.nth(2)).to_have_text("unplaced")
        await expect(cells.nth(2)).to_have_attribute("title", "no ready pod serves its base model")


async def test_names_are_text_whatever_they_are(browser: Browser) -> None:
    made = MadeRouter(0)
    made.pods = [pod(0, name=HOSTILE, why=HOSTILE, health="suspect")]
    made.pods[0]["adapters"][0]["name"] = HOSTILE
    made.held = [held(HOSTILE, HOSTILE, 30.0, reason=HOSTILE)]
    made.decisions = [decision(1, HOSTILE, reason=HOSTILE, pod=HOSTILE, request_id=HOSTILE)]
    made.adapters = [adapter(HOSTILE, 5, running=[HOSTILE])]
    made.routers = [router(HOSTILE)]
    async with opened(browser, made) as page:
        await expect(rows(page, "decisions").locator("td").nth(1)).to_have_text(HOSTILE)
        await expect(page.locator("#held .model")).to_have_text(HOSTILE)
        await expect(page.locator("#fleet .adapter").first).to_have_text(HOSTILE)
        await rows(page, "decisions").click()
        await expect(page.locator("#detail-title")).to_have_text(HOSTILE)
        await expect(page.locator("#detail-body .note")).to_contain_text("was not kept")
        assert await page.locator("img, body script:not(:last-child)").count() == 0


async def test_no_name_looks_like_another_or_like_none(browser: Browser) -> None:
    made = MadeRouter(0)
    made.pods = [pod(0, name="vllm\u202e0-")]
    made.held = [held("id", "\u200b", 30.0)]
    async with opened(browser, made) as page:
        await expect(page.locator("#fleet")).to_contain_text("vllm\\u{202e}0-")
        await expect(page.locator("#held .model")).to_have_text("\\u{200b}")


async def test_a_click_on_a_decision_explains_it(browser: Browser) -> None:
    made = MadeRouter()
    slow = decision(
        7,
        "sql-lora",
        held_for="no free slot",
        held_seconds=27.0,
        first_byte_seconds=27.5,
        seconds=30.0,
        abnormal=True,
        slow=True,
    )
    made.decisions = [slow]
    made.answers["decision"] = {
        **slow,
        "text": "It was held for 27 s, because no pod had a free slot.",
        "held_candidates": [],
        "candidates": [
            {
                "pod": "pods/vllm-0001",
                "requests": 3,
                "free_slots": 1,
                "place": "slot",
                "terms": {"load": 0.5, "adapter": 1},
                "cost": 1.5,
                "excluded": "",
            },
            {
                "pod": "pods/vllm-0002",
                "requests": 9,
                "free_slots": 0,
                "place": "nowhere",
                "terms": {},
                "cost": None,
                "excluded": "has no free slot",
            },
        ],
    }
    async with opened(browser, made) as page:
        await rows(page, "decisions").click()

        dialog = page.locator("#detail")
        await expect(dialog.locator(".told")).to_contain_text("held for 27 s")
        await expect(dialog.locator(".timeline li")).to_have_text(
            [
                "Held 27.0 s",
                "Decision 20 µs",
                "Pod, to the first byte 500 ms",
                "Rest of the answer 2.50 s",
                "Total 30.0 s",
            ]
        )
        lines = dialog.locator("tbody tr")
        await expect(lines.nth(0)).to_contain_text("picked")
        await expect(lines.nth(1)).to_contain_text("has no free slot")
        assert "load" in await dialog.locator("thead").inner_text()


async def test_all_of_it_works_with_a_keyboard(browser: Browser) -> None:
    made = MadeRouter()
    made.decisions = [decision(3, "a"), decision(2, "b"), decision(1, "c")]
    async with opened(browser, made) as page:
        await expect(rows(page, "decisions")).to_have_count(3)
        await page.keyboard.press("Tab")
        await expect(page.locator(".skip")).to_be_focused()

        await page.keyboard.press("/")
        await expect(page.get_by_label("Find")).to_be_focused()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Tab")
        await expect(page.locator("#fleet .pod").first).to_be_focused()
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("Enter")
        await expect(page.locator("#detail-title")).to_have_text("pods/vllm-0001")
        await page.keyboard.press("Escape")
        await expect(page.locator("#fleet .pod").nth(1)).to_be_focused()

        await page.get_by_role("button", name="Pause").focus()
        await page.keyboard.press("Tab")
        await expect(rows(page, "decisions").nth(0)).to_be_focused()
        assert (
            await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        )
        await page.keyboard.press("ArrowDown")
        await expect(rows(page, "decisions").nth(1)).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#detail-title")).to_have_text("b")
        await expect(page.locator("#detail-close")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(rows(page, "decisions").nth(1)).to_be_focused()

        await page.keyboard.press("p")
        await expect(page.locator("#decisions-pause")).to_have_text("Resume")


async def test_decisions_come_as_they_are_made_unless_they_are_paused_or_filtered(
    browser: Browser,
) -> None:
    made = MadeRouter()
    made.decisions = [decision(1, seconds=None)]
    async with opened(browser, made) as page:
        await expect(rows(page, "decisions").first).to_contain_text("open")
        made.decisions = [
            decision(2, "chat", abnormal=True, status=503, reason="no pod answered"),
            decision(1),
        ]
        await expect(rows(page, "decisions").first).to_contain_text("503")
        await expect(rows(page, "decisions").last).to_contain_text("1.50 s")

        await page.get_by_label("Abnormal only").check()
        await expect(rows(page, "decisions")).to_have_count(1)
        await page.get_by_label("Abnormal only").uncheck()
        await page.get_by_label("Model").fill("adapter-1")
        await expect(rows(page, "decisions")).to_have_count(1)
        await expect(rows(page, "decisions")).to_contain_text("adapter-1")
        await page.get_by_label("Model").fill("")
        await expect(rows(page, "decisions")).to_have_count(2)

        await page.get_by_role("button", name="Pause").click()
        made.decisions.insert(0, decision(3, "unseen"))
        made.pods[0]["in_flight"] = 77
        await expect(page.locator("#fleet .pod").first).to_contain_text("77")
        await expect(rows(page, "decisions")).to_have_count(2)
        await page.get_by_role("button", name="Resume").click()
        await expect(rows(page, "decisions").first).to_contain_text("unseen")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone_shows_it_without_scrolling_sideways(browser: Browser, scheme: str) -> None:
    made = MadeRouter(8)
    made.held = [held("r", "a-name-" + "that-is-long-" * 8, 3.0)]
    made.decisions = [decision(1, "a-name-" + "that-is-long-" * 8, reason="because " * 30)]
    async with opened(browser, made, color_scheme=scheme, **PHONE) as page:
        await expect(rows(page, "decisions")).to_have_count(1)
        assert await page.evaluate("document.documentElement.scrollWidth") == 360
        ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        red = int(ground.removeprefix("rgb(").split(",")[0])
        assert (red < 60) is (scheme == "dark")
        await page.locator("#fleet").scroll_into_view_if_needed()
        await expect(page.locator("#fleet .slot").first).to_be_visible()

        await rows(page, "decisions").tap()
        await expect(page.locator("#detail")).to_be_visible()
        box = await page.locator("#detail").bounding_box()
        assert box is not None
        assert box["width"] <= 360


async def test_on_a_phone_each_value_of_an_adapter_has_its_label(browser: Browser) -> None:
    made = MadeRouter(3)
    made.adapters = [adapter("sql-lora", 5, declared_by="file", state="loaded", wanted=3)]
    async with opened(browser, made, **PHONE) as page:
        await expect(rows(page, "adapters")).to_have_count(1)
        labels = (
            await rows(page, "adapters")
            .locator("td")
            .evaluate_all(
                "cells => cells.filter(cell => cell.textContent).map("
                "cell => [cell.dataset.name, getComputedStyle(cell, '::before').content])"
            )
        )
        unlabeled = [name for name, label in labels if label in {"none", "normal"}]
        assert unlabeled == ["Adapter"]  # It is the heading of the row.


async def test_a_thousand_pods_stay_smooth(browser: Browser) -> None:
    made = MadeRouter(1000)
    made.adapters = [adapter(f"adapter-{number}", 100_000 - number) for number in range(300)]
    async with opened(browser, made) as page:
        await expect(page.locator("#fleet .count")).to_have_text("1,000 pods")
        cost = page.locator("#cost")
        costs: list[float] = []
        # Milliseconds for each update, of which other processes take some: until one shows it.
        deadline = time.monotonic() + SECONDS
        for turn in itertools.count():
            for each in made.pods:
                each["in_flight"] += 1
                each["adapters"][0]["in_flight"] += 1
            await expect(page.locator("#summary .tile").nth(2)).to_contain_text(
                f"{6000 + 1000 * (turn + 1):,}"
            )
            costs.append(float((await cost.inner_text()).split()[2]))
            if turn >= 3 and (min(costs) < 250 or time.monotonic() > deadline):
                break
        drawn = await page.evaluate(
            "[...document.querySelectorAll('#fleet .pod')].filter((pod) => pod.title).length"
        )

        assert await page.get_by_label("Compact").is_checked()
        assert drawn < 700, "only pods in view are drawn"
        await expect(rows(page, "adapters")).to_have_count(200)
        assert min(costs) < 250, f"milliseconds for each update: {costs}"


async def test_a_router_that_restarts_is_shown_as_lost_and_then_as_it_is_now(
    browser: Browser,
) -> None:
    made = MadeRouter()
    server = made.admin()
    await server.start()
    async with watched(browser, f"http://127.0.0.1:{server.port}") as seen:
        seen.expected = ("ERR_CONNECTION_", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE_CHUNKED")
        line = seen.page.locator("#connection")
        await expect(line).to_have_text("Live")
        await server.stop()
        await expect(line).to_contain_text("Connection lost. Reconnecting…")

        made.decisions = [decision(1, "of-the-new-one")]
        again = made.admin(port=server.port)
        await again.start()
        await expect(line).to_contain_text("Connected again.")
        await expect(rows(seen.page, "decisions")).to_have_count(1)
        await expect(rows(seen.page, "decisions")).to_contain_text("of-the-new-one")
        # Before the server stops, so that the page is not asked about it.
        await seen.page.goto("about:blank")
        seen.complaints = [each for each in seen.complaints if "about:blank" not in each]
    await again.stop()


async def test_a_token_is_asked_for_once_and_kept_nowhere(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-token-that-is-right")
    server = MadeRouter().admin(token_file=file)
    await server.start()
    base = f"http://127.0.0.1:{server.port}"
    async with watched(browser, base) as seen:
        page = seen.page
        seen.complaints.clear()  # The browser's console has the status 401.
        seen.expected = ("401",)
        await page.get_by_label("Token").fill("a-token-that-is-wrong")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("This token is wrong.")
        await page.get_by_label("Token").fill("a-token-that-is-right")
        await page.keyboard.press("Enter")
        await expect(page.locator("#connection")).to_have_text("Live")

        assert page.url == f"{base}/"
        (cookie,) = await page.context.cookies()
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        assert "right" not in cookie["value"]
        assert await page.evaluate("document.cookie + localStorage.length") == "0"

        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_label("Token")).to_be_visible()
        assert await page.context.cookies() == []
    await server.stop()
