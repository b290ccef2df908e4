"""Debian's Chromium for tests, driven by Playwright. It opens nothing but the page under test."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.async_api import Browser, Page, async_playwright

SECONDS = 60.0
"""Time in which what a test waits for must appear."""


def chromium() -> str | None:
    """Return the path of a Chromium, or ``None`` if this machine has none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    return None


@asynccontextmanager
async def started_browser() -> AsyncIterator[Browser]:
    """Start a browser. Skips the test where there is none."""
    path = chromium()
    if path is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path)
        yield browser
        await browser.close()


class Watched:
    """A page, and all that it must not do: errors, other hosts, refused content."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda said: self._said(said.type, said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"a dialog: {dialog.message}"))
        page.on("request", lambda request: self._asked(request.url, base))
        self.expected: tuple[str, ...] = ()
        """Parts of console messages that a test causes on purpose."""

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(part in text for part in self.expected):
            self.complaints.append(text)

    def _asked(self, url: str, base: str) -> None:
        if not url.startswith((f"{base}/", "data:")):
            self.complaints.append(f"a request to {url}")


@asynccontextmanager
async def watched(browser: Browser, base: str, **context: Any) -> AsyncIterator[Watched]:
    """Open a page in a new context, and hold at the end that it did nothing that it must not."""
    opened = await browser.new_context(**context)
    opened.set_default_timeout(SECONDS * 1000)
    page = await opened.new_page()
    seen = Watched(page, base)
    try:
        await page.goto(base)
        yield seen
        assert not seen.complaints, seen.complaints
    finally:
        await opened.close()
