"""Where the time of the tests goes: ``make test ARGS="-p tests.costs"``, or ``make test-fast``.

It prints a row for each folder, and for the modules that used most: the CPU seconds of the tests
and of the processes that they started and awaited, the seconds that passed, and the number of
tests. Seconds without CPU are waiting, which costs nothing while another worker runs.
"""

import os
from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import PurePosixPath

import pytest

_MODULES = 40
"""How many modules have a row."""
_USED, _COLLECTED = "cpu_seconds", "cpu_seconds_before"


@dataclass(slots=True)
class _Cost:
    cpu: float = 0.0
    wall: float = 0.0
    tests: int = 0


class _Meter:
    """Reads the CPU seconds of this process and its awaited children since the last reading."""

    def __init__(self) -> None:
        self._last = 0.0

    def read(self) -> float:
        now = sum(os.times()[:4])
        used, self._last = now - self._last, now
        return used


_meter = _Meter()
_collected: list[tuple[str, object]] = []


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Keep the imports and the collection apart from the first test."""
    _collected.append((_COLLECTED, _meter.read()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write the CPU seconds into the report, which reaches the process that prints the table."""
    report = yield
    report.user_properties = [(_USED, _meter.read()), *_collected]
    _collected.clear()
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    folders: dict[str, _Cost] = defaultdict(_Cost)
    modules: dict[str, _Cost] = defaultdict(_Cost)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                module = report.nodeid.split("::")[0]
                folder = "/".join(PurePosixPath(module).parent.parts[:3])
                properties = {name: _number(value) for name, value in report.user_properties}
                for row in (folders[folder], modules[module]):
                    row.cpu += properties.get(_USED, 0.0)
                    row.wall += report.duration
                    row.tests += report.when == "call"
                folders["collection"].cpu += properties.get(_COLLECTED, 0.0)
    terminalreporter.section("CPU seconds, seconds, tests")
    _print(terminalreporter, {"all": _sum(folders), **folders})
    terminalreporter.write_line("")
    most = sorted(modules, key=lambda name: modules[name].cpu, reverse=True)[:_MODULES]
    _print(terminalreporter, {name: modules[name] for name in most})


def _number(value: object) -> float:
    return value if isinstance(value, float) else 0.0


def _sum(costs: dict[str, _Cost]) -> _Cost:
    rows = list(costs.values())
    return _Cost(
        sum(row.cpu for row in rows), sum(row.wall for row in rows), sum(row.tests for row in rows)
    )


def _print(reporter: pytest.TerminalReporter, costs: dict[str, _Cost]) -> None:
    for name, cost in sorted(costs.items(), key=lambda named: named[1].cpu, reverse=True):
        reporter.write_line(f"{cost.cpu:8.1f} {cost.wall:8.1f} {cost.tests:6} {name}")
