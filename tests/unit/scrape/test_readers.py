"""The routers that share the reads: who reads which pod, who takes part, who is believed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.scrape import readers as readers_module
from lora_router.scrape.readers import Readers

PODS = [f"pod-{number}" for number in range(300)]


def readers_of(name: str, *others: str) -> Readers:
    readers = Readers(name)
    for other in others:
        assert readers.heard(other, 0.25, 0.0)
    return readers


def test_all_routers_agree_on_who_reads_a_pod() -> None:
    names = ["one", "two", "three"]
    views = [readers_of(name, *(set(names) - {name})) for name in names]

    for pod in PODS:
        assert len({tuple(view.order(pod)) for view in views}) == 1


def test_pods_are_spread_evenly() -> None:
    view = readers_of("one", "two", "three")

    counts = Counter(view.order(pod)[0] for pod in PODS)

    assert set(counts) == {"one", "two", "three"}
    assert min(counts.values()) > 70


@given(st.sets(st.text(max_size=5), min_size=2, max_size=6))
def test_a_router_that_leaves_moves_only_its_own_pods(names: set[str]) -> None:
    first, *others = sorted(names)
    view = readers_of(first, *others)
    before = {pod: view.order(pod)[0] for pod in PODS[:30]}

    view.gone(others[-1])

    for pod, reader in before.items():
        assert reader in {view.order(pod)[0], others[-1]}


def test_who_is_silent_takes_no_part_until_it_tells_something_again() -> None:
    view = readers_of("one", "two")
    version = view.version

    view.expire(0.9)
    assert (len(view), view.version) == (1, version)
    view.expire(1.1)
    assert len(view) == 0
    assert view.version > version

    assert view.heard("two", 5.0, 2.0)
    view.expire(11.0)
    assert list(view) == ["two"], "two of its intervals"
    assert view.interval("two") == 5.0
    view.expire(12.1)
    assert len(view) == 0


def test_a_few_contradictions_among_many_audits_are_none() -> None:
    view = readers_of("one", "two")

    for number in range(200):
        assert not view.audited("two", number / 10, good=number % 10 != 0)


def test_repeated_contradictions_end_belief_for_a_while_that_grows() -> None:
    view = readers_of("one", "two")
    now, periods = 0.0, []
    for _ in range(8):
        while not view.audited("two", now, good=False):
            pass
        assert "two" not in view
        began = now
        while not view.heard("two", 0.25, now):
            now += 1.0
        periods.append(now - began)

    assert periods == [60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0]


def test_a_router_that_was_believed_for_an_hour_is_distrusted_for_a_minute_again() -> None:
    view = readers_of("one", "two")
    for now in (0.0, 100.0):
        while not view.audited("two", now, good=False):
            pass
    assert view.heard("two", 0.25, 220.0), "the second time was 120 s"

    now = 220.0 + 3601.0
    while not view.audited("two", now, good=False):
        pass

    assert not view.heard("two", 0.25, now + 59.0)
    assert view.heard("two", 0.25, now + 60.0)


def test_time_in_which_this_router_stalled_is_no_silence() -> None:
    view = readers_of("one", "two")

    view.excuse(4.0, 5.0)
    view.expire(5.0)
    assert list(view) == ["two"]

    view.expire(5.1)
    assert len(view) == 0, "it was silent for 1.1 s beside the stall"


def test_a_bad_name_is_not_lost_by_going_away() -> None:
    view = readers_of("one", "two")
    while not view.audited("two", 0.0, good=False):
        pass

    view.gone("two")
    view.expire(30.0)

    assert not view.heard("two", 0.25, 31.0)


def test_an_audit_of_a_router_that_is_gone_counts_nothing() -> None:
    view = readers_of("one", "two")
    view.gone("two")

    assert not view.audited("two", 0.0, good=False)
    assert view.interval("two") == 0.0


def test_there_are_not_more_readers_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers_module, "MAX_READERS", 2)
    view = readers_of("one", "two", "three")

    assert not view.heard("four", 0.25, 0.0)
    view.expire(500.0)
    assert view.heard("four", 0.25, 500.0)
