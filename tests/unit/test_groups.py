"""How the tests themselves are dealt to processes."""

from pathlib import Path

import pytest

from tests.groups import FIRST, LONG, TOGETHER, group_of, rank, takes_long
from tests.outcome import Outcome
from tests.parts import is_elsewhere, skips_long

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("test", "group"),
    [
        ("tests/kube/test_lease.py::test_a[b/c.py::d]", "kube"),
        ("tests/integration/test_demo.py::test_a", "whole machine"),
        ("tests/integration/test_held.py::test_a[grpcio]", "tests/integration/test_held.py"),
        ("tests/unit/test_cli.py::TestA::test_b", "tests/unit/test_cli.py"),
    ],
)
def test_a_module_is_a_group_or_belongs_to_one(test: str, group: str) -> None:
    assert group_of(test) == group


def test_what_is_named_exists() -> None:
    paths = [*TOGETHER, *LONG, *(group for group in FIRST if group not in TOGETHER.values())]
    assert [path for path in paths if not (ROOT / path.partition("::")[0]).exists()] == []


def test_each_beginning_of_long_tests_is_that_of_a_test() -> None:
    beginnings = [path.split("::") for path in LONG if "::" in path]
    assert [
        each for each in beginnings if f"def {each[1]}" not in (ROOT / each[0]).read_text()
    ] == []


def test_long_groups_begin_first_and_unit_tests_last() -> None:
    tests = ["unit/test_cli.py", "integration/test_held.py", "faults/test_pods.py"]
    assert sorted((f"tests/{test}::test_a" for test in tests), key=rank) == [
        f"tests/{test}::test_a" for test in reversed(tests)
    ]


@pytest.mark.parametrize(
    ("test", "is_long"),
    [
        ("tests/faults/test_pods.py::test_a", True),
        ("tests/integration/test_hosts.py::test_a[1]", True),
        ("tests/integration/test_main_job.py::test_a", False),
        ("tests/unit/test_cli.py::test_a", False),
    ],
)
def test_a_long_test_is_skipped_where_most_tests_run(
    test: str, is_long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert takes_long(test) == is_long
    monkeypatch.delenv("PYTEST_SKIP_LONG", raising=False)
    assert not skips_long()
    monkeypatch.setenv("PYTEST_SKIP_LONG", "1")
    assert skips_long()


def test_each_module_is_in_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = [*ROOT.glob("tests/unit/**/*.py")]
    found: list[Path] = []
    for part in range(3):
        monkeypatch.setenv("PYTEST_PART", f"{part}/3")
        found += [path for path in modules if not is_elsewhere(path)]
    tests = [path for path in modules if path.name.startswith("test_")]
    assert sorted(path for path in found if path.name.startswith("test_")) == sorted(tests)


def test_unit_tests_run_beside_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    unit, other = ROOT / "tests/unit/test_cli.py", ROOT / "tests/kube/test_lease.py"
    monkeypatch.setenv("PYTEST_PART", "others")
    assert (is_elsewhere(unit), is_elsewhere(other)) == (True, False)
    monkeypatch.setenv("PYTEST_PART", "0/1")
    assert (is_elsewhere(unit), is_elsewhere(other)) == (False, True)
    monkeypatch.delenv("PYTEST_PART")
    assert (is_elsewhere(unit), is_elsewhere(other)) == (False, False)


def test_the_outcomes_of_several_processes_are_summed(tmp_path: Path) -> None:
    one = Outcome({"passed": 2, "failed": 1}, ["FAILED a"], {"no Go": 1})
    one.write(tmp_path / "one")
    other = Outcome({"passed": 3, "skipped": 2}, [], {"no Go": 2})

    assert [*Outcome.of_all([Outcome.read(tmp_path / "one"), other]).lines()] == [
        "FAILED a",
        "NOT RUN: 3 tests: no Go",
        "1 failed, 5 passed, 2 skipped",
    ]
