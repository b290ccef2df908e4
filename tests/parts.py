"""Runs tests in a pytest process per core: ``python -m tests.parts ARGUMENTS OF PYTEST``.

Each process has a part of the modules, and imports no others. For tests that take milliseconds that
is faster than pytest-xdist, whose workers all collect all tests and report each phase of each one.
"""

import os
import subprocess
import sys
import tempfile
from functools import cache
from itertools import accumulate
from pathlib import Path

_PART = "PYTEST_PART"
"""Environment variable with the number of a part, and of all parts: ``0/2``."""
_UNIT = Path(__file__).parent / "unit"
_FIRST = ("discovery", "telemetry")
"""Folders that import the client of Kubernetes for pods, which takes two seconds of CPU time."""
_NO_TESTS = 5
"""pytest's exit status when a part has none of the tests that are asked for."""


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_elsewhere(path: Path) -> bool:
    """Return whether a module belongs to the part of another process."""
    part, _, parts = os.environ.get(_PART, "0/1").partition("/")
    if not path.name.startswith("test_"):
        return False
    return _dealt(int(parts)).get(path, 0) != int(part)


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


def main() -> int:
    """Run all parts at once. Print their output one after the other; return the worst status."""
    parts = cores()
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, str(number)) for number in range(parts)]
        running = []
        for number, output in enumerate(outputs):
            with output.open("wb") as file:
                running.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "pytest", "-p", "no:xdist", *sys.argv[1:]],
                        env={**os.environ, _PART: f"{number}/{parts}"},
                        stdout=file if number else None,
                        stderr=subprocess.STDOUT if number else None,
                    )
                )
        statuses = []
        for number, (process, output) in enumerate(zip(running, outputs, strict=True)):
            statuses.append(process.wait())
            if number:
                sys.stdout.buffer.write(output.read_bytes())
                sys.stdout.flush()
    found = [status for status in statuses if status != _NO_TESTS]
    return max(found, key=abs) if found else _NO_TESTS


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # Which the parts got too.
        sys.exit(130)
