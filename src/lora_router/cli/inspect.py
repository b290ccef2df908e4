"""``lora-router scrape`` and ``lora-router probe``."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from lora_router.cli.options import ConfigFile, fail, is_url, load, number

_LONGEST_PROBE_SECONDS = 86400.0
_SCHEMES = ("http://", "https://")
_URL = "http://HOST:PORT/PATH, or https, with a port from 1 to 65535"


def scrape(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="File, - (standard input) or URL.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object for each source, one a line.")
    ] = False,
) -> None:
    """Print what the router reads from metrics pages."""
    from lora_router.scrape.report import SourceError, read_source, render_reports
    from lora_router.terminal import output_console, print_report

    stdin, errors = b"", list[str]()
    if "-" in sources:
        try:
            stdin = sys.stdin.buffer.read()
        except OSError as error:  # It was closed, or is a directory.
            errors.append(f"-: cannot be read: {error.strerror}")
            sources = [source for source in sources if source != "-"]

    async def read_all() -> list[dict[str, object]]:
        reports = []
        for source in sources:
            if source.startswith(_SCHEMES) and not is_url(source):
                errors.append(f"{source}: must be {_URL}")
                continue
            try:
                reports.append(await read_source(source, stdin))
            except SourceError as error:
                errors.append(str(error))
        return reports

    reports = asyncio.run(read_all())
    if as_json:
        for report in reports:
            typer.echo(json.dumps(report))
    elif reports:
        console = output_console()
        print_report(console, render_reports(reports, console.width))
    for line in errors:
        typer.echo(f"lora-router: {line}", err=True)
    if errors:
        raise typer.Exit(1)


def probe(
    config: ConfigFile = None,
    grpc: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of the gRPC health service.",
            show_default="127.0.0.1 and the setting grpc_port, unless --http is given; for the "
            "service liveness, and with grpc_tls_cert_file set: the admin port instead",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="PEM file of trusted authorities; gRPC health is then asked over TLS.",
            show_default=False,
        ),
    ] = None,
    service: Annotated[
        str, typer.Option(metavar="NAME", help="gRPC health service: readiness or liveness.")
    ] = "readiness",
    http: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Page that must answer 200.", show_default=False),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Overall deadline. Retries until then.", parser=number()
        ),
    ] = 3.0,
) -> None:
    """Ask a running router whether it serves: exit status 0 if it does, 1 if not."""
    from lora_router.probe import ProbeError, ProbeOptions
    from lora_router.probe import probe as ask

    if grpc is None and http is None:
        settings = load(config).settings
        if service == "liveness":
            # Unlike the gRPC port, this page answers while the router is merely busy.
            http = f"http://127.0.0.1:{settings.admin_port}/healthz"
        elif settings.grpc_tls_cert_file is None and not settings.grpc_tls_self_signed:
            grpc = f"127.0.0.1:{settings.grpc_port}"
        else:
            http = f"http://127.0.0.1:{settings.admin_port}/readyz"
    if not 0 < timeout <= _LONGEST_PROBE_SECONDS:
        fail(
            f"--timeout {timeout:g}: must be seconds, above 0 and up to {_LONGEST_PROBE_SECONDS:g}",
            status=2,
        )
    if grpc is not None and "/" not in grpc and not is_url(f"http://{grpc}"):
        fail(f"--grpc {grpc}: must be HOST:PORT, with a port from 1 to 65535", status=2)
    if http is not None and not is_url(http):
        fail(
            f"--http {http}: must be {_URL}",
            status=2,
        )
    try:
        answers = asyncio.run(ask(ProbeOptions(grpc, service, http, timeout, ca)))
    except ProbeError as error:
        fail(str(error), status=1)
    for answer in answers:
        typer.echo(answer)
