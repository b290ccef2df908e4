"""Algorithms by entry point: built-in ones, plug-ins, and broken ones."""

import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.routing.algorithm import (
    Algorithm,
    AlgorithmOptions,
    Cost,
    InferenceRequest,
    Noted,
    Pick,
)
from lora_router.routing.candidates import Candidates
from lora_router.routing.registry import (
    GROUP,
    BrokenAlgorithmError,
    UnknownAlgorithmError,
    UnknownOptionError,
    installed,
    load_algorithms,
)
from tests.fleet import make_fleet, make_metrics, state_of
from tests.unit.routing.router import Router

Install = Callable[[str, str, dict[str, str]], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution with one module, in the layout of pip."""
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


HEADER = "from lora_router.routing.algorithm import Pick\n\n"


def documented(block: int) -> str:
    """Return a Python block of docs/algorithms.md."""
    page = (Path(__file__).parents[3] / "docs" / "algorithms.md").read_text()
    return page.split("```python\n")[1 + block].partition("```")[0]


LONGEST_NAME = HEADER + (
    "class LongestName:\n"
    "    name = 'longest-name'\n"
    "    option_names = ('least',)\n"
    "    def __init__(self, options):\n"
    "        self.least = int(options.extra.get('least', 0))\n"
    "    def pick(self, request, candidates, now):\n"
    "        return Pick(max(candidates, key=lambda pod: len(pod.pod.name)), 'longest')\n"
)


def test_the_built_in_algorithms_are_installed() -> None:
    published = {
        "four-tier", "lora-residency", "shuffle-shard", "power-of-two", "prefix-cache",
        "weighted-scores",
    }  # fmt: skip
    assert {"random", "least-request", "lora-affinity"} | published <= set(installed())


def test_two_algorithms_from_outside_load_by_entry_point_and_pick(install: Install) -> None:
    install("least_cache_package", documented(0), {"least-cache": "LeastCache"})
    install("longest_name_package", LONGEST_NAME, {"longest-name": "LongestName"})

    algorithms = load_algorithms(AlgorithmOptions(extra={"least": "3"}))

    fleet = make_fleet(10)
    for number, state in enumerate(fleet):
        usage = 0.0 if number == 4 else 0.5
        fleet.put_metrics(state, PodMetrics(scraped_at=0.0, kv_cache_usage=usage))
    pods = Candidates.of(fleet.serving("base").pods)
    request = InferenceRequest(model="base")
    assert algorithms["least-cache"].pick(request, pods, 1.0) == Pick(
        state_of(fleet, 5), "base-model"
    )
    assert algorithms["longest-name"].pick(request, pods, 1.0) == Pick(
        state_of(fleet, 10), "longest"
    )
    assert {"random", "least-request", "lora-affinity"} <= set(algorithms)


class TestTheDocumentedExample:
    @pytest.fixture
    def algorithm(self, install: Install) -> Algorithm:
        install("least_cache_package", documented(0), {"least-cache": "LeastCache"})
        return load_algorithms(AlgorithmOptions())["least-cache"]

    def test_it_holds_when_no_slot_is_free_and_picks_when_one_is(
        self, algorithm: Algorithm
    ) -> None:
        fleet = make_fleet(1, adapters=("a", "b"))
        fleet.put_metrics(state_of(fleet, 1), make_metrics(max_lora=1))
        router = Router(fleet, algorithm)
        first = router.routed("a")
        router.held("b")

        first.reservation.release()

        assert router.late_names == ["b"]

    @pytest.mark.slow
    def test_it_looks_at_no_more_pods_of_a_thousand_than_of_forty(
        self, algorithm: Algorithm
    ) -> None:
        def pods_looked_at(count: int) -> int:
            fleet = make_fleet(count, adapters=("a", "b"))
            seen: set[PodState] = set()
            fresh = PodState.fresh_metrics

            def looked_at(pod: PodState, now: float, max_age: float) -> PodMetrics | None:
                seen.add(pod)
                return fresh(pod, now, max_age)

            for state in fleet:
                fleet.put_metrics(state, make_metrics(max_lora=4))
                fleet.ledger.reserve(state, "b")
            candidates = Candidates.of(fleet.serving("a").pods)
            request = InferenceRequest("a", "a")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(PodState, "fresh_metrics", looked_at)
                assert isinstance(algorithm.pick(request, candidates, 1.0), Pick)
            return len(seen)

        assert pods_looked_at(1000) <= pods_looked_at(40) + 2 <= 18

    def test_the_way_of_testing_that_the_page_shows_works(
        self, algorithm: Algorithm, capsys: pytest.CaptureFixture[str]
    ) -> None:
        exec(documented(2), {"LeastCache": type(algorithm)})

        assert "most-room" in capsys.readouterr().out

    def test_the_way_of_explaining_past_decisions_that_the_page_shows_works(self) -> None:
        methods: dict[str, object] = {}
        exec(documented(1), {"Pick": Pick, "Noted": Noted, "Cost": Cost}, methods)
        fewest = type("Fewest", (), methods | {"name": "fewest"})()
        router = Router(make_fleet(2), fewest)
        router.director.observe()
        router.fleet.ledger.reserve(state_of(router.fleet, 1), None)

        routed = router.routed("base")
        router.routed("base")

        recall = router.director.recollection.recall
        seen = recall("fewest", routed.notes, routed.reservation.state.pod.name, "")
        assert [(each.pod, each.terms) for each in seen] == [
            ("pod-2", (("requests", 0.0),)),
            ("pod-1", (("requests", 1.0),)),
        ]

    def test_its_invalid_option_aborts_startup(self, algorithm: Algorithm) -> None:
        bad = AlgorithmOptions(extra={"least_cache_hold_seconds": "soon"})
        with pytest.raises(BrokenAlgorithmError, match="least_cache_hold_seconds=soon: must be"):
            load_algorithms(bad)


def test_an_option_that_no_algorithm_declares_aborts_startup() -> None:
    with pytest.raises(UnknownOptionError) as caught:
        load_algorithms(AlgorithmOptions(extra={"shufle_shard_k": "2"}))

    declared = {
        option: name
        for name, entry in installed().items()
        for option in getattr(entry.load(), "option_names", ())
    }
    assert {"adapter_load_seconds", "shuffle_shard_k", "weighted_scores"} <= declared.keys()
    listed = ", ".join(f"{option} (of {declared[option]})" for option in sorted(declared))
    assert str(caught.value) == (
        "algorithm_options: unknown option 'shufle_shard_k'; did you mean 'shuffle_shard_k'? the "
        f"installed algorithms know {listed}"
    )


def test_an_algorithm_for_a_later_interface_is_refused(install: Install) -> None:
    install("later", LONGEST_NAME + "    interface_version = 4\n", {"longest-name": "LongestName"})

    with pytest.raises(BrokenAlgorithmError, match=r"written for version 4 .* accepts 1 to 3"):
        load_algorithms(AlgorithmOptions())


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
