"""Runs tests in several pytest processes: ``python -m tests.parts WHICH ARGUMENTS OF PYTEST``.

``unit`` runs the unit tests in a process per core. ``all`` runs them beside a pytest whose workers
(pytest-xdist) run all other tests. ``most`` skips those that take long (``tests.groups``). Each
process imports the modules of its own part only. For tests that take milliseconds that is faster
than pytest-xdist, whose workers all collect all tests and report each phase of each one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

from tests.outcome import Outcome

_PART = "PYTEST_PART"
"""Environment variable with the number of a part of the unit tests, and of all parts (``0/2``), or
with ``others`` for all other tests."""
_OUTCOME = "PYTEST_OUTCOME"
"""Environment variable with the file into which a process writes what became of its tests."""
_OTHERS = "others"
_SKIP_LONG = "PYTEST_SKIP_LONG"
"""Environment variable that, if it is set, skips tests that take long."""
_TESTS = Path(__file__).parent
_UNIT = _TESTS / "unit"
_FIRST = ("discovery", "replication", "telemetry")
"""Folders that import the client of Kubernetes for pods, which takes a second of CPU time."""
_NO_TESTS = 5
"""pytest's exit status when a part has none of the tests that are asked for."""
_INTERRUPTED = 130
COVERAGE = _TESTS.parent / "build" / "coverage"
"""Folder with the coverage that each process measured."""
_FAILED = _TESTS.parent / "build" / "failed-tests.txt"
"""File with the tests that failed, one in a line, if every process came to its end."""


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers(*, measures_coverage: bool) -> int:
    """Return the number of workers of ``-n auto``.

    Two processes per core, because tests with processes often wait, and at most 4: more would
    disturb the tests that measure time. The process of the unit tests is one of them. One worker
    per core while coverage is measured, which takes the time in which they would wait.
    """
    if measures_coverage:
        return min(cores(), 4)
    beside = _unit_parts() if os.environ.get(_PART) == _OTHERS else 0
    return max(1, min(2 * cores(), 4) - beside)


def outcome_file() -> Path | None:
    """Return the file that the outcome of this process goes to, if it is one of several."""
    file = os.environ.get(_OUTCOME)
    return Path(file) if file else None


def skips_long() -> bool:
    """Return whether tests that take long are skipped."""
    return bool(os.environ.get(_SKIP_LONG))


def is_elsewhere(path: Path) -> bool:
    """Return whether a module or a folder belongs to the part of another process."""
    part = os.environ.get(_PART)
    if part is None:
        return False
    if not path.is_relative_to(_UNIT):
        return part != _OTHERS and not _UNIT.is_relative_to(path)
    if part == _OTHERS:
        return True
    number, _, parts = part.partition("/")
    return path.name.startswith("test_") and _dealt(int(parts)).get(path, 0) != int(number)


@cache
def _dealt(parts: int) -> dict[Path, int]:
    """Return the part of each module of the unit tests.

    Each part is a run of modules in the order of their folders, because modules of a folder import
    the same libraries. All parts have the same size in bytes; a module of twice the size has about
    twice as much to do.
    """
    modules = sorted(_UNIT.rglob("test_*.py"), key=_order)
    sizes = [module.stat().st_size for module in modules]
    ends, whole = accumulate(sizes), sum(sizes)
    return {
        module: int((end - size / 2) * parts / whole)
        for module, size, end in zip(modules, sizes, ends, strict=True)
    }


def _order(module: Path) -> tuple[bool, bool, Path]:
    return module.parent != _UNIT, module.parent.name not in _FIRST, module


def _unit_parts() -> int:
    """Return how many processes run unit tests beside all others."""
    return max(1, cores() // 2)


@dataclass(frozen=True, slots=True)
class _Process:
    """A pytest process. The first one prints at once; the others, when they have ended."""

    part: str
    outcome: Path
    output: Path | None
    process: subprocess.Popen[bytes]

    def end(self) -> int:
        """Wait until it has ended, print its output, and return its status."""
        status = self.process.wait()
        if self.output is not None:
            sys.stdout.buffer.write(self.output.read_bytes())
            sys.stdout.flush()
        return status


def _start(part: str, arguments: list[str], folder: Path, *, prints: bool) -> _Process:
    name = part.replace("/", "-of-")
    output = None if prints else folder / f"{name}.txt"
    environ = {**os.environ, _PART: part, _OUTCOME: str(folder / f"{name}.json")}
    if "--cov" in arguments:
        (COVERAGE / name).mkdir(parents=True)
        environ["COVERAGE_FILE"] = str(COVERAGE / name / ".coverage")
    number = "auto" if part == _OTHERS else "0"
    command = [sys.executable, "-m", "pytest", "-n", number, *arguments]
    with (output or Path(os.devnull)).open("wb") as file:
        process = subprocess.Popen(
            command,
            env=environ,
            stdout=None if prints else file,
            stderr=None if prints else subprocess.STDOUT,
        )
    return _Process(part, folder / f"{name}.json", output, process)


def main(which: str, *arguments: str) -> int:
    """Run all parts at once, print their output and its sum, and return the worst status."""
    everything = which != "unit"
    if which == "most":
        os.environ[_SKIP_LONG] = "1"
    number = _unit_parts() if everything else cores()
    parts = [_OTHERS] * everything + [f"{each}/{number}" for each in range(number)]
    shutil.rmtree(COVERAGE, ignore_errors=True)
    _FAILED.unlink(missing_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        running = [
            _start(part, [*arguments], Path(folder), prints=part is parts[0]) for part in parts
        ]
        try:
            statuses = [each.end() for each in running]
        except KeyboardInterrupt:  # Which the processes got too.
            statuses = [_INTERRUPTED, *(each.end() for each in running)]
        outcomes = []
        for each, status in zip(running, statuses[-len(running) :], strict=True):
            if each.outcome.exists():
                outcomes.append(Outcome.read(each.outcome))
            elif status != _NO_TESTS:
                print(f"pytest of part {each.part} ended with status {status}")
    print(f"\nIn all, after {time.monotonic() - began:.0f} s:")
    whole = Outcome.of_all(outcomes)
    print("\n".join(whole.lines()))
    if len(outcomes) == len(running) and whole.wrong:
        _FAILED.parent.mkdir(exist_ok=True)
        _FAILED.write_text("".join(f"{line.partition(' ')[2]}\n" for line in whole.wrong))
    found = [status for status in statuses if status != _NO_TESTS]
    return max(found, key=abs) if found else _NO_TESTS


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
