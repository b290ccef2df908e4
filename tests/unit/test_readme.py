"""The README says what is true."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from lora_router.cli.commands import app
from lora_router.config.settings import Settings
from lora_router.envoy.bootstrap import bootstrap_json
from lora_router.extproc.body import BodyError, BodyErrorKind
from lora_router.extproc.errors import (
    body_answer,
    busy_list_answer,
    cut_body_answer,
    encoding_answer,
    headers_answer,
    id_answer,
    overloaded_answer,
    path_answer,
    query_answer,
    refusal_answer,
    too_large_answer,
    unread_list_answer,
)
from lora_router.extproc.path_table import RULES
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.registry import installed
from lora_router.telemetry.catalog import METRICS
from tests.scripts import load_script

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def test_the_table_of_settings_is_up_to_date() -> None:
    module = load_script(ROOT / "docs/write_readme.py")

    assert module.with_settings(README) == README, "run `make readme`"


def test_every_algorithm_is_described() -> None:
    for name in installed():
        assert f"| `{name}` |" in README


def test_every_metric_that_is_named_exists() -> None:
    named = set(re.findall(r"`(lora_router_\w+)", README))

    assert named - METRICS.keys() == set()


def table(heading: str) -> list[list[str]]:
    """The rows of all tables of a section, each a list of cells."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in row] for row in rows if not row[0].startswith(("---", " ---"))
    ]


@pytest.mark.slow
def test_every_error_that_a_client_can_meet_is_described() -> None:
    described = {
        (row[0], code.strip("`"))
        for row in table("Errors")
        if row[0].isdigit()
        for code in row[1].split(", ")
    }
    kinds = {rule.id_kind for rule in RULES if rule.id_kind}
    answers = [
        *(refusal_answer(Refused(refusal, "some-model")) for refusal in Refusal),
        *(body_answer(BodyError(kind, "wrong")) for kind in BodyErrorKind),
        too_large_answer(1),
        cut_body_answer(),
        overloaded_answer(),
        query_answer("limit", "wrong"),
        unread_list_answer(),
        busy_list_answer(),
        path_answer("/sleep"),
        *(id_answer(kind, "x", None, is_gone=True) for kind in kinds),
        encoding_answer("gzip"),
        headers_answer(100),
    ]
    own = {(str(answer.status), answer.code) for answer in answers}

    assert described == own | envoys_own_errors()


def test_every_header_of_an_error_is_described() -> None:
    rows = {row[1].strip("`"): row[2] for row in table("Errors") if len(row) == 4}
    for refusal in Refusal:
        answer = refusal_answer(Refused(refusal, "some-model"))
        names = {name for name, _ in answer.headers} - {"content-type"}
        assert set(re.findall(r"(?:x-error|retry)-[a-z-]+", rows[answer.code])) == names, refusal


def envoys_own_errors() -> set[tuple[str, str]]:
    """Status and code of each of Envoy's local replies in the bootstrap that we print."""
    document = json.loads(bootstrap_json(Settings()))
    [listener] = document["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    found = set()
    for mapper in manager["local_reply_config"]["mappers"]:
        code = mapper["body_format_override"]["json_format"]["error"].get("code")
        if code is None:  # Anthropic's shape, which has no codes.
            continue
        comparison = mapper["filter"].get("status_code_filter", {}).get("comparison", {})
        matched = comparison.get("value", {}).get("default_value", 503)
        found.add((str(mapper.get("status_code", matched)), code))
    return found


def console_lines() -> list[str]:
    """The commands in the README's console blocks, without prompts and comments."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", " ")
    return [line.removeprefix("$ ").split("  #")[0] for line in text.splitlines() if line]


def command_group() -> TyperGroup:
    """The application with all its commands, and with the options for completion."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


def test_every_command_in_the_table_exists_and_the_other_way_round() -> None:
    described = {row[0].split()[1].strip("`") for row in table("Commands")[1:]}

    assert described == set(command_group().commands)


def test_every_option_in_the_table_of_commands_exists() -> None:
    commands = command_group().commands
    for row in table("Commands")[1:]:
        command = commands[row[0].split()[1].strip("`")]
        options = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"`(-[-\w]+)[ `]", row[1])) <= options, row


@pytest.mark.slow
def test_every_command_line_parses() -> None:
    lines = [line.split(">")[0] for line in console_lines() if line.startswith("lora-router ")]
    assert len(lines) >= 4
    group = command_group()
    for line in lines:
        first, *others = shlex.split(line)[1:]
        if first.startswith("-"):
            # Parsing one of these would already do it.
            assert any(first in parameter.opts for parameter in group.params), line
        else:
            group.commands[first].make_context(first, others)


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"make ([a-z][a-z-]*)", README + CONTRIBUTING))
    assert {"demo", "test", "build"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_every_link_leads_to_a_file(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_index_page_has_no_link_that_leads_nowhere_and_keeps_the_words() -> None:
    page = load_script(ROOT / "hatch_build.py").index_page(README)

    assert re.findall(r"\]\((?!https?://)", page) == []
    assert "<!--" not in page
    assert "mermaid" not in page
    for words in ("## Install", "(`docs/performance.md`)", "see On Kubernetes", "| `grpc_port` |"):
        assert words in page
    assert page.count("\n## ") == README.count("\n## ")


def test_no_file_names_a_package_index() -> None:
    for path in [*ROOT.glob("requirements/*"), ROOT / "pyproject.toml", ROOT / "Makefile"]:
        assert "://" not in path.read_text(), path
