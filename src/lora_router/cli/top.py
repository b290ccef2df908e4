"""``lora-router top``."""

import asyncio
import os
import select
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
    from rich.console import Console

    from lora_router.debug.client import DebugClient
    from lora_router.debug.top_view import Pages

_KEY_SECONDS = 0.1
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

    Without a terminal, print one picture and exit.
    """
    from lora_router.terminal import output_console

    if not _SHORTEST_SECONDS <= interval <= _LONGEST_SECONDS:
        fail(
            f"--interval {interval:g}: must be at least {_SHORTEST_SECONDS:g}, and at most "
            f"{_LONGEST_SECONDS:g}",
            status=2,
        )
    console = output_console()
    if as_json or once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        pages = ask(_read, admin, token_file, config)
        if as_json:
            _print_json(pages)
        else:
            _print(console, pages)
        return
    ask(lambda client: _show(client, console, interval), admin, token_file, config)


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
    from rich.live import Live
    from rich.text import Text

    from lora_router.debug.client import DebugPageError
    from lora_router.debug.top_view import top_view
    from lora_router.terminal import visible

    with _keys() as file, Live(console=console, screen=True, auto_refresh=False) as live:
        shown = False
        while True:
            try:
                pages = await _read(client)
                size = console.size
                live.update(top_view(pages, size.width, size.height), refresh=True)
                shown = True
            except DebugPageError as error:
                if not shown:
                    raise
                # The router may come back.
                live.update(Text(visible(str(error), lines=True)), refresh=True)
            for _ in range(max(1, round(interval / _KEY_SECONDS))):
                if _pressed(file) in {b"q", b"Q"}:
                    return
                await asyncio.sleep(_KEY_SECONDS)


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


def _pressed(file: int) -> bytes:
    """Return a key that was pressed, or nothing."""
    ready, _, _ = select.select([file], [], [], 0)
    return os.read(file, 1) if ready else b""
