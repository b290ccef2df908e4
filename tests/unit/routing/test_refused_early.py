"""Which requests were refused early and would still wait, had they not been refused."""

from lora_router.routing.refused_early import MOST_COUNTED, MOST_SECONDS, RefusedEarly


def test_each_counts_for_as_long_as_it_would_have_waited() -> None:
    refused = RefusedEarly()
    refused.add("a", 0, 0.0, 7.0)
    refused.add("b", 0, 1.0, 2.0)
    assert [refused.count(now, 0) for now in (2.9, 3.0, 6.9, 7.0)] == [2, 1, 1, 0]


def test_one_that_would_wait_for_long_does_not_keep_others_counted() -> None:
    refused = RefusedEarly()
    refused.add("first", 0, 0.0, 15.0)
    for number in range(500):
        refused.add(f"a{number}", 0, 0.0, 2.0)
    for _ in range(5):
        refused.count(10.0, 0)
    assert refused.count(10.0, 0) == 1


def test_the_pace_of_a_stall_is_believed_for_some_seconds() -> None:
    refused = RefusedEarly()
    refused.add("a", 0, 0.0, 20_000.0)
    assert refused.count(MOST_SECONDS - 0.1, 0) == 1
    assert refused.count(MOST_SECONDS, 0) == 0


def test_those_that_are_refused_again_count_once() -> None:
    refused = RefusedEarly()
    assert refused.add("a", 0, 0.0, 4.0)
    assert not refused.add("a", 0, 3.9, 4.0)
    assert refused.add("a", 0, 4.0, 4.0)
    assert refused.count(7.9, 0) == 1


def test_one_that_is_served_now_counts_no_more() -> None:
    refused = RefusedEarly()
    refused.add("a", 0, 0.0, 4.0)
    refused.served("a")
    assert refused.count(1.0, 0) == 0
    assert refused.add("a", 0, 1.0, 4.0)
    assert refused.count(4.5, 0) == 1
    assert refused.count(5.0, 0) == 0


def test_those_that_are_counted_are_bounded() -> None:
    refused = RefusedEarly()
    for number in range(2 * MOST_COUNTED):
        refused.add(number, 0, 0.0, 10.0)
    assert refused.count(1.0, 0) == MOST_COUNTED


def test_so_are_those_that_are_served_and_refused_again() -> None:
    refused = RefusedEarly()
    refused.add("other", 0, 0.0, 15.0)
    for _ in range(MOST_COUNTED + 10):
        refused.add("a", 0, 0.0, 10.0)
        refused.served("a")
    assert refused.count(1.0, 0) <= 1


def test_many_whose_time_has_passed_are_dropped_a_few_at_a_time() -> None:
    """Dropping thousands of them would make all other requests wait."""
    refused = RefusedEarly()
    for number in range(1000):
        refused.add(number, 0, 0.0, 2.0)
    refused.add("last", 0, 0.0, 9.0)
    counts = [refused.count(3.0, 0) for _ in range(9)]
    assert 800 < counts[0] < 1000
    assert counts[-1] == 1


def test_all_of_them_are_dropped_at_once_if_nobody_would_wait() -> None:
    refused = RefusedEarly()
    for number in range(1000):
        refused.add(number, 0, 0.0, 2.0)
    assert refused.count(2.0, 0) == 0


def test_those_of_a_lower_priority_do_not_count() -> None:
    refused = RefusedEarly()
    for number in range(10):
        refused.add(("low", number), -1, 0.0, 4.0)
    refused.add("high", 7, 0.0, 4.0)
    assert [refused.count(1.0, each) for each in (8, 7, 0, -1)] == [0, 1, 1, 11]
    assert refused.count(4.0, -1) == 0


def test_an_adapter_counts_with_its_highest_priority() -> None:
    refused = RefusedEarly()
    assert refused.add("a", -1, 0.0, 9.0)
    assert refused.add("a", 1, 1.0, 4.0)
    assert not refused.add("a", 0, 1.0, 9.0)
    assert [refused.count(2.0, each) for each in (1, -1)] == [1, 1]
    assert refused.count(5.0, -1) == 0


def test_of_one_priority_each_tenant_is_served_once_in_a_round() -> None:
    refused = RefusedEarly()
    for number in range(100):
        refused.add(number, 0, 0.0, 4.0, 7)
    refused.add("one", 0, 0.0, 4.0, 8)
    refused.add("higher", 1, 0.0, 4.0, 9)
    assert refused.of_tenant(0, 7) == 100
    assert [refused.count(1.0, 0, rounds) for rounds in (1, 2, 1000)] == [3, 5, 102]
    assert refused.count(1.0, 0) == 102


def test_tenants_whose_requests_would_wait_no_more_are_forgotten() -> None:
    refused = RefusedEarly()
    refused.add("a", 0, 0.0, 4.0, 7)
    refused.add("b", 0, 0.0, 9.0, 8)
    assert refused.count(5.0, 0, 5) == 1
    assert refused.of_tenant(0, 7) == 0
    refused.served("b")
    assert refused.count(5.0, 0, 5) == 0
