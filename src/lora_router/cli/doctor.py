"""``lora-router doctor``."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from lora_router.cli.options import AsJson, ConfigFile, fail, load
from lora_router.terminal import output_console, print_report


def doctor(
    config: ConfigFile = None,
    admin: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Admin port of a router.",
            show_default="http://127.0.0.1 and the setting admin_port",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the token of the admin port.",
            show_default="the setting admin_token_file, unless --admin is given",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with status 1 for warnings, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at a running router and say what is wrong or costs, and what to set.

    Exit status: 0 no error; 1 an error (--strict: or a warning), or the router cannot be asked.
    """
    from lora_router.doctor.examination import examine, exit_status
    from lora_router.doctor.reading import DoctorError, read_facts
    from lora_router.doctor.report import document, render

    if admin is None:
        settings = load(config).settings
        admin = f"http://127.0.0.1:{settings.admin_port}"
        token_file = token_file or settings.admin_token_file
    elif not admin.startswith(("http://", "https://")):
        fail(f"--admin {admin}: must be http://HOST:PORT", status=2)
    try:
        facts = asyncio.run(read_facts(admin, _token(token_file)))
    except DoctorError as error:
        fail(str(error), status=1)
    findings = examine(facts)
    if as_json:
        typer.echo(json.dumps(document(findings, facts)))
    else:
        print_report(output_console(), render(findings, facts))
    sys.exit(exit_status(findings, strict=strict))


def _token(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        fail(f"{file}: cannot be read: {why}", status=2)
