"""Pods in order of load."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.load_order import LoadOrder
from lora_router.fleet.pod_state import PodState
from tests.fleet import make_pod

PODS = [PodState(make_pod(number)) for number in range(1, 41)]
CHANGES = st.lists(st.tuples(st.integers(0, 39), st.none() | st.integers(0, 30)), max_size=120)


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


def test_pods_with_the_same_load_are_all_found_about_as_often() -> None:
    order = LoadOrder()
    for pod in PODS:
        order.put(pod, 3)
    rng = random.Random(1)
    found = Counter(order.least(1, rng)[0] for _ in range(4000))
    assert all(50 < found[pod] < 170 for pod in PODS)
