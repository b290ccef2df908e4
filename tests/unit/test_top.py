"""``lora-router top`` on a terminal: what ends it, and what it shows while a router hangs."""

import asyncio
import io
import os
import pty
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console

from lora_router.cli import top
from lora_router.debug.client import DebugClient, DebugPageError
from lora_router.debug.pages import RoutersPage
from lora_router.debug.top_view import Pages


class Router(DebugClient):
    """Answers, or hangs, or cannot be reached."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1")
        self.asked = 0
        self.hangs = False
        self.error = ""

    async def page(self, kind, query=None):  # type: ignore[no-untyped-def]
        self.asked += kind is RoutersPage
        if self.hangs:
            await asyncio.sleep(3600)
        if self.error:
            raise DebugPageError(self.error)
        return kind()


class Screen(io.StringIO):
    """A terminal, and what ends the command once something is shown on it."""

    def __init__(self, ends: Callable[[str], bool]) -> None:
        super().__init__()
        self.ended = asyncio.Event()
        self._ends = ends

    def write(self, text: str) -> int:
        count = super().write(text)
        if self._ends(self.getvalue()):
            self.ended.set()
        return count

    @property
    def console(self) -> Console:
        return Console(file=self, force_terminal=True, width=100, height=20)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "_SILENT_SECONDS", 0.005)
    monkeypatch.setattr(top, "_TICK_SECONDS", 0.005)


async def show(router: Router, ends: Callable[[str], bool]) -> str:
    """Return all that is shown until ``ends`` is true of it."""
    screen = Screen(ends)
    async with asyncio.timeout(60):
        await top.show(router, screen.console, 0.001, screen.ended)
    return screen.getvalue()


async def test_it_can_end_while_the_router_hangs() -> None:
    router = Router()
    router.hangs = True

    shown = await show(router, lambda shown: "no answer for 0 s" in shown)

    assert router.asked == 1
    assert shown.endswith("\x1b[?25h\x1b[?1049l"), "the screen is as it was before"


async def test_the_last_picture_stays_while_the_router_hangs() -> None:
    router = Router()

    def ends(shown: str) -> bool:
        router.hangs = "pods 0/0 well" in shown
        return "no answer for" in shown

    assert "pods 0/0 well" in (await show(router, ends)).partition("no answer for")[2]


async def test_a_router_that_comes_back_is_shown_again() -> None:
    router = Router()

    def ends(shown: str) -> bool:
        before, gone, after = shown.partition("it is gone")
        router.error = "" if gone or "well" not in before else "it is gone"
        return "well" in after

    await show(router, ends)


async def test_a_router_that_cannot_be_reached_at_first_is_an_error() -> None:
    router = Router()
    router.error = "it is gone"
    with pytest.raises(DebugPageError, match="it is gone"):
        await show(router, lambda _: False)


@contextmanager
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], int]]:
    """Let standard input be a terminal, and return what presses keys."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as file, os.fdopen(ours, "wb", buffering=0) as keys:
        monkeypatch.setattr(sys, "stdin", file)
        yield keys.write


async def test_the_key_q_ends_it_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router()
    router.hangs = True
    pressed: list[int] = []

    with keyboard(monkeypatch) as press:

        def ends(shown: str) -> bool:
            if not pressed and "no answer for" in shown:
                pressed.append(press(b"xq"))
            return False

        screen = Screen(ends)
        async with asyncio.timeout(60):
            await top._show(router, screen.console, 0.001)

    assert pressed
    assert not screen.ended.is_set()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_leaves_the_screen_as_it_was(
    sent: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(lambda _: False)

    async def read(_client: DebugClient) -> Pages:
        assert signal.getsignal(sent) is not signal.SIG_DFL
        signal.raise_signal(sent)
        await asyncio.sleep(3600)
        raise AssertionError

    monkeypatch.setattr(top, "_read", read)
    with keyboard(monkeypatch), pytest.raises(SystemExit) as ended:
        async with asyncio.timeout(60):
            await top._show(Router(), screen.console, 0.001)

    assert ended.value.code == 128 + sent
    assert screen.getvalue().endswith("\x1b[?25h\x1b[?1049l")
    assert signal.getsignal(sent) is signal.SIG_DFL


@pytest.mark.parametrize(("term", "is_screen"), [("dumb", False), ("xterm", True)])
def test_a_dumb_terminal_gets_one_picture(
    term: str, is_screen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    assert top._is_screen(Console(force_terminal=True)) == is_screen
