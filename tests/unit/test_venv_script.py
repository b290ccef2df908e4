"""``scripts/venv``: which Python it takes, what it installs, and that it leaves nothing half-made.

A shell script stands for Python, so nothing is installed here.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "venv"
TOOLS = ("basename", "cat", "chmod", "cp", "dirname", "env", "mkdir", "rm", "sh", "touch")

PYTHON = r"""#!/bin/sh
version=VERSION
case "$*" in
  *print*) echo $version ;;
  *version_info*) case $version in 3.9.*) exit 1 ;; esac ;;
  *ensurepip*) [ "$version" != 3.11.1 ] ;;
  --version) echo "Python $version" ;;
  "-m venv --clear "*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
  "-m pip --version") ;;
  "-m pip "*) echo "$*" >>"$LOG"; env >"$LOG.env"; case "$*" in *"$FAILING"*) exit 1 ;; esac ;;
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

    @property
    def pips_variables(self) -> dict[str, str]:
        lines = (self.folder / "log.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if line.startswith("PIP_"))

    def make(
        self, lock: str, failing: str = "nothing", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / "bin" / "sh", SCRIPT, lock, self.venv],
            env={
                "PATH": str(self.folder / "bin"),
                "LOG": str(self.folder / "log"),
                "FAILING": failing,
                **variables,
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
        "-m pip install -q --target  --no-deps --require-hashes -r requirements/demo.txt",
        "-m pip install -q --target  --no-deps --no-build-isolation -e .",
        "-m pip check",
    ]
    assert machine.stamps == {".demo"}

    assert machine.make("dev").returncode == 0
    assert machine.stamps == {".demo", ".dev"}

    assert machine.make("clients").returncode == 0
    assert machine.stamps == {".clients"}


def test_pip_keeps_its_index_and_nothing_that_installs_elsewhere_or_something_else(
    machine: Machine,
) -> None:
    machine.has("python3", "3.12.4")
    index = {
        "PIP_INDEX_URL": "https://mirror.test/simple",
        "PIP_EXTRA_INDEX_URL": "https://more.test/simple",
        "PIP_TRUSTED_HOST": "mirror.test",
        "PIP_CERT": "/ca.pem",
        "PIP_PROXY": "http://proxy.test",
        "PIP_CACHE_DIR": "/cache",
        "PIP_CONFIG_FILE": "/pip.conf",
        "PIP_FIND_LINKS": "/wheels",
    }
    wrong = ("TARGET", "PREFIX", "ROOT", "PYTHON", "EDITABLE", "REQUIREMENT", "CONSTRAINT")
    switches = ("USER", "REQUIRE_VIRTUALENV", "REQUIRE_HASHES", "DRY_RUN")

    machine.make(
        "demo",
        **index,
        **{f"PIP_{name}": "/elsewhere" for name in wrong},
        **{f"PIP_{name}": "1" for name in switches},
    )

    assert machine.pips_variables == {
        **index,
        **{f"PIP_{name}": "0" for name in switches},
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


@pytest.mark.slow
def test_a_folder_in_a_pip_conf_is_not_where_pip_installs(tmp_path: Path) -> None:
    """With the real pip, which reads no variable that is empty."""
    [install] = [line for line in SCRIPT.read_text().splitlines() if "pip install" in line]
    wheel = tmp_path / "nothing-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("nothing.py", "")
        about = "nothing-1.dist-info"
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    (tmp_path / "pip.conf").write_text(f"[global]\ntarget = {tmp_path / 'elsewhere'}\n")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"

    subprocess.run(
        ["sh", "-c", f"python=$1; shift; {install}", "sh", python, "--no-index", wheel],
        env={"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")},
        check=True,
    )

    assert not (tmp_path / "elsewhere").exists()
    subprocess.run([python, "-c", "import nothing"], check=True)


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


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_refuses_a_folder_whose_name_it_would_take_for_two() -> None:
    done = subprocess.run(
        ["make", "VENV=/an environment", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "VENV=/an environment: must be a path without spaces" in done.stderr
