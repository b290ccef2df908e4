"""The locks: complete, closed, hashed, and free of any package index's address.

An install takes what a lock names and nothing else, so a release that appears on an index tomorrow
changes nothing. What each distribution requires is read from the ones that are installed here.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENTS = [
    {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    for python in ("3.11", "3.12", "3.13")
    for machine in ("x86_64", "aarch64")
]
PIN = re.compile(
    r"(?P<name>[\w.-]+)(\[(?P<extras>[\w,-]+)\])?==(?P<version>[^\s;]+)( ; (?P<marker>.+?))?"
    r"(?P<hashes>( \\\n    --hash=sha256:[0-9a-f]{64})+)\n"
)


@dataclass(frozen=True, eq=False)
class Pin:
    """One distribution that a lock names."""

    name: str
    extras: frozenset[str]
    version: str
    marker: Marker | None

    def holds(self, environment: Mapping[str, str]) -> bool:
        """Whether it is installed there."""
        return self.marker is None or self.marker.evaluate(dict(environment))


def extra(name: str) -> list[str]:
    listed: list[str] = PROJECT["optional-dependencies"][name]
    return listed


LOCKS: dict[str, list[str]] = {
    "runtime": [*PROJECT["dependencies"], *extra("redis"), *extra("otel")],
    "build": ["hatchling"],
    "demo": [*PROJECT["dependencies"], *extra("demo"), "hatchling", "editables"],
    "dev": [
        *PROJECT["dependencies"],
        *extra("demo"),
        *extra("otel"),
        *extra("plot"),
        *extra("redis"),
        *extra("dev"),
    ],
}
"""What each lock is for. ``demo`` and ``dev`` also build the editable install."""
ALL_LOCKS = [*LOCKS, "clients"]
"""The clients are not installed here. When they are, ``scripts/venv`` checks what they require."""
CLIENTS = ROOT / "tests" / "clients" / "javascript"


@cache
def pins(lock: str) -> list[Pin]:
    """Read a lock; whatever is not a pin with hashes is an error."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    found = list(PIN.finditer(text))
    assert "".join(each[0] for each in found) == text, "something in it is not a pin with hashes"
    return [
        Pin(
            canonicalize_name(each["name"]),
            frozenset((each["extras"] or "").split(",")) - {""},
            each["version"],
            Marker(each["marker"]) if each["marker"] else None,
        )
        for each in found
    ]


@cache
def needed(pin: Pin) -> list[Requirement]:
    """Return what an installed distribution requires; nothing if this machine has another one."""
    try:
        installed = distribution(pin.name)
    except PackageNotFoundError:
        return []
    if installed.version != pin.version:
        return []
    return [Requirement(each) for each in installed.requires or []]


def applies(
    requirement: Requirement, environment: Mapping[str, str], extras: frozenset[str]
) -> bool:
    return requirement.marker is None or any(
        requirement.marker.evaluate({**environment, "extra": each}) for each in {"", *extras}
    )


def closure(
    lock: Sequence[Pin], roots: Sequence[str], environment: Mapping[str, str]
) -> Iterator[tuple[str, Requirement, Pin | None]]:
    """Walk everything that the roots need there: who needs it, what, and the pin for it."""
    here = {pin.name: pin for pin in lock if pin.holds(environment)}
    todo = [("the project", Requirement(each)) for each in roots]
    asked: set[tuple[str, frozenset[str]]] = set()
    while todo:
        who, requirement = todo.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if name == PROJECT["name"] or not applies(requirement, environment, frozenset()):
            continue
        pin = here.get(name)
        yield who, requirement, pin
        if pin is None or (name, extras) in asked:
            continue
        asked.add((name, extras))
        todo += [
            (name, Requirement(str(each).partition(";")[0]))
            for each in needed(pin)
            if applies(each, environment, extras)
        ]


@pytest.mark.slow
@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize(
    "environment",
    ENVIRONMENTS,
    ids=[f"{each['python_version']}-{each['platform_machine']}" for each in ENVIRONMENTS],
)
def test_a_lock_names_all_that_its_install_needs(lock: str, environment: Mapping[str, str]) -> None:
    for who, requirement, pin in closure(pins(lock), LOCKS[lock], environment):
        assert pin is not None, f"{lock}.txt lacks {requirement}, which {who} needs"
        assert requirement.specifier.contains(pin.version, prereleases=True), (
            f"{lock}.txt has {pin.name} {pin.version}, and {who} needs {requirement}"
        )
        assert requirement.extras <= pin.extras, (
            f"{lock}.txt has {pin.name} without its extras, and {who} needs {requirement}"
        )


@pytest.mark.slow
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_nothing_else(lock: str) -> None:
    listed = pins(lock)
    reached = {
        pin.name
        for environment in ENVIRONMENTS
        for _, _, pin in closure(listed, LOCKS[lock], environment)
        if pin is not None
    }
    installable = {pin.name for pin in listed if any(map(pin.holds, ENVIRONMENTS))}

    assert installable == reached


@pytest.mark.parametrize("lock", ALL_LOCKS)
def test_one_version_for_each_machine(lock: str) -> None:
    for environment in ENVIRONMENTS:
        names = [pin.name for pin in pins(lock) if pin.holds(environment)]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("lock", ["runtime", "build", "demo"])
def test_all_locks_have_the_versions_that_the_tests_ran_with(lock: str) -> None:
    tested = {(pin.name, pin.version) for pin in pins("dev")}

    assert {(pin.name, pin.version) for pin in pins(lock)} <= tested


@pytest.mark.parametrize("lock", ALL_LOCKS)
def test_no_lock_names_an_index(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()

    assert re.search(r"://|^-|index-url|find-links", text, re.MULTILINE) is None


def test_the_lock_of_the_npm_clients_names_no_registry_and_has_all_hashes() -> None:
    text = (CLIENTS / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    wanted = json.loads((CLIENTS / "package.json").read_text())["dependencies"]

    assert "://" not in text
    assert packages.pop("")["dependencies"] == wanted
    assert {f"node_modules/{name}" for name in wanted} <= set(packages)
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())


def test_the_lock_of_the_clients_names_all_that_is_asked_for() -> None:
    lines = (ROOT / "requirements" / "clients.in").read_text().splitlines()
    asked = {line for line in lines if line and not line.startswith("#")}
    needed_here = [Requirement(each) for each in (*PROJECT["dependencies"], *extra("demo"))]
    versions = {pin.name: pin.version for pin in pins("clients")}

    assert asked <= set(versions)
    for requirement in needed_here:
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_every_locked_install_takes_no_dependency_and_checks_hashes() -> None:
    files = [
        *(ROOT / name for name in ("Makefile", "Dockerfile", "README.md", ".ci/run")),
        *(ROOT / "scripts").glob("*"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("requirements/*.md"),
    ]
    joined = [file.read_text().replace("\\\n", " ") for file in files if file.is_file()]
    installs = [line for text in joined for line in text.splitlines() if " -r " in line]
    installs = [line for line in installs if re.search(r"\binstall\b", line)]

    assert len(installs) >= 3
    for line in installs:
        assert "--no-deps" in line, line
        assert "--require-hashes" in line, line
