"""The command line. Each command reads its settings, calls one function, and reports errors.

Exit status: 0 done; 1 it was tried and something failed; 2 the settings or arguments are wrong.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from lora_router import __version__
from lora_router.config.sources import LoadedSettings, SettingsError, load_settings

app = typer.Typer(
    name="lora-router",
    help="Sends every OpenAI-style request to the vLLM pod that has its LoRA adapter.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="YAML file of settings.", show_default=False),
]
Endpoints = Annotated[
    Path | None, typer.Option(help="YAML file that lists the pods.", show_default=False)
]
Algorithm = Annotated[str | None, typer.Option(help="What picks the pod.", show_default=False)]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any setting, by its name; may be repeated. Stronger than file and environment.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Run the command that the arguments name."""
    app()


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Send every OpenAI-style request to the vLLM pod that has its LoRA adapter."""
    if show:
        typer.echo(f"lora-router {__version__}")
        raise typer.Exit


@app.command()
def serve(
    config: ConfigFile = None,
    endpoints: Endpoints = None,
    algorithm: Algorithm = None,
    assignments: Assignments = None,
) -> None:
    """Serve Envoy's ext_proc calls until SIGTERM, then drain."""
    import uvloop

    from lora_router.app import serve as serve_app
    from lora_router.routing.registry import BrokenAlgorithmError
    from lora_router.telemetry.logs import configure_logging

    loaded = _load(config, assignments, endpoints=endpoints, algorithm=algorithm)
    configure_logging(loaded.settings.log_level, loaded.settings.log_format)
    _warn(loaded)
    try:
        uvloop.run(serve_app(loaded.settings))
    except (OSError, ValueError, BrokenAlgorithmError) as error:
        _fail(str(error), status=1)


@app.command(name="config")
def show_config(
    config: ConfigFile = None,
    endpoints: Endpoints = None,
    algorithm: Algorithm = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Print every setting in force and where it came from."""
    from lora_router.config.report import config_json, render_config

    loaded = _load(config, assignments, endpoints=endpoints, algorithm=algorithm)
    _warn(loaded)
    if as_json:
        typer.echo(json.dumps(config_json(loaded), indent=2))
    else:
        Console().print(render_config(loaded))


@app.command(name="envoy-config")
def envoy_config(
    config: ConfigFile = None,
    endpoints: Endpoints = None,
    assignments: Assignments = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write.", show_default="standard output"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a complete Envoy bootstrap for these settings."""
    from lora_router.envoy.bootstrap import bootstrap_json, bootstrap_yaml
    from lora_router.envoy.tls import EnvoyTlsError

    loaded = _load(config, assignments, endpoints=endpoints)
    _warn(loaded)
    try:
        text = (bootstrap_json if as_json else bootstrap_yaml)(loaded.settings)
    except EnvoyTlsError as error:
        _fail(str(error), status=2)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text)
    except OSError as error:
        _fail(f"{output}: cannot be written: {error.strerror}", status=1)


@app.command()
def scrape(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="File, - (standard input) or URL.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, one for each source.")
    ] = False,
) -> None:
    """Print what the router understands of metrics pages."""
    from lora_router.scrape.report import SourceError, read_source, render_table

    async def read_all() -> tuple[list[dict[str, object]], list[str]]:
        reports, errors = [], []
        for source in sources:
            try:
                reports.append(await read_source(source))
            except SourceError as error:
                errors.append(str(error))
        return reports, errors

    reports, errors = asyncio.run(read_all())
    if as_json:
        for report in reports:
            typer.echo(json.dumps(report))
    elif reports:
        Console().print(render_table(reports))
    for error in errors:
        typer.echo(f"lora-router: {error}", err=True)
    if errors:
        raise typer.Exit(1)


@app.command()
def probe(
    config: ConfigFile = None,
    grpc: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where gRPC health is asked.",
            show_default="127.0.0.1 and grpc_port of the settings, unless --http is given; "
            "where these say TLS, /readyz or /healthz is asked",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of whom to trust; gRPC is then asked over TLS.", show_default=False
        ),
    ] = None,
    service: Annotated[
        str, typer.Option(help="gRPC health service: readiness, liveness, …")
    ] = "readiness",
    http: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A page that must answer 200.", show_default=False),
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds in which it must say yes; it is asked until then.")
    ] = 3.0,
) -> None:
    """Ask a running router whether it serves: exit status 0 if it does, 1 if not."""
    from lora_router.probe import ProbeError, ProbeOptions
    from lora_router.probe import probe as ask

    if grpc is None and http is None:
        settings = _load(config, None).settings
        if settings.grpc_tls_cert_file is None:
            grpc = f"127.0.0.1:{settings.grpc_port}"
        else:
            page = "healthz" if service == "liveness" else "readyz"
            http = f"http://127.0.0.1:{settings.admin_port}/{page}"
    try:
        answers = asyncio.run(ask(ProbeOptions(grpc, service, http, timeout, ca)))
    except ProbeError as error:
        _fail(str(error), status=1)
    for answer in answers:
        typer.echo(answer)


@app.command()
def demo(
    duration: Annotated[
        float, typer.Option(help="Seconds of load for each algorithm.", min=1.0)
    ] = 15.0,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(help="Algorithm to try; may be repeated.", show_default="all three"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the load; the same load for all.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Real Envoy, simulated vLLM pods, and the same load for each algorithm."""
    from lora_router.demo.run import DEFAULT_ALGORITHMS, DemoOptions, demo_command

    options = DemoOptions(
        duration=duration,
        algorithms=tuple(dict.fromkeys(algorithm or DEFAULT_ALGORITHMS)),
        seed=seed,
        as_json=as_json,
    )
    raise typer.Exit(demo_command(options))


@app.command()
def simulate(
    scenarios: Annotated[
        list[Path], typer.Argument(metavar="SCENARIO...", help="YAML files; see bench/scenarios.")
    ],
    algorithm: Annotated[
        list[str] | None,
        typer.Option(help="Algorithm to try; may be repeated.", show_default="all installed"),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(help="Seed of a trace; may be repeated: medians.", show_default="1"),
    ] = None,
    duration: Annotated[float, typer.Option(help="Simulated seconds.", min=1.0)] = 300.0,
    rate: Annotated[
        float | None,
        typer.Option(help="Requests in a second.", show_default="the scenario's", min=0.001),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="CSV of requests to replay: timestamp,model,prompt_tokens,output_tokens.",
            show_default=False,
        ),
    ] = None,
    routers: Annotated[int, typer.Option(help="Routers that share the fleet.", min=1)] = 1,
    peers: Annotated[
        str,
        typer.Option(
            help="What routers know of each other: nothing, scrapes (of pods), or the seconds "
            "between two exchanges of ledgers."
        ),
    ] = "scrapes",
    threshold: Annotated[
        float, typer.Option(help="AIBRIX_LORA_AFFINITY_THRESHOLD.", min=0.0, max=1.0)
    ] = 0.999,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder to write plots to, as SVG. Needs the extra 'plot'.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try algorithms on a simulated fleet: the same objects, the same traces, no waiting."""
    from lora_router.routing.registry import UnknownAlgorithmError, installed
    from lora_router.simulator.command import SimulateOptions, simulate_command
    from lora_router.simulator.knowledge import read_knowledge
    from lora_router.simulator.plots import PlotError

    chosen = tuple(dict.fromkeys(algorithm or sorted(installed())))
    try:
        simulate_command(
            SimulateOptions(
                scenarios=tuple(scenarios),
                algorithms=chosen,
                seeds=tuple(dict.fromkeys(seed or (1,))),
                seconds=duration,
                rate=rate,
                trace=trace,
                routers=routers,
                knowledge=read_knowledge(peers),
                lora_affinity_threshold=threshold,
                as_json=as_json,
                plot=plot,
            )
        )
    except PlotError as error:
        _fail(str(error), status=1)
    except (ValueError, UnknownAlgorithmError) as error:
        _fail(str(error), status=2)


def _load(config: Path | None, assignments: list[str] | None, **flags: object) -> LoadedSettings:
    given = {name: value for name, value in flags.items() if value is not None}
    for assignment in assignments or []:
        name, equals, value = assignment.partition("=")
        if not equals:
            _fail(f"--set {assignment}: must be NAME=VALUE", status=2)
        given[name.strip()] = value
    try:
        return load_settings(file=config, environ=os.environ, flags=given)
    except SettingsError as error:
        _fail(str(error), status=2)


def _warn(loaded: LoadedSettings) -> None:
    for warning in loaded.warnings:
        typer.echo(f"lora-router: warning: {warning}", err=True)


def _fail(message: str, *, status: int) -> NoReturn:
    for line in message.splitlines():
        typer.echo(f"lora-router: {line}", err=True)
    sys.exit(status)
