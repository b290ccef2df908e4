"""docs/architecture.md says what is true."""

import re
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/lora_router"
TEXT = (ROOT / "docs/architecture.md").read_text()


def layers() -> list[list[str]]:
    """The packages in each row of the table of layers."""
    cells = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")]
    return [sorted(re.findall(r"`(\w+)`", cell)) for cell in cells]


def test_the_table_has_the_layers_that_the_linter_holds_in_their_order() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [held] = [each["layers"] for each in contracts["contracts"] if each["type"] == "layers"]

    assert layers() == [sorted(re.findall(r"lora_router\.(\w+)", layer)) for layer in held]


def test_every_package_and_module_is_in_a_layer() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.name[0] not in "._"}

    assert there - {"__init__", "__main__", "py"} == {name for row in layers() for name in row}


PACKAGES = ["extproc", "routing", "fleet", "discovery", "scrape", "simulator"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_that_is_named_exists(package: str) -> None:
    start = TEXT.index(f"- **`{package}`**")
    paragraph = re.split(r"\n- |\n## ", TEXT[start + 2 :])[0]
    for name in re.findall(r"`([a-z_]+)`", paragraph):
        assert (PACKAGE / package / f"{name}.py").exists() or (PACKAGE / name).exists(), name


def test_every_path_that_is_named_exists() -> None:
    for name in re.findall(r"`([a-z_]+/[a-z_]+\.py)`", TEXT):
        assert (PACKAGE / name).exists(), name
    for package, name in re.findall(r"`(extproc|routing|grpc_server)\.([a-z_]+)`", TEXT):
        assert (PACKAGE / package / f"{name}.py").exists(), name


MAX_LINES = 400


def test_no_module_is_long() -> None:
    """A module of more lines has more than one concept, and one of them should move out."""
    lengths = {
        str(path.relative_to(PACKAGE)): len(path.read_text().splitlines())
        for path in PACKAGE.rglob("*.py")
        if "pb2" not in path.name
    }

    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


@pytest.mark.slow
def test_no_two_modules_import_each_other() -> None:
    """Also not for types: what two modules need of each other is a third one, or one module."""
    graph = grimp.build_graph("lora_router", cache_dir=None)
    pairs = {
        (first, second)
        for first in graph.modules
        for second in graph.find_modules_directly_imported_by(first)
        if first < second and first in graph.find_modules_directly_imported_by(second)
    }

    assert pairs == set()
