"""Algorithms by entry point: ours, a stranger's, and broken ones."""

import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.routing import algorithm
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.registry import (
    GROUP,
    BrokenAlgorithmError,
    UnknownAlgorithmError,
    installed,
    load_algorithms,
)
from tests.fleet import make_fleet, state_of

Install = Callable[[str, str, dict[str, str]], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution of one module, the way pip lays it out."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def make(module: str, source: str, names: dict[str, str]) -> None:
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {module}:{target}\n" for name, target in names.items())
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
        made.append(module)

    yield make
    for module in made:
        sys.modules.pop(module, None)


HEADER = "from lora_router.routing.algorithm import AlgorithmOptions, Hold, Pick\n\n"


def docstring_example() -> str:
    """Take the example that the interface's own documentation shows."""
    text = algorithm.__doc__ or ""
    code = text.partition("metadata::\n\n")[2].partition("    # pyproject.toml")[0]
    return HEADER + "\n".join(line[4:] for line in code.splitlines())


LONGEST_NAME = HEADER + (
    "class LongestName:\n"
    "    name = 'longest-name'\n"
    "    def __init__(self, options):\n"
    "        self.least = int(options.extra.get('least', 0))\n"
    "    def pick(self, request, candidates, now):\n"
    "        return Pick(max(candidates, key=lambda pod: len(pod.pod.name)), 'longest')\n"
)


def test_ours_are_installed() -> None:
    published = {"four-tier", "lora-residency", "shuffle-shard", "power-of-two"}
    assert {"random", "least-request", "lora-affinity"} | published <= set(installed())


def test_two_algorithms_from_outside_load_by_entry_point_and_pick(install: Install) -> None:
    install("least_cache_package", docstring_example(), {"least-cache": "LeastCache"})
    install("longest_name_package", LONGEST_NAME, {"longest-name": "LongestName"})

    algorithms = load_algorithms(AlgorithmOptions(extra={"least": "3"}))

    fleet = make_fleet(10)
    for number, state in enumerate(fleet):
        usage = 0.0 if number == 4 else 0.5
        fleet.put_metrics(state, PodMetrics(scraped_at=0.0, kv_cache_usage=usage))
    pods = fleet.serving("base").pods
    request = InferenceRequest(model="base")
    assert algorithms["least-cache"].pick(request, pods, 1.0) == Pick(
        state_of(fleet, 5), "least-cache"
    )
    assert algorithms["longest-name"].pick(request, pods, 1.0) == Pick(
        state_of(fleet, 10), "longest"
    )
    assert {"random", "least-request", "lora-affinity"} <= set(algorithms)


def test_the_example_in_the_documentation_has_twenty_lines_at_the_most() -> None:
    assert 10 < len(docstring_example().strip().splitlines()) <= 20


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("import nothing_like_this", "Missing", "ModuleNotFoundError"),
        ("", "Missing", "AttributeError"),
        ("class Picky:\n    def __init__(self, options): raise ValueError('no')", "Picky", "no"),
        (
            "class Other:\n    name = 'x'\n    def __init__(self, o): ...",
            "Other",
            "calls itself 'x'",
        ),
        ("class Nameless:\n    def __init__(self, o): ...", "Nameless", "calls itself None"),
    ],
)
def test_a_broken_one_is_named_with_the_cause(
    install: Install, source: str, target: str, message: str
) -> None:
    install("broken_package", source, {"broken": target})

    with pytest.raises(BrokenAlgorithmError, match=message) as caught:
        load_algorithms(AlgorithmOptions())

    assert "'broken' (broken_package:" in str(caught.value)


def test_a_name_that_two_claim_belongs_to_neither(install: Install) -> None:
    install("claims_one", LONGEST_NAME, {"longest-name": "LongestName"})
    install("claims_two", LONGEST_NAME, {"longest-name": "LongestName"})

    with pytest.raises(BrokenAlgorithmError, match=r"claims_\w+:LongestName and by claims_"):
        installed()


def test_an_unknown_name_lists_the_known_ones() -> None:
    error = UnknownAlgorithmError("best", ["b", "a"])

    assert str(error) == "unknown algorithm 'best'; known are a, b"


def test_the_packages_own_entry_points_are_the_ones_in_the_metadata() -> None:
    ours = {entry.name for entry in entry_points(group=GROUP) if "lora_router" in entry.value}

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert ours == project["project"]["entry-points"][GROUP].keys()
