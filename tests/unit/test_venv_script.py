"""``scripts/venv``: which Python it takes, what it installs, and that it leaves nothing half-made.

A shell script stands for Python, so nothing is installed here.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "venv"
TOOLS = ("basename", "cat", "chmod", "cp", "dirname", "mkdir", "rm", "sh", "touch")

PYTHON = r"""#!/bin/sh
version=VERSION
case "$*" in
  *print*) echo $version ;;
  *version_info*) case $version in 3.9.*) exit 1 ;; esac ;;
  *ensurepip*) [ "$version" != 3.11.1 ] ;;
  --version) echo "Python $version" ;;
  "-m venv --clear "*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
  "-m pip --version") ;;
  "-m pip "*) echo "$*" >>"$LOG"; case "$*" in *"$FAILING"*) exit 1 ;; esac ;;
  *) exit 64 ;;
esac
"""


@dataclass
class Machine:
    """Commands on a PATH, and a place for the environment."""

    folder: Path

    def has(self, name: str, version: str) -> None:
        command = self.folder / "bin" / name
        command.write_text(PYTHON.replace("VERSION", version))
        command.chmod(0o755)

    @property
    def venv(self) -> Path:
        return self.folder / "an environment"

    @property
    def installs(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def stamps(self) -> set[str]:
        return {name for name in (".demo", ".dev", ".clients") if (self.venv / name).exists()}

    def make(self, lock: str, failing: str = "nothing") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / "bin" / "sh", SCRIPT, lock, self.venv],
            env={
                "PATH": str(self.folder / "bin"),
                "LOG": str(self.folder / "log"),
                "FAILING": failing,
            },
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    return Machine(tmp_path)


def test_no_python_is_said_in_one_line(machine: Machine) -> None:
    done = machine.make("demo")

    assert done.returncode == 1
    assert done.stderr == (
        "lora-router: Python 3.11 or newer is needed: no Python was found. "
        "Install one, or name it: make PYTHON=/path/to/python3.12\n"
    )


def test_a_python_that_is_too_old_is_said_in_one_line(machine: Machine) -> None:
    machine.has("python3", "3.9.2")

    done = machine.make("demo")

    assert done.returncode == 1
    assert done.stderr == (
        "lora-router: Python 3.11 or newer is needed: python3 is Python 3.9.2. "
        "Install one, or name it: make PYTHON=/path/to/python3.12\n"
    )
    assert not machine.venv.exists()


def test_a_python_without_ensurepip_is_said_in_one_line(machine: Machine) -> None:
    machine.has("python3.11", "3.11.1")  # As Debian has it without python3.11-venv.

    done = machine.make("demo")

    assert done.returncode == 1
    assert done.stderr == (
        "lora-router: python3.11 cannot make a virtual environment: it has no module 'ensurepip'. "
        "On Debian and Ubuntu: apt install python3.11-venv\n"
    )


def test_the_newest_that_can_make_an_environment_is_taken(machine: Machine) -> None:
    machine.has("python3", "3.9.2")
    machine.has("python3.11", "3.11.1")
    machine.has("python3.12", "3.12.4")

    done = machine.make("demo")

    assert done.returncode == 0
    assert "with Python 3.12.4" in done.stderr


def test_it_installs_what_the_lock_names_and_the_project_and_checks(machine: Machine) -> None:
    machine.has("python3", "3.12.4")

    assert machine.make("demo").returncode == 0
    assert machine.installs == [
        "-m pip install -q --no-deps --require-hashes -r requirements/demo.txt",
        "-m pip install -q --no-deps --no-build-isolation -e .",
        "-m pip check",
    ]
    assert machine.stamps == {".demo"}

    assert machine.make("dev").returncode == 0
    assert machine.stamps == {".demo", ".dev"}

    assert machine.make("clients").returncode == 0
    assert machine.stamps == {".clients"}


@pytest.mark.parametrize("step", ["requirements/dev.txt", "-e .", "check"])
def test_an_install_that_fails_leaves_no_stamp(machine: Machine, step: str) -> None:
    machine.has("python3", "3.12.4")
    machine.make("dev")

    assert machine.make("dev", failing=step).returncode != 0
    assert machine.stamps == set()


@pytest.mark.slow
def test_an_environment_that_was_not_finished_or_was_moved_is_made_anew(machine: Machine) -> None:
    machine.has("python3", "3.12.4")
    machine.make("demo")
    assert "Making" not in machine.make("demo").stderr

    (machine.venv / "bin" / "python").unlink()
    assert "Making" in machine.make("demo").stderr

    (machine.venv / ".place").write_text("/another/checkout\n")
    assert "Making" in machine.make("demo").stderr
