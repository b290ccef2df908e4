"""Rendezvous hashing."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.rendezvous import precedes, rendezvous_order
from tests.fleet import make_pod

ADAPTERS = [f"adapter-{number}" for number in range(2000)]


def make_pods(count: int) -> list[PodState]:
    return [PodState(make_pod(number)) for number in range(1, count + 1)]


def names(pods: Sequence[PodView]) -> list[str]:
    return [pod.pod.name for pod in pods]


def test_every_pod_is_in_the_order() -> None:
    assert sorted(names(rendezvous_order("a", make_pods(5)))) == [f"pod-{n}" for n in range(1, 6)]


def test_of_two_pods_the_one_that_is_first_in_the_order_precedes_the_other() -> None:
    order = rendezvous_order("a", make_pods(8))
    assert all(precedes("a", *pair) for pair in pairwise(order))
    assert not any(precedes("a", *pair) for pair in pairwise(reversed(order)))


def test_the_sequence_in_which_pods_are_given_does_not_matter() -> None:
    pods = make_pods(8)
    order = rendezvous_order("a", pods)

    for seed in range(10):
        random.Random(seed).shuffle(pods)
        assert rendezvous_order("a", pods) == order


def test_a_count_returns_only_the_first_pods() -> None:
    pods = make_pods(8)
    order = rendezvous_order("a", pods)

    assert rendezvous_order("a", pods, 3) == order[:3]
    assert rendezvous_order("a", pods[:1], 3) == pods[:1]


@pytest.mark.slow
def test_the_order_is_the_same_in_every_process() -> None:
    program = (
        "from tests.unit.routing.test_rendezvous import make_pods, names, rendezvous_order\n"
        "print(*names(rendezvous_order('sql-lora', make_pods(6))))"
    )

    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[0]
        for seed in ("1", "2")
    }

    assert printed == {names(rendezvous_order("sql-lora", make_pods(6)))[0]}


def test_the_order_is_the_same_in_every_release() -> None:
    """Routers of two releases run side by side during an update."""
    assert names(rendezvous_order("sql-lora", make_pods(4))) == [
        "pod-1",
        "pod-4",
        "pod-3",
        "pod-2",
    ]


def test_first_places_are_spread_evenly() -> None:
    pods = make_pods(8)

    firsts = Counter(rendezvous_order(adapter, pods)[0].pod.name for adapter in ADAPTERS)

    assert len(firsts) == 8
    assert all(200 < count < 300 for count in firsts.values())


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(2, 12), st.data())
def test_a_pod_that_leaves_changes_no_other_pods_places(
    adapter: str, count: int, data: st.DataObject
) -> None:
    pods = make_pods(count)
    leaver = data.draw(st.sampled_from(pods))

    left = rendezvous_order(adapter, [pod for pod in pods if pod is not leaver])

    assert left == [pod for pod in rendezvous_order(adapter, pods) if pod is not leaver]


def test_a_pod_that_comes_back_as_another_server_has_the_place_of_its_name() -> None:
    pods = make_pods(4)
    order = names(rendezvous_order("a", pods))
    again = make_pods(4)

    found = rendezvous_order("a", again)

    assert names(found) == order
    assert all(pod in again for pod in found)
