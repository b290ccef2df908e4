"""``lora-router doctor``."""

import json
import sys
from typing import Annotated

import typer

from lora_router.cli.admin_port import Admin, TokenFile, ask
from lora_router.cli.options import AsJson, ConfigFile


def doctor(
    config: ConfigFile = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with status 1 for warnings, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at a running router and say what is wrong or costs, and what to set.

    Exit status: 0 no error; 1 an error (--strict: or a warning), or the router cannot be asked.
    """
    from lora_router.doctor.examination import examine, exit_status
    from lora_router.doctor.reading import read_facts
    from lora_router.doctor.report import document, render
    from lora_router.terminal import output_console, print_report

    facts = ask(read_facts, admin, token_file, config)
    findings = examine(facts)
    if as_json:
        typer.echo(json.dumps(document(findings, facts)))
    else:
        print_report(output_console(), render(findings, facts))
    sys.exit(exit_status(findings, strict=strict))
