"""The size of a host memory that nothing names, learned from how long loads take."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.answer import FROM_THE_POD, Answer
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.learned_size import FARTHEST, LearnedSize, needed_for
from lora_router.fleet.lora_spec import ASSUMED, LEARNED, LoraSpec
from lora_router.fleet.pod_state import PodState
from lora_router.simulator.adapter_slots import AdapterSlots
from lora_router.simulator.engine_options import EngineOptions
from tests.fleet import ManualClock, make_metrics, make_pod, state_of
from tests.parameters import mostly_slow

ANSWER = Answer(200, details=FROM_THE_POD)
NAMES = [f"a{number}" for number in range(24)]


def played(room: int, *, noise: float = 0.02, requests: int = 1500) -> PodState:
    """Return what a router knows of a pod with two slots after some requests.

    Args:
        room: How many adapters fit in the pod's host memory, which nothing tells the router.
        noise: By how many seconds first bytes vary.
        requests: How many requests, for adapters of different popularity.
    """
    options = EngineOptions(max_loras=2, max_cpu_loras=room)
    pod, clock, rng = AdapterSlots(options), ManualClock(), random.Random(1)
    fleet = Fleet()
    fleet.ledger.now = clock.now
    fleet.upsert(make_pod(1, lora=LoraSpec(slots=2)))
    state = state_of(fleet, 1)
    weights = [1 / (1 + number) for number in range(len(NAMES))]
    for number, name in enumerate(rng.choices(NAMES, weights, k=requests)):
        request = fleet.ledger.reserve(state, name, streamed=True)
        clock.advance(0.05 + pod.take(name, 0.0) + rng.random() * noise)
        request.answered(ANSWER)
        pod.leave(name)
        request.release()
        if number % 20 == 0:
            metrics = replace(make_metrics(max_lora=2, scraped_at=clock.now()), running=0.0)
            fleet.put_metrics(state, metrics)
    return state


@pytest.mark.parametrize("noise", mostly_slow([0.02, 0.4]))
@pytest.mark.parametrize("room", mostly_slow([8, 16]))
def test_a_larger_host_memory_is_found_out(room: int, noise: float) -> None:
    memory = played(room, noise=noise).beliefs.memory
    assert 0.75 * room <= memory.size <= room
    assert memory.source == LEARNED


@pytest.mark.parametrize("noise", [0.02, 0.4])
def test_what_is_assumed_stays_where_it_is_true(noise: float) -> None:
    memory = played(2, noise=noise).beliefs.memory
    assert (memory.size, memory.source) == (2, ASSUMED)


def test_the_times_of_loads_are_told_apart_although_the_size_was_not_known() -> None:
    _, host, disk = played(16).beliefs.load_seconds
    assert host == pytest.approx(0.08, rel=0.2)
    assert disk == pytest.approx(1.5, rel=0.1)


def test_pods_that_are_alike_learn_from_each_other() -> None:
    fleet = Fleet()
    for number, slots, base_model in (
        (1, 2, "llama"),
        (2, 2, "llama"),
        (3, 4, "llama"),
        (4, 2, "x"),
    ):
        fleet.upsert(make_pod(number, lora=LoraSpec(slots=slots), base_model=base_model))
    clock = ManualClock()
    fleet.ledger.now = clock.now
    first = state_of(fleet, 1)
    for name in ["a0"] * 10 + NAMES[:8] * 10:
        request = fleet.ledger.reserve(first, name, streamed=True)
        clock.advance(0.1)
        request.answered(ANSWER)
        request.release()
    for state in fleet:
        fleet.put_metrics(state, make_metrics(max_lora=state.pod.lora.slots))

    assert [state.beliefs.memory.size for state in fleet] == [8, 8, 4, 2]


LOADS = st.lists(st.tuples(st.integers(5, FARTHEST), st.booleans()), max_size=80)


@given(LOADS)
def test_the_size_is_one_that_a_load_showed_or_the_assumed_one(
    loads: list[tuple[int, bool]],
) -> None:
    size = LearnedSize(4)
    for needed, fast in loads:
        size.loaded(needed, fast=fast)
    assert size.size in {4, *(needed for needed, fast in loads if fast)}


@given(st.integers(4, 40), st.lists(st.integers(5, 80), min_size=60, max_size=90))
def test_what_loads_say_is_believed_if_they_agree(room: int, loads: list[int]) -> None:
    size = LearnedSize(4)
    for needed in loads:
        size.loaded(needed, fast=needed <= room)
    shown = [needed for needed in loads[-48:] if needed <= room]
    assert size.size == (max(shown) if len(shown) >= 4 else 4)


def test_a_smaller_memory_is_found_out_too() -> None:
    size = LearnedSize(4)
    for _ in range(20):
        size.loaded(16, fast=True)
    assert size.size == 16
    for needed in [*range(7, 20)] * 5:
        size.loaded(needed, fast=needed <= 10)
    assert size.size == 10


@pytest.mark.parametrize(
    ("adapter", "needed"), [("a0", 1), ("a5", 6), ("other", None), (f"b{FARTHEST}", None)]
)
def test_how_many_must_fit_for_an_adapter_to_be_there(adapter: str, needed: int | None) -> None:
    uses = [*NAMES, *(f"b{number}" for number in range(2 * FARTHEST))]
    assert needed_for(adapter, uses) == needed
