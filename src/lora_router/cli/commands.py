"""The application with all commands.

Each command's function imports what it needs itself, because ``--help`` and completion need none
of it.
"""

from typing import Annotated

import typer

from lora_router import __version__
from lora_router.cli.adapters import app as adapters
from lora_router.cli.demo import demo
from lora_router.cli.doctor import doctor
from lora_router.cli.explain import explain
from lora_router.cli.inspect import probe, scrape
from lora_router.cli.pods import pods
from lora_router.cli.serve import serve
from lora_router.cli.settings import envoy_config, show_config
from lora_router.cli.simulate import simulate
from lora_router.cli.top import top

app = typer.Typer(
    name="lora-router",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 success; 1 the command failed; 2 invalid settings or arguments; "
    "130 interrupted.",
)
app.command()(serve)
app.command(name="config")(show_config)
app.command(name="envoy-config")(envoy_config)
app.command()(scrape)
app.command()(probe)
app.command()(explain)
app.command()(pods)
app.add_typer(adapters)
app.command()(top)
app.command()(doctor)
app.command()(demo)
app.command()(simulate)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Route every OpenAI-style request to the vLLM pod that has its LoRA adapter."""
    if show:
        typer.echo(f"lora-router {__version__}")
        raise typer.Exit
