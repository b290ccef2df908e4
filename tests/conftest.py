"""What holds for all tests: their environment, their markers, and hypothesis' profiles."""

import gc
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.groups import rank, takes_long
from tests.outcome import Outcome
from tests.parts import is_elsewhere, outcome_file, skips_long, workers
from tests.surroundings import isolate

isolate()

# No deadline: a busy machine is no error of the code. Half the examples that hypothesis tries by
# itself: `make fuzz` (`thorough`) tries forty times as many. `ci` tries the same examples in each
# run, so that a change is not blamed for what another run would have found.
_SLOW = [HealthCheck.too_slow]
settings.register_profile("default", deadline=None, max_examples=50, suppress_health_check=_SLOW)
settings.register_profile(
    "fast", settings.get_profile("default"), max_examples=10, stateful_step_count=20
)
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
_SKIPPED = pytest.mark.skip("left to `make test ALL=1` and CI, because of the time")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of workers of ``-n auto``."""
    return workers(measures_coverage=bool(config.getoption("cov_source", default=None)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Return a scheduler that gives groups to workers in the order of the tests."""
    from tests.scheduling import GroupScheduling  # Not everywhere is there pytest-xdist.

    config.option.loadscopereorder = False
    return GroupScheduling(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage while tests are collected, and none of theirs afterwards.

    What is imported and collected stays until the end. Every full collection would visit it.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave modules out that another process of ``tests.parts`` runs."""
    return True if is_elsewhere(collection_path) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the folder that they are in, and sort them by when they begin.

    Modules that are named as arguments are collected whatever ``pytest_ignore_collect`` says.
    """
    items[:] = [item for item in items if not is_elsewhere(item.path)]
    for item in items:
        folder = item.path.relative_to(_TESTS).parts[0]
        if folder in _MARKS:
            item.add_marker(_MARKS[folder])
        if takes_long(item.nodeid):
            item.add_marker(pytest.mark.long)
            if skips_long():
                item.add_marker(_SKIPPED)
    items.sort(key=lambda item: rank(item.nodeid))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter,
) -> Generator[None, None, None]:
    """Print in the last lines, after pytest's own summary, what did not run."""
    yield
    outcome, file = Outcome.of(terminalreporter), outcome_file()
    if file is not None:
        outcome.write(file)
    else:
        for line in outcome.lines_of_not_run():
            terminalreporter.write_line(line, yellow=True)
