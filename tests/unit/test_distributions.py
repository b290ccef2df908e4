"""The wheel and the source archive: what they hold, and that the wheel alone is enough to run."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Mapping
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from trove_classifiers import classifiers

from lora_router import __version__
from lora_router.simulator.scenario import shipped_scenarios

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def build(source: Path, target: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", target],
        cwd=source,
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both, as ``make build`` makes them."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return built / f"lora_router-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def source_archive(built: Path) -> Path:
    return built / f"lora_router-{__version__}.tar.gz"


def contents(wheel: Path) -> Mapping[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def metadata(wheel: Path) -> Message:
    text = contents(wheel)[f"lora_router-{__version__}.dist-info/METADATA"]
    return Parser().parsestr(text.decode())


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return folder / f"lora_router-{__version__}"


def test_the_wheel_has_the_package_its_types_its_scenarios_and_its_page(wheel: Path) -> None:
    names = set(contents(wheel))

    assert "lora_router/py.typed" in names
    assert {f"lora_router/simulator/scenarios/{name}.yaml" for name in shipped_scenarios()} <= names
    page = {path.name for path in (ROOT / "src/lora_router/admin/page").iterdir()}
    assert {f"lora_router/admin/page/{name}" for name in page} <= names
    assert {name.split("/")[0] for name in names} == {
        "lora_router",
        f"lora_router-{__version__}.dist-info",
    }
    modules = {
        str(path.relative_to(ROOT / "src")) for path in (ROOT / "src/lora_router").rglob("*.py")
    }
    assert modules <= names


def test_the_wheel_names_its_license_and_commands(wheel: Path) -> None:
    info = f"lora_router-{__version__}.dist-info"
    files = contents(wheel)

    assert f"{info}/licenses/LICENSE" in files
    assert b"lora-router = lora_router.cli:main" in files[f"{info}/entry_points.txt"]


def test_the_metadata_holds_nothing_invented(wheel: Path) -> None:
    fields = metadata(wheel)

    assert fields["Requires-Python"] == ">=3.11"
    assert fields["License-Expression"] == "Apache-2.0"
    assert set(fields.get_all("Classifier", [])) <= classifiers
    # There is no address of the project that would not be made up.
    assert fields.get_all("Project-URL") is None
    assert fields["Home-page"] is None
    assert set(fields.get_all("Provides-Extra", [])) == {"demo", "dev", "otel", "plot", "redis"}


def test_the_description_is_the_readme_without_links_that_lead_nowhere(wheel: Path) -> None:
    fields = metadata(wheel)
    text = str(fields.get_payload())

    assert fields["Description-Content-Type"] == "text/markdown"
    assert text.startswith("# lora-router\n")
    assert re.findall(r"\]\((?!https?://)", text) == []


def test_the_source_archive_has_all_that_the_tests_need(
    source_archive: Path, tmp_path: Path
) -> None:
    folder = unpacked(source_archive, tmp_path)
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("the tests run outside of a git checkout")
    tracked = {name for name in listed.stdout.split("\0") if (ROOT / name).is_file()}

    missing = {name for name in tracked if not (folder / name).is_file()}
    assert {name for name in missing if not name.startswith((".github/", ".gitlab/"))} == set()


def test_a_wheel_of_the_source_archive_is_the_same(
    wheel: Path, source_archive: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    build(unpacked(source_archive, tmp_path), again)

    assert contents(again / wheel.name) == contents(wheel)


def test_the_wheel_runs_where_the_checkout_is_not(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "a venv"
    python = venv / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(python)),
            *("install", "-q", "--no-index", "--no-deps", str(wheel)),
        ],
        check=True,
    )
    [packages] = venv.glob("lib/python*/site-packages")
    # What the wheel depends on is installed here already; nothing is fetched.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [venv / "bin" / "lora-router", *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("--version") == f"lora-router {__version__}\n"
    where = "import lora_router; print(lora_router.__file__)"
    found = subprocess.run(
        [python, "-c", where], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert Path(found.stdout.strip()).is_relative_to(venv)
    printed = run("simulate", "b-zipf", "--duration", "10", "--algorithm", "random", "--json")
    assert list(json.loads(printed)["scenarios"]) == ["b-zipf"]
