"""The priority of a request: of its objective, or as a header states it."""

import pytest

from lora_router.routing.priorities import Priorities


def priorities() -> Priorities:
    found = Priorities()
    found.put({"chat": 10})
    return found


@pytest.mark.parametrize(
    ("stated", "priority"), [("5", 5), ("-1000", -1000), ("+7", 7), ("0", 0), ("1000", 1000)]
)
def test_a_header_takes_precedence(stated: str, priority: int) -> None:
    assert priorities().of("chat", stated) == priority


@pytest.mark.parametrize(
    "stated", ["high", "1001", "-1001", "1.5", "", "-", "1" * 5000, "٣", "1_0", " 1"]
)
def test_a_header_without_a_valid_priority_is_counted_and_ignored(
    stated: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = priorities()
    assert found.of("chat", stated) == 10
    assert found.of("chat", stated) == 10
    assert found.ignored == (2 if stated else 0)
    assert len(caplog.records) == bool(stated)


def test_a_request_without_either_has_the_default() -> None:
    assert priorities().of("unknown") == 0
