"""``lora-router pods``."""

import typer

from lora_router.cli.admin_port import Admin, TokenFile, ask
from lora_router.cli.options import AsJson, ConfigFile


def pods(
    config: ConfigFile = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Print the pods of a running router: health, slots and adapters, load, age of the scrape."""
    from lora_router.debug.pages import PodsPage
    from lora_router.debug.tables import notes, pods_table
    from lora_router.terminal import output_console, print_report

    if as_json:
        typer.echo(ask(lambda client: client.body(PodsPage), admin, token_file, config))
        return
    page = ask(lambda client: client.page(PodsPage), admin, token_file, config)
    console = output_console()
    print_report(console, pods_table(page, console.width), *notes(page))
