"""The pod for long simulations behaves like the step-by-step engine, with fewer events."""

import hashlib
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.events import EventQueue
from lora_router.simulator.pod_model import PodModel
from lora_router.simulator.simulated_request import SimulatedRequest
from tests.examples import examples
from tests.unit.simulator.models import (
    Ask,
    NamedAsk,
    by_events,
    by_steps,
    run_by_events,
    run_by_steps,
)

SMALL = EngineOptions(max_loras=2, max_cpu_loras=3, max_num_seqs=6)


# No request arrives at the end of a step, where rounding would decide which comes first. Steps end
# at multiples of 10 µs after an arrival, and no two of these times are a multiple of 10 µs apart.
times = st.integers(0, 4000).map(lambda number: number / 1000 * 1.0000007 + 0.00037)
asks = st.lists(
    st.tuples(
        times,
        st.sampled_from([None, "a1", "a2", "a3", "a4"]),
        st.integers(1, 400),
        st.integers(1, 40),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda ask: ask[0],
)


@examples(150)
@given(asks)
def test_every_request_gets_its_tokens_at_the_same_time_as_in_the_engine(asks: list[Ask]) -> None:
    expected = by_steps(SMALL, asks)

    for found, wanted in zip(by_events(SMALL, asks), expected, strict=True):
        assert abs(found[0] - wanted[0]) < 1e-6
        assert abs(found[1] - wanted[1]) < 1e-6


def conversations(span: int) -> st.SearchStrategy[list[NamedAsk]]:
    """Requests of a few conversations, whose blocks have ``span`` tokens."""
    return st.lists(
        st.builds(
            lambda at, adapter, session, turn, rest, answer, answers: NamedAsk(
                at,
                adapter,
                turn * span + rest,
                answer,
                # What follows the prompt is the answer, if a later turn contains it.
                range(1000 * session, 1000 * session + turn + (answer // span if answers else 0)),
                span,
            ),
            times,
            st.sampled_from([None, "a1", "a2", "a3"]),
            st.integers(0, 2),
            st.integers(0, 12),
            st.integers(1, 30),
            st.integers(1, 60),
            st.booleans(),
        ),
        min_size=1,
        max_size=30,
        unique_by=lambda ask: ask.at,
    )


behaviours = st.builds(
    EngineOptions,
    max_loras=st.just(2),
    max_cpu_loras=st.just(3),
    max_num_seqs=st.just(6),
    # No load ends at the end of a step either.
    disk_load_seconds=st.just(0.30003),
    host_load_seconds=st.just(0.08003),
    loads_block=st.booleans(),
    kv_cache_tokens=st.sampled_from([300, 1000, 3000]),
    block_tokens=st.sampled_from([1, 16]),
    prefix_caching=st.booleans(),
    chunk_tokens=st.sampled_from([None, 40, 200]),
    preemption=st.booleans(),
)


@pytest.mark.slow
@examples(200)
@given(behaviours, st.sampled_from([16, 48, 10]).flatmap(conversations))
def test_caching_chunking_and_preempting_are_those_of_the_engine(
    options: EngineOptions, asks: list[NamedAsk]
) -> None:
    if not options.counts_blocks:
        options = replace(options, kv_cache_tokens=1_000_000)  # The engine ignores its size.
    wanted, found = run_by_steps(options, asks), run_by_events(options, asks)

    assert found.cached_tokens == wanted.cached_tokens
    assert found.preemptions == wanted.preemptions
    assert found.loads == wanted.loads
    for got, expected in zip(found.tokens, wanted.tokens, strict=True):
        assert abs(got[0] - expected[0]) < 1e-6
        assert abs(got[1] - expected[1]) < 1e-6


@pytest.mark.parametrize(
    ("options", "digest"),
    [
        (EngineOptions(max_loras=2, max_cpu_loras=3, max_num_seqs=20), "455823e228fb210d"),
        (EngineOptions(max_loras=2, kv_cache_tokens=2000), "b42b5753e9faa3c5"),
    ],
)
def test_a_pod_without_a_prefix_cache_serves_as_it_did_before_there_was_one(
    options: EngineOptions, digest: str
) -> None:
    rng = random.Random(5)
    asks = [
        (
            rng.random() * 60,
            rng.choice([None, "a1", "a2", "a3", "a4"]),
            rng.randint(1, 400),
            rng.randint(1, 90),
        )
        for _ in range(500)
    ]
    # To the last digit: the figures of the documentation stay what they are.
    served = repr(by_events(options, asks)).encode()

    assert hashlib.sha256(served).hexdigest()[:16] == digest


def test_a_load_that_does_not_block_delays_only_its_own_requests() -> None:
    options = EngineOptions(max_loras=2, loads_block=False, disk_load_seconds=1.5)
    [busy, cold] = by_events(options, [(0.0, "a1", 100, 200), (2.0, "a2", 100, 10)])

    assert 3.5 < cold[0] < 3.6
    assert busy[1] < 1.5 + 200 * 0.022


def test_other_requests_join_while_a_pod_that_is_idle_otherwise_loads_an_adapter() -> None:
    options = EngineOptions(max_loras=2, loads_block=False, disk_load_seconds=1.5)
    cold, base = by_events(options, [(0.0, "a1", 100, 10), (0.1, None, 100, 10)])

    assert cold[0] > 1.5
    assert base[1] < 0.5


def test_a_request_that_does_not_fit_into_the_kv_cache_waits_with_those_behind_it() -> None:
    options = EngineOptions(kv_cache_tokens=1000, disk_load_seconds=0.0)
    big, small = by_events(
        options, [(0.0, None, 500, 100), (0.001, None, 800, 10), (0.002, None, 10, 10)]
    )[1:]

    assert big[0] > 100 * 0.02
    assert small[0] >= big[0]


def test_a_scrape_shows_adapters_from_their_first_token_and_never_those_that_wait() -> None:
    events = EventQueue()
    options = EngineOptions(max_loras=2, disk_load_seconds=0.0)
    pod = PodModel("pod-0", options, events, lambda _request: None)
    for adapter in ("a1", "a2", "a3"):
        pod.submit(SimulatedRequest(adapter, adapter, 10, 50, 0.0))
    before = pod.metrics()
    assert before.lora is not None
    assert before.lora.active == frozenset()

    events.call_at(0.1, lambda: None)
    events.run(lambda: events.time >= 0.1)
    metrics = pod.metrics(tells_residency=True)
    assert metrics.lora is not None
    assert metrics.lora.active == {"a1", "a2"}
    assert (metrics.running, metrics.waiting, metrics.deferred) == (2, 1, 1)
    assert metrics.residency is not None
    assert metrics.residency.gpu == {"a1", "a2"}


def test_the_page_counts_tokens_as_steps_end() -> None:
    events = EventQueue()
    pod = PodModel("pod-1", SMALL, events, on_end=lambda _request: None)
    pod.submit(SimulatedRequest("base", None, 10, 30, 0.0))
    pod.submit(SimulatedRequest("base", None, 10, 12, 0.0))
    counts: list[float | None] = []
    for second in (0.1, 0.2, 0.3, 5.0):
        events.call_at(second, lambda: counts.append(pod.metrics().generated_tokens))
    events.run(lambda: len(counts) == 4)
    assert counts[-1] == 42
    assert 0 < (counts[0] or 0) < (counts[1] or 0) < (counts[2] or 0) < 42
