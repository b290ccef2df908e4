"""What an alias stands for."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.routing.model_rewrites import ModelRewrites, Rewrite, Target

CANARY = Rewrite("gpt-small", (Target("v1", 90), Target("v2", 10)))


def test_a_name_without_a_rewrite_stands_for_itself() -> None:
    rewrites = ModelRewrites([CANARY])

    assert rewrites.target("gpt-large") == "gpt-large"
    assert rewrites.active
    assert not ModelRewrites().active


def test_requests_are_shared_by_weight() -> None:
    rewrites = ModelRewrites([CANARY], random.Random(1))

    counts = Counter(rewrites.target("gpt-small") for _ in range(10_000))

    assert 8_800 < counts["v1"] < 9_200
    assert counts["v1"] + counts["v2"] == 10_000


def test_a_weight_of_0_is_no_share() -> None:
    rewrites = ModelRewrites([Rewrite("a", (Target("v1", 0), Target("v2")))])

    assert {rewrites.target("a", key) for key in ("", *map(str, range(100)))} == {"v2"}


@pytest.mark.slow
def test_a_key_has_the_same_target_on_all_routers_and_keys_are_shared_by_weight() -> None:
    one, other = ModelRewrites([CANARY]), ModelRewrites([CANARY])
    keys = [f"user-{number}" for number in range(10_000)]

    targets = [one.target("gpt-small", key) for key in keys]

    assert [other.target("gpt-small", key) for key in keys] == targets
    assert 8_800 < targets.count("v1") < 9_200
    # From an earlier run: a restart changes nothing.
    assert [number for number in range(50) if targets[number] == "v2"] == [0, 4, 38, 40, 42, 46]


@pytest.mark.slow
def test_a_new_weight_moves_only_the_keys_that_it_must() -> None:
    more = Rewrite("gpt-small", (Target("v1", 80), Target("v2", 20)))
    before, after = ModelRewrites([CANARY]), ModelRewrites([more])
    keys = [f"user-{number}" for number in range(10_000)]

    moved = [
        key for key in keys if before.target("gpt-small", key) != after.target("gpt-small", key)
    ]

    assert all(after.target("gpt-small", key) == "v2" for key in moved)
    assert 800 < len(moved) < 1_400


def test_the_longest_prefix_counts_and_an_exact_name_before_it() -> None:
    rewrites = ModelRewrites(
        [
            Rewrite("*", (Target("any"),)),
            Rewrite("gpt-*", (Target("gpt"),)),
            Rewrite("gpt-4*", (Target("four"),)),
            Rewrite("gpt-4o", (Target("omni"),)),
        ]
    )

    names = ("gpt-4o", "gpt-4o-mini", "gpt-3", "claude")
    assert [rewrites.target(name) for name in names] == ["omni", "four", "gpt", "any"]


def test_other_rewrites_replace_all() -> None:
    rewrites = ModelRewrites([CANARY])

    rewrites.replace([Rewrite("b", (Target("c"),)), Rewrite("b", (Target("d"),))])

    assert [rewrites.target(name) for name in ("gpt-small", "b")] == ["gpt-small", "c"]


@pytest.mark.slow
@given(st.text(), st.text())
def test_any_name_and_any_key_have_a_target(name: str, key: str) -> None:
    rewrites = ModelRewrites([Rewrite("*", (Target("v1"), Target("v2")))])

    assert rewrites.target(name, key) in ("v1", "v2")
