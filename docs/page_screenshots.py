"""Takes the pictures of docs/page.md: the demo runs, and a real Chromium looks at its page.

It needs Playwright, which is among the development requirements, and a Chromium on the PATH.
"""

import asyncio
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Locator, Page, async_playwright

IMAGES = Path(__file__).parent / "images"
MOST_BYTES = 200_000
_SECONDS = 60.0
_PAGE = re.compile(r"the page is (http://\S+)")
_DEMO = ("demo", "--algorithm", "lora-placement", "--duration", "90")
_WIDE: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
_PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "is_mobile": True}


async def main() -> None:
    """Run the demo and take all pictures."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("there is no chromium on the PATH")
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-m", "lora_router", *_DEMO),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        address = await _address(demo)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium)
            await _take(browser, address)
            await browser.close()
    finally:
        if demo.returncode is None:
            demo.terminate()
        await demo.wait()


async def _address(demo: asyncio.subprocess.Process) -> str:
    assert demo.stdout is not None  # noqa: S101 -- it is a pipe
    said = ""
    async with asyncio.timeout(_SECONDS):
        while line := (await demo.stdout.readline()).decode():
            said += line
            if found := _PAGE.search(line):
                return found[1]
    sys.exit(f"the demo named no page:\n{said}")


async def _take(browser: Browser, address: str) -> None:
    for name, context in {
        "page-light": {**_WIDE, "color_scheme": "light"},
        "page-dark": {**_WIDE, "color_scheme": "dark"},
        "page-phone": {**_PHONE, "color_scheme": "light"},
    }.items():
        opened = await browser.new_context(**context)
        page = await opened.new_page()
        page.set_default_timeout(_SECONDS * 1000)
        await page.goto(address)
        await page.locator("#held li").first.wait_for()
        await page.locator("#decisions tbody tr").nth(20).wait_for()
        await _save(page, name)
        if name == "page-light":
            await _explain(page)
        await opened.close()


async def _explain(page: Page) -> None:
    """Open the explanation of a request that was held for long, as a reader would."""
    await page.get_by_label("Abnormal only").check()
    lines = page.locator("#decisions tbody tr", has_not_text="joined")
    seconds = re.compile(r"\d s$")
    for column in ("Held", "Total"):
        lines = lines.filter(has=page.locator(f'[data-name="{column}"]', has_text=seconds))
    await lines.first.click()
    await page.locator("#detail .told").wait_for()
    await _save(page.locator("#detail"), "page-explanation")


async def _save(shown: Page | Locator, name: str) -> None:
    file = IMAGES / f"{name}.png"
    await shown.screenshot(path=file)
    size = file.stat().st_size
    if size > MOST_BYTES:
        sys.exit(f"{file.name} has {size} bytes, more than {MOST_BYTES}")


if __name__ == "__main__":
    asyncio.run(main())
