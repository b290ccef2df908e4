"""What holds for all tests: their environment, their markers, and hypothesis' profiles."""

import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.surroundings import isolate

isolate()

# No deadline: a busy machine is no error of the code. `ci` tries the same examples in each run, so
# that a change is not blamed for what another run would have found; `thorough` is `make fuzz`.
_SLOW = [HealthCheck.too_slow]
settings.register_profile("default", deadline=None, suppress_health_check=_SLOW)
settings.register_profile("fast", settings.get_profile("default"), max_examples=10)
settings.register_profile(
    "ci", settings.get_profile("default"), derandomize=True, database=None, print_blob=True
)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

_TESTS = Path(__file__).parent
_MARKS = {
    "integration": pytest.mark.envoy,
    "prometheus": pytest.mark.envoy,
    "clients": pytest.mark.envoy,
    "faults": pytest.mark.envoy,
    "kube": pytest.mark.kube,
    "image": pytest.mark.slow,
}
"""By folder."""
_ONE_WORKER = {
    "kube": "kube",
    "image": "image",
    "prometheus/test_live.py": "prometheus",
    "faults/test_certificates.py": "faults of routers",
    "faults/test_clients.py": "faults of clients",
    "faults/test_keep_alive.py": "faults of clients",
    "faults/test_one_router.py": "faults of routers",
    "faults/test_plug_ins.py": "faults of clients",
    "faults/test_pod_pages.py": "faults of pages",
    "faults/test_pods.py": "faults of pods",
    "faults/test_two_routers.py": "faults of routers",
    "integration/test_bench.py": "whole machine",
    "integration/test_demo.py": "whole machine",
}
"""Folders and modules whose tests run one after the other.

They share something that takes long to make (an API server, an image), or each of them starts so
many processes that two at a time would run out of time.
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the folder that they are in.

    First of all, because pytest-xdist reads the groups in the same hook.
    """
    for item in items:
        path = item.path.relative_to(_TESTS)
        for place in (path.parts[0], str(path)):
            if place in _MARKS:
                item.add_marker(_MARKS[place])
            if place in _ONE_WORKER:
                item.add_marker(pytest.mark.xdist_group(_ONE_WORKER[place]))
        # A module there starts its gateway once, so one worker runs the whole module.
        if path.parts[0] == "integration" and str(path) not in _ONE_WORKER:
            item.add_marker(pytest.mark.xdist_group(str(path)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter,
) -> Generator[None, None, None]:
    """Print in the last lines, after pytest's own summary, what did not run."""
    yield
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.getreports("skipped")
        if isinstance(report.longrepr, tuple)
    )
    for reason, count in sorted(reasons.items()):
        tests = "1 test" if count == 1 else f"{count} tests"
        terminalreporter.write_line(f"NOT RUN: {tests}: {reason}", yellow=True)
