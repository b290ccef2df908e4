"""What the commands have in common that ask a running router: options, and how errors end them."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from lora_router.cli.options import fail, is_url, load

if TYPE_CHECKING:  # The client takes a quarter of a second to import, and --help needs none.
    from lora_router.debug.client import DebugClient

_Result = TypeVar("_Result")
_UNAUTHORIZED = 401

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

    An option that is invalid ends the command with status 2.

    Args:
        work: Asks.
        admin: The value of ``--admin``.
        token_file: The value of ``--token-file``.
        config: The value of ``--config``. Read only if ``admin`` is absent.
    """
    from lora_router.debug.client import DebugClient, DebugPageError

    named_by = "--token-file"
    if admin is None:
        settings = load(config).settings
        admin = f"http://127.0.0.1:{settings.admin_port}"
        if token_file is None and settings.admin_token_file is not None:
            token_file, named_by = settings.admin_token_file, "admin_token_file"
    elif not is_url(admin):
        fail(f"--admin {admin}: must be http://HOST:PORT, with a port from 1 to 65535", status=2)
    url, token = admin, "" if token_file is None else _token(token_file, named_by)

    async def asked() -> _Result:
        async with DebugClient(url, token) as client:
            return await work(client)

    try:
        return asyncio.run(asked())
    except DebugPageError as error:
        if error.status == _UNAUTHORIZED:
            fail(f"{url}: {_unauthorized(token_file, named_by)}", status=1)
        fail(str(error), status=1)


def _token(file: Path, named_by: str) -> str:
    from lora_router.key_file import KeyFileError, read_key

    try:
        return read_key(file, named_by, KeyFileError).decode()
    except KeyFileError as error:
        fail(str(error), status=2)


def _unauthorized(file: Path | None, named_by: str) -> str:
    if file is not None:
        return f"{named_by}: {file}: its token is not the one of this router"
    return (
        "this router requires a token: name the file with --token-file, or with --config the "
        "settings whose admin_token_file names it"
    )
