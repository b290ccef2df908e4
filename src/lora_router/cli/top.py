"""``lora-router top``."""

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from lora_router.cli.admin_port import Admin, TokenFile, ask
from lora_router.cli.options import AsJson, ConfigFile, fail, number

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from lora_router.debug.client import DebugClient
    from lora_router.debug.top_view import Pages

_SILENT_SECONDS = 2.0
"""After that long without an answer, the picture says so."""
_TICK_SECONDS = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""They end the command as the key does, so that the terminal is as it was before."""
_SHORTEST_SECONDS = 0.2
_LONGEST_SECONDS = 3600.0


def top(
    config: ConfigFile = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    interval: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="Time between two pictures, at least 0.2.",
            parser=number(),
        ),
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one picture and exit.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a running router live: pods, adapters, held and abnormal requests. The key q ends it.

    Without a terminal, or with TERM=dumb, print one picture and exit.
    """
    from lora_router.terminal import output_console

    if not _SHORTEST_SECONDS <= interval <= _LONGEST_SECONDS:
        fail(
            f"--interval {interval:g}: must be at least {_SHORTEST_SECONDS:g}, and at most "
            f"{_LONGEST_SECONDS:g}",
            status=2,
        )
    console = output_console()
    if as_json or once or not _is_screen(console):
        pages = ask(_read, admin, token_file, config)
        if as_json:
            _print_json(pages)
        else:
            _print(console, pages)
        return
    ask(lambda client: _show(client, console, interval), admin, token_file, config)


def _is_screen(console: "Console") -> bool:
    """Return whether pictures can take each other's place."""
    return sys.stdin.isatty() and sys.stdout.isatty() and not console.is_dumb_terminal


async def _read(client: "DebugClient") -> "Pages":
    from lora_router.debug.client import gathered
    from lora_router.debug.top_view import Pages

    return Pages(*await gathered(client))


def _print(console: "Console", pages: "Pages") -> None:
    from lora_router.debug.top_view import top_view
    from lora_router.terminal import print_report

    width = console.width if sys.stdout.isatty() else _WIDTH
    print_report(console, top_view(pages, width, None))


_WIDTH = 200
"""Columns of a picture that is not for a terminal."""


def _print_json(pages: "Pages") -> None:
    import msgspec

    typer.echo(msgspec.json.encode(pages._asdict()))


async def _show(client: "DebugClient", console: "Console", interval: float) -> None:
    """Show pictures until a key or a signal ends them. A signal raises ``SystemExit``."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    signals: list[int] = []

    def stop(number: int) -> None:
        signals.append(number)
        ended.set()

    def pressed() -> None:
        try:
            key = os.read(file, 1)
        except OSError:
            key = b""
        if key in {b"q", b"Q", b""}:  # Empty: the terminal is gone.
            ended.set()

    with _keys() as file:
        loop.add_reader(file, pressed)
        for each in _SIGNALS:
            loop.add_signal_handler(each, stop, each)
        try:
            await show(client, console, interval, ended)
        finally:
            loop.remove_reader(file)
            for each in _SIGNALS:
                loop.remove_signal_handler(each)
    if signals:
        raise SystemExit(128 + signals[0])


async def show(
    client: "DebugClient", console: "Console", interval: float, ended: asyncio.Event
) -> None:
    """Show pictures until ``ended`` is set, also while the router does not answer.

    Raises:
        DebugPageError: The first picture cannot be read.
    """
    from rich.live import Live

    from lora_router.supervision import unless

    with Live(console=console, screen=True, auto_refresh=False) as live:
        await unless(ended, _pictures(client, console, interval, live))


async def _pictures(
    client: "DebugClient", console: "Console", interval: float, live: "Live"
) -> None:
    """Show one picture after the other, for ever."""
    from rich.text import Text

    from lora_router.debug.client import DebugPageError
    from lora_router.debug.top_view import top_view
    from lora_router.visible_text import visible

    last: Pages | None = None
    while True:
        try:
            with _told_while_silent(console, live, last):
                last = await _read(client)
            size = console.size
            live.update(top_view(last, size.width, size.height), refresh=True)
        except DebugPageError as error:
            if last is None:
                raise
            # The router may come back.
            live.update(Text(visible(str(error), lines=True)), refresh=True)
        await asyncio.sleep(interval)


@contextmanager
def _told_while_silent(console: "Console", live: "Live", last: "Pages | None") -> Iterator[None]:
    """Say above the last picture for how long there has been no answer."""
    from rich.console import Group
    from rich.text import Text

    from lora_router.debug.top_view import top_view

    loop = asyncio.get_running_loop()
    asked = loop.time()
    ticking: asyncio.TimerHandle | None = None

    def tell() -> None:
        nonlocal ticking
        size = console.size
        parts: list[RenderableType] = [Text(f"no answer for {loop.time() - asked:.0f} s")]
        if last is not None:
            parts.append(top_view(last, size.width, size.height - 1))
        live.update(Group(*parts), refresh=True)
        ticking = loop.call_later(_TICK_SECONDS, tell)

    ticking = loop.call_later(_SILENT_SECONDS, tell)
    try:
        yield
    finally:
        ticking.cancel()


@contextmanager
def _keys() -> Iterator[int]:
    """Let keys arrive at once and unseen. Ctrl-C still interrupts."""
    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    try:
        tty.setcbreak(file)
        yield file
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)
