"""``lora-router explain``."""

from typing import TYPE_CHECKING, Annotated

import typer

from lora_router.cli.admin_port import Admin, TokenFile, ask
from lora_router.cli.options import (
    AsJson,
    ConfigFile,
    check_utf8,
    complete_algorithm,
    fail,
    whole,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lora_router.debug.client import DebugClient
    from lora_router.debug.pages import DecisionPage, ExplainPage


def explain(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Explain what would become of a request for this model now.",
            show_default=False,
        ),
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Explain what became of the request with this x-request-id.",
            show_default=False,
        ),
    ] = None,
    last_slow: Annotated[
        bool,
        typer.Option("--last-slow", help="Explain what became of the last request that was slow."),
    ] = False,
    strategy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --model: the algorithm.",
            show_default="the router's",
            autocompletion=complete_algorithm,
        ),
    ] = None,
    pod_filter: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="SELECTOR",
            help="With --model: a label selector, as in the header external-filter.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="BYTES",
            help="With --model: the length of the body.",
            show_default="0",
            parser=whole(0),
        ),
    ] = None,
    config: ConfigFile = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Explain a decision of a running router: which pod, why, and what excluded the others."""
    from lora_router.debug.client import last_slow_request
    from lora_router.debug.pages import DecisionPage, ExplainPage

    if sum((model is not None, request is not None, last_slow)) != 1:
        fail("name one of --model, --request and --last-slow", status=2)
    if "" in (model, request):
        fail(f"{'--model' if request is None else '--request'}: must not be empty", status=2)
    options = {"model": model, "strategy": strategy, "filter": pod_filter, "size": size}
    query = {name: str(value) for name, value in options.items() if value is not None}
    if model is None and query:
        fail("--strategy, --filter and --size need --model", status=2)
    check_utf8({**query, "request": request or ""})
    kind: type[ExplainPage] | type[DecisionPage] = DecisionPage if model is None else ExplainPage

    async def read(client: "DebugClient") -> ExplainPage | DecisionPage | bytes:
        args = query if request is None else {"id": request}
        if last_slow:
            args = await last_slow_request(client)
        if as_json:
            return await client.body(kind, args)
        return await client.page(kind, args)

    found = ask(read, admin, token_file, config)
    if isinstance(found, bytes):
        typer.echo(found)
    else:
        _print(found)


def _print(page: "ExplainPage | DecisionPage") -> None:
    from rich.text import Text

    from lora_router.debug.pages import ExplainPage
    from lora_router.debug.tables import candidates_table
    from lora_router.terminal import output_console, print_report
    from lora_router.visible_text import visible

    console = output_console()
    parts: list[RenderableType] = [Text(visible(page.text, lines=True))]
    if isinstance(page, ExplainPage):
        parts += [
            Text(visible(f"\n{each.router} would answer otherwise:\n{each.text}", lines=True))
            for each in page.others
        ]
    if page.candidates:
        parts += ["", candidates_table(page.candidates, console.width)]
    print_report(console, *parts)
