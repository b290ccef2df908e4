"""``lora-router pods`` and ``lora-router adapters``."""

from typing import TYPE_CHECKING, Annotated

import typer

from lora_router.cli.admin_port import Admin, TokenFile, ask
from lora_router.cli.options import AsJson, ConfigFile
from lora_router.terminal import output_console, print_report

if TYPE_CHECKING:
    from lora_router.debug.client import DebugClient


def pods(
    config: ConfigFile = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Print the pods of a running router: health, slots and adapters, load, age of the scrape."""
    from lora_router.debug.pages import PodsPage
    from lora_router.debug.tables import notes, pods_table

    if as_json:
        typer.echo(ask(lambda client: client.body(PodsPage), admin, token_file, config))
        return
    page = ask(lambda client: client.page(PodsPage), admin, token_file, config)
    console = output_console()
    print_report(console, pods_table(page, console.width), *notes(page))


def adapters(
    config: ConfigFile = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    limit: Annotated[
        int, typer.Option(metavar="NUMBER", help="The most adapters to print.", min=1, max=2048)
    ] = 100,
    as_json: AsJson = False,
) -> None:
    """Print the adapters of a running router, the busiest first: where each is, hits, times."""
    from lora_router.debug.pages import AdaptersPage
    from lora_router.debug.tables import adapters_table, notes

    query = {"limit": str(limit)}

    if as_json:
        typer.echo(ask(lambda client: client.body(AdaptersPage, query), admin, token_file, config))
        return

    async def read(client: "DebugClient") -> AdaptersPage:
        return await client.page(AdaptersPage, query)

    page = ask(read, admin, token_file, config)
    console = output_console()
    print_report(console, adapters_table(page, console.width), *notes(page, page.more))
