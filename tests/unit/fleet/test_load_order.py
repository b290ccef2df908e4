"""Pods in order of load."""

import random
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.load_order import LoadOrder
from lora_router.fleet.pod_state import PodState
from tests.fleet import make_pod

PODS = [PodState(make_pod(number)) for number in range(1, 41)]
LOADS = st.integers(0, 30) | st.sampled_from((10**6, 10**12, 10**18))
"""Mostly small ones. Pods and peers state what they want."""
CHANGES = st.lists(st.tuples(st.integers(0, 39), st.none() | LOADS), max_size=120)


@given(CHANGES, st.integers(1, 5), st.sets(st.integers(0, 39)), st.booleans())
def test_it_returns_what_sorting_would_find(
    changes: list[tuple[int, int | None]], count: int, chosen: set[int], narrowed: bool
) -> None:
    order = LoadOrder()
    loads: dict[PodState, int] = {}
    for number, load in changes:
        pod = PODS[number]
        if load is None:
            order.remove(pod)
            loads.pop(pod, None)
        else:
            order.put(pod, load)
            loads[pod] = load
        assert len(order) == len(loads)
        assert order.total == sum(loads.values())

    among = {PODS[number] for number in chosen} if narrowed else None
    eligible = [pod for pod in loads if among is None or pod in among]
    found = order.least(count, random.Random(1), among)

    assert len(set(found)) == len(found)
    assert set(found) <= set(eligible)
    assert [loads[pod] for pod in found] == sorted(loads[pod] for pod in eligible)[:count]
    most = order.most()
    assert most is None if not loads else loads[most] == max(loads.values())  # type: ignore[index]


def steps_of(call: Callable[[], object]) -> int:
    """Return how many instructions of Python a call takes."""
    steps = 0

    def count(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        call()
    finally:
        sys.settrace(before)
    return steps


@pytest.mark.parametrize("stated", [10, 10**4, 10**6])
def test_a_load_that_a_pod_states_costs_the_same_whatever_it_is(stated: int) -> None:
    order = LoadOrder()
    rng = random.Random(1)

    def work() -> None:
        for pod in PODS[:3]:
            order.put(pod, 1)
        order.put(PODS[0], stated)
        order.least(3, rng)  # All three, up to the load that was stated.
        order.most()
        order.put(PODS[0], 0)
        order.most()  # The load is gone.
        order.put(PODS[1], stated)
        order.put(PODS[2], stated)
        order.remove(PODS[0])
        order.least(1, rng)
        for pod in PODS[1:3]:
            order.remove(pod)
        order.put(PODS[0], 0)
        order.least(2, rng)  # More than there are.

    assert steps_of(work) < 4_000


def test_pods_with_the_same_load_are_all_found_about_as_often() -> None:
    order = LoadOrder()
    for pod in PODS:
        order.put(pod, 3)
    rng = random.Random(1)
    found = Counter(order.least(1, rng)[0] for _ in range(4000))
    assert all(50 < found[pod] < 170 for pod in PODS)
