"""Values of options that are refused: the error names the option, the value and what is allowed."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lora_router.cli.commands import app


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})


@pytest.mark.parametrize(
    ("arguments", "option", "complaint"),
    [
        ("adapters --limit 0", "limit", "must be a whole number from 1 to 2,048, not '0'"),
        ("adapters --limit ten", "limit", "must be a whole number from 1 to 2,048, not 'ten'"),
        (
            "adapters load sql --copies abc",
            "copies",
            "must be a whole number of 1 or more, not 'abc'",
        ),
        ("explain --model sql --size -1", "size", "must be a whole number of 0 or more, not '-1'"),
        ("simulate b-zipf --load 85%", "load", "must be a number, not '85%'"),
        ("simulate b-zipf --seed x", "seed", "must be a whole number, not 'x'"),
        ("simulate b-zipf --routers 1.5", "routers", "must be a whole number, not '1.5'"),
        ("demo --duration nan", "duration", "must be a number from 1 to 3,600, not 'nan'"),
        ("demo --slots 99", "slots", "must be a whole number from 1 to 16, not '99'"),
        ("top --interval x", "interval", "must be a number, not 'x'"),
        ("probe --timeout 3s", "timeout", "must be a number, not '3s'"),
    ],
)
def test_a_number_that_is_not_allowed_is_named(arguments: str, option: str, complaint: str) -> None:
    result = run(*arguments.split())

    assert result.exit_code == 2
    assert f"Invalid value for '--{option}': {complaint}" in " ".join(
        result.stderr.replace("│", " ").split()
    )


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999", "http://127.0.0.1:0", "http://[::1", "http://:80", "h:80"]
)
def test_an_address_that_cannot_be_one_is_refused_before_it_is_asked(url: str) -> None:
    allowed = "with a port from 1 to 65535"
    for command, option, form in (
        ("pods", "--admin", "http://HOST:PORT"),
        ("probe", "--http", "http://HOST:PORT/PATH, or https"),
    ):
        result = run(command, option, url)

        assert (result.exit_code, result.stderr) == (
            2,
            f"lora-router: {option} {url}: must be {form}, {allowed}\n",
        )


def test_the_other_commands_check_ports_too() -> None:
    grpc = run("probe", "--grpc", "127.0.0.1:99999")
    page = run("scrape", "http://127.0.0.1:99999")

    assert "--grpc 127.0.0.1:99999: must be HOST:PORT, with a port from 1 to 65535" in grpc.stderr
    assert grpc.exit_code == 2
    assert "http://127.0.0.1:99999: must be http://HOST:PORT/PATH" in page.stderr


@pytest.mark.parametrize(
    "content", ["", "short", "a-token-of-one-line\nand-another", "é" * 20, "a" * 99_999]
)
def test_a_file_without_a_usable_token_is_named_before_it_is_sent(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    allowed = f"{file}: must contain 16 to 1024 printable ASCII characters without spaces\n"
    settings = tmp_path / "router.yaml"
    settings.write_text(f"admin_token_file: {file}\n")

    by_option = run("pods", "--admin", "http://127.0.0.1:1", "--token-file", str(file))
    by_setting = run("pods", "--config", str(settings))

    assert (by_option.exit_code, by_option.stderr) == (2, f"lora-router: --token-file: {allowed}")
    assert by_setting.exit_code == 2
    assert by_setting.stderr == f"lora-router: admin_token_file: {allowed}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("adapters", "load", "\udcff"),
        ("adapters", "unload", "\udcff"),
        ("adapters", "load", "sql", "--source", "/lora/\udcff"),
        ("explain", "--model", "\udcff"),
        ("explain", "--request", "\udcff"),
    ],
)
def test_arguments_that_are_not_utf_8_are_refused(arguments: tuple[str, ...]) -> None:
    result = run(*arguments, "--admin", "http://127.0.0.1:1")

    assert result.exit_code == 2
    assert ": must be UTF-8, not '" in result.stderr


def test_an_empty_source_is_refused() -> None:
    result = run("adapters", "load", "sql", "--source", "", "--admin", "http://127.0.0.1:1")

    assert (result.exit_code, result.stderr) == (2, "lora-router: --source: must not be empty\n")
