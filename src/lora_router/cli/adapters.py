"""``lora-router adapters``, and the orders ``load``, ``unload`` and ``sync``."""

from typing import TYPE_CHECKING, Annotated

import typer

from lora_router.cli.admin_port import Admin, TokenFile, ask
from lora_router.cli.options import AsJson, ConfigFile, check_utf8, fail, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_router.debug.client import DebugClient

app = typer.Typer(
    name="adapters",
    help="Print the adapters of a running router, the busiest first: where each is, how far it is "
    "as declared, hits, times. load, unload and sync give orders to the router that loads.",
    invoke_without_command=True,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The adapter.")]


@app.callback()
def adapters(
    context: typer.Context,
    config: ConfigFile = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    limit: Annotated[
        int,
        typer.Option(
            metavar="NUMBER", help="The most adapters to print, up to 2,048.", parser=whole(1, 2048)
        ),
    ] = 100,
    as_json: AsJson = False,
) -> None:
    """Print the adapters of a running router."""
    if context.invoked_subcommand is not None:
        return
    from lora_router.debug.pages import AdaptersPage
    from lora_router.debug.tables import adapters_table, notes
    from lora_router.terminal import output_console, print_report

    query = {"limit": str(limit)}

    if as_json:
        typer.echo(ask(lambda client: client.body(AdaptersPage, query), admin, token_file, config))
        return

    async def read(client: "DebugClient") -> AdaptersPage:
        return await client.page(AdaptersPage, query)

    page = ask(read, admin, token_file, config)
    console = output_console()
    print_report(console, adapters_table(page, console.width), *notes(page, page.more))


@app.command()
def load(
    name: Name,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="PATH_OR_URL",
            help="From where pods load it, which adapter_sources must allow. Declares the adapter "
            "until it is unloaded, or the router that loads is replaced.",
            show_default="it is declared already",
        ),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Its base model.", show_default="the only one of the fleet"
        ),
    ] = None,
    copies: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            help="On how many pods.",
            parser=whole(1),
            show_default="as requests need",
        ),
    ] = None,
    config: ConfigFile = None,
    admin: Admin = None,
    token_file: TokenFile = None,
) -> None:
    """Load an adapter now, also if it failed a moment ago."""
    for option, value in (("--source", source), ("--base-model", base_model)):
        if value == "":
            fail(f"{option}: must not be empty", status=2)
    asked = {"action": "load", "name": name}
    if source is not None:
        asked["source"] = source
    if base_model is not None:
        asked["base_model"] = base_model
    if copies is not None:
        asked["copies"] = str(copies)
    _order(asked, config, admin, token_file)


@app.command()
def unload(
    name: Name, config: ConfigFile = None, admin: Admin = None, token_file: TokenFile = None
) -> None:
    """Unload from all pods an adapter that no file and no resource declares."""
    _order({"action": "unload", "name": name}, config, admin, token_file)


@app.command()
def sync(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what is to be done, and change nothing.")
    ] = False,
    config: ConfigFile = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Print the loads and unloads that are to be done, and try again now those that failed."""
    from lora_router.debug.pages import StepsPage
    from lora_router.debug.tables import notes, steps_table
    from lora_router.terminal import output_console, print_report

    if not dry_run:
        _order({"action": "sync"}, config, admin, token_file, beside_json=as_json)
    if as_json:
        typer.echo(ask(lambda client: client.body(StepsPage), admin, token_file, config))
        return
    page = ask(lambda client: client.page(StepsPage), admin, token_file, config)
    console = output_console()
    print_report(console, steps_table(page, console.width), *notes(page, page.more))


def _order(
    asked: "Mapping[str, str]",
    config: ConfigFile,
    admin: Admin,
    token_file: TokenFile,
    *,
    beside_json: bool = False,
) -> None:
    check_utf8(asked)
    page = ask(lambda client: client.order(asked), admin, token_file, config)
    typer.echo(f"router {page.router}: {page.message}", err=beside_json)
