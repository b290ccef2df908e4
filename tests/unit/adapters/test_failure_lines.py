"""What the log says of adapters that pods cannot load."""

import re

import pytest

from lora_router.adapters.outcomes import LINES_PER_MINUTE
from tests.unit.adapters.loading import Loading, adapters

FAILS = re.compile(r"pod pod-1 cannot load adapter (a\d+): it is refused; next try in \d+ s")
BLOCKED = re.compile(r"pod (pod-\d+) cannot load adapters: it is cannot-load; next try in \d+ s")


class Lines:
    """The lines of the log, in the order in which they are written."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def found(self, pattern: re.Pattern[str]) -> list[str]:
        """Return the names in the lines that a pattern matches."""
        matches = (pattern.fullmatch(each.getMessage()) for each in self._caplog.records)
        return [match[1] for match in matches if match is not None]

    def said_where_all_are(self) -> int:
        """Return how often a line said where all failures are shown."""
        lines = (each.getMessage() for each in self._caplog.records)
        return sum("`lora-router adapters` shows all of them" in line for line in lines)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    return Lines(caplog)


def test_a_few_failures_are_named_once_each(lines: Lines) -> None:
    loading = Loading(1, memory=8, declared=adapters(3))
    loading.pods.answer = lambda _: "refused"
    loading.run(600)
    assert sorted(lines.found(FAILS)) == ["a0", "a1", "a2"]
    assert not lines.said_where_all_are()


def test_of_many_failures_some_are_named_each_minute_and_a_line_says_where_all_are(
    lines: Lines,
) -> None:
    many = 2 * LINES_PER_MINUTE + 10
    loading = Loading(1, memory=2 * many, declared=adapters(many))
    loading.pods.answer = lambda _: "refused"

    loading.run(55)
    assert len(lines.found(FAILS)) == LINES_PER_MINUTE
    assert lines.said_where_all_are() == 1

    loading.run(30 * 60)
    named = lines.found(FAILS)
    assert len(named) == len(set(named)) == many, "each is named once in the end"


def test_pods_that_take_no_calls_are_named_in_the_same_way(lines: Lines) -> None:
    pods = LINES_PER_MINUTE + 5
    loading = Loading(pods, memory=4, declared=adapters(1))
    loading.declarations.replace("file", adapters(pods))
    loading.pods.answer = lambda _: "cannot-load"

    loading.run(30)
    assert len(lines.found(BLOCKED)) == LINES_PER_MINUTE
    assert lines.said_where_all_are() == 1

    loading.run(60 * 60)
    named = lines.found(BLOCKED)
    assert len(named) == len(set(named)) == pods
