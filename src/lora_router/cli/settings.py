"""``lora-router config`` and ``lora-router envoy-config``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lora_router.cli.options import (
    Algorithm,
    AsJson,
    Assignments,
    ConfigFile,
    Endpoints,
    fail,
    load,
)


def show_config(
    config: ConfigFile = None,
    endpoints: Endpoints = None,
    algorithm: Algorithm = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Print every setting in force and its source."""
    from lora_router.config.report import config_json, render_config
    from lora_router.terminal import output_console, print_report

    loaded = load(config, assignments, {"endpoints": endpoints, "algorithm": algorithm})
    if as_json:
        typer.echo(json.dumps(config_json(loaded), indent=2))
        return
    console = output_console()
    print_report(console, render_config(loaded, console.width))


def envoy_config(
    config: ConfigFile = None,
    endpoints: Endpoints = None,
    assignments: Assignments = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="File to write.", show_default="standard output"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a complete Envoy bootstrap for these settings, as YAML or JSON."""
    from lora_router.envoy.bootstrap import bootstrap_json, bootstrap_yaml
    from lora_router.envoy.tls import EnvoyTlsError

    loaded = load(config, assignments, {"endpoints": endpoints})
    try:
        text = (bootstrap_json if as_json else bootstrap_yaml)(loaded.settings)
    except EnvoyTlsError as error:
        fail(str(error), status=2)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text)
    except OSError as error:
        fail(f"{output}: cannot be written: {error.strerror}", status=1)
