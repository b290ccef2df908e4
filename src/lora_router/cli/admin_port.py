"""What the commands have in common that ask a running router: options, and how errors end them."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from lora_router.cli.options import fail, load

if TYPE_CHECKING:  # The client takes a quarter of a second to import, and --help needs none.
    from lora_router.debug.client import DebugClient

_Result = TypeVar("_Result")

Admin = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Admin port of a router.",
        show_default="http://127.0.0.1 and the setting admin_port",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File with the token of the admin port.",
        show_default="the setting admin_token_file, unless --admin is given",
    ),
]


def ask(
    work: "Callable[[DebugClient], Awaitable[_Result]]",
    admin: str | None,
    token_file: Path | None,
    config: Path | None,
) -> _Result:
    """Return what ``work`` returns, or print why the router cannot be asked, and exit with 1.

    Args:
        work: Asks.
        admin: The value of ``--admin``.
        token_file: The value of ``--token-file``.
        config: The value of ``--config``. Read only if ``admin`` is absent.
    """
    from lora_router.debug.client import DebugClient, DebugPageError, read_token

    if admin is None:
        settings = load(config).settings
        admin = f"http://127.0.0.1:{settings.admin_port}"
        token_file = token_file or settings.admin_token_file
    elif not admin.startswith(("http://", "https://")):
        fail(f"--admin {admin}: must be http://HOST:PORT", status=2)
    url = admin

    async def asked() -> _Result:
        async with DebugClient(url, read_token(token_file)) as client:
            return await work(client)

    try:
        return asyncio.run(asked())
    except DebugPageError as error:
        fail(str(error), status=1)
