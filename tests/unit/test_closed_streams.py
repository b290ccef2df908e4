"""Commands whose standard streams are closed, or cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_a_full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def run(arguments: str, redirections: str) -> tuple[int, str, str]:
    """Return the exit status of a command, and what it wrote."""
    ended = subprocess.run(
        ["sh", "-c", f'"$0" -m lora_router {arguments} {redirections}', sys.executable],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(
    "arguments",
    ["config", "simulate --list", "simulate --list --json", "envoy-config", "--version", "--help"],
)
def test_output_that_was_closed_is_an_error_as_a_full_disk_is(arguments: str) -> None:
    assert run(arguments, ">&-") == (1, "", "lora-router: cannot write: Bad file descriptor\n")


def test_top_prints_one_picture_where_nobody_can_press_a_key() -> None:
    status, _, stderr = run("top --admin http://127.0.0.1:1", "<&-")

    assert status == 1
    assert stderr.startswith("lora-router: http://127.0.0.1:1: no router answers")
    assert run("top --admin http://127.0.0.1:1", ">&-") == (1, "", stderr)


def test_input_that_was_closed_cannot_be_read() -> None:
    assert run("scrape -", "<&-") == (
        1,
        "",
        "lora-router: -: cannot be read: Bad file descriptor\n",
    )


def test_without_standard_error_the_exit_status_tells() -> None:
    assert run("config --set x=1", "2>&-") == (2, "", "")
    assert run("config --set x=1", ">&- 2>&-") == (2, "", "")
    assert run("config", ">&- 2>&-") == (1, "", "")


@needs_a_full_disk
def test_an_error_that_cannot_be_written_keeps_its_exit_status() -> None:
    assert run("config --set x=1", "2>/dev/full") == (2, "", "")
    assert run("config", ">/dev/full 2>/dev/full") == (1, "", "")
