"""A pod with a prefix cache, chunked prefill and preemption, as vLLM's V1 engine has them."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.events import EventQueue
from lora_router.simulator.pod_model import PodModel
from lora_router.simulator.simulated_request import SimulatedRequest
from tests.examples import examples

STEP, TOKEN = 0.01, 0.0001
"""Seconds of a step, and of a prompt's token."""


def options(**others: object) -> EngineOptions:
    values: dict[str, object] = {
        "step_seconds": STEP,
        "step_seconds_per_request": 0.0,
        "prefill_seconds_per_token": TOKEN,
        "host_load_seconds": 0.0,
        "disk_load_seconds": 0.0,
        "max_num_seqs": 64,
        "prefix_caching": True,
    }
    return EngineOptions(**(values | others))  # type: ignore[arg-type]


class Pod:
    """A pod, and the requests that it got."""

    def __init__(self, **others: object) -> None:
        self.events = EventQueue()
        self.model = PodModel("pod-0", options(**others), self.events, lambda _request: None)

    def send(
        self,
        tokens: int,
        blocks: Sequence[int] = (),
        *,
        at: float = 0.0,
        adapter: str | None = None,
        answer: int = 1,
        block_tokens: int = 16,
    ) -> SimulatedRequest:
        request = SimulatedRequest(
            adapter or "base", adapter, tokens, answer, at, blocks, block_tokens
        )
        self.events.call_at(at, lambda: self.model.submit(request))
        return request

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        self.events.run(until)

    def usage_at(self, *times: float) -> list[float]:
        seen: list[float] = []
        for time in times:
            self.events.call_at(time, lambda: seen.append(self.model.metrics().kv_cache_usage or 0))
        self.run()
        return seen


def ttft(request: SimulatedRequest) -> float:
    return request.first_token - request.arrived


# The prefix cache


def test_a_prompt_computes_only_what_the_cache_lacks() -> None:
    pod = Pod()
    first = pod.send(1000, range(62))
    second = pod.send(1000, [*range(50), *range(100, 112)], at=1.0)
    pod.run()

    assert (first.cached_tokens, second.cached_tokens) == (0, 50 * 16)
    assert ttft(first) == pytest.approx(STEP + 1000 * TOKEN)
    assert ttft(second) == pytest.approx(STEP + 200 * TOKEN)


def test_without_a_prefix_cache_every_prompt_is_computed() -> None:
    pod = Pod(prefix_caching=False)
    pod.send(1000, range(62))
    again = pod.send(1000, range(62), at=1.0)
    pod.run()

    assert again.cached_tokens == 0
    assert ttft(again) == pytest.approx(STEP + 1000 * TOKEN)


def test_a_pod_tells_how_many_tokens_its_cache_has_room_for() -> None:
    assert Pod(kv_cache_tokens=60_000).model.metrics().cache_tokens == 60_000
    assert Pod(prefix_caching=False).model.metrics().cache_tokens == 0


def test_the_last_token_of_a_prompt_is_computed_although_it_is_cached() -> None:
    pod = Pod()
    pod.send(64, range(4))
    again = pod.send(64, range(4), at=1.0)
    pod.run()

    assert again.cached_tokens == 48


def test_the_base_model_and_each_adapter_have_their_own_blocks() -> None:
    pod = Pod()
    pod.send(160, range(10), adapter="a")
    others = [
        pod.send(160, range(10), adapter="b", at=1.0),
        pod.send(160, range(10), at=2.0),
    ]
    same = pod.send(160, range(10), adapter="a", at=3.0)
    pod.run()

    assert [other.cached_tokens for other in others] == [0, 0]
    assert same.cached_tokens == 144


def test_requests_in_flight_share_blocks_and_occupy_them_once() -> None:
    pod = Pod(kv_cache_tokens=1600)
    requests = [
        pod.send(800, [*range(40), *range(start, start + 10)], answer=100, at=0.001 * number)
        for number, start in enumerate((100, 200, 300))
    ]
    [usage] = pod.usage_at(0.5)

    assert [request.cached_tokens for request in requests] == [0, 640, 640]
    # 40 shared blocks; 10 blocks of its own and 7 for the answer for each request.
    assert usage == pytest.approx((40 + 3 * 17) / 100)


def test_of_two_that_begin_together_the_second_finds_what_the_first_computes_in_this_step() -> None:
    pod = Pod()
    pod.send(10)
    together = [pod.send(320, range(20), at=0.001) for _ in range(2)]
    pod.run()

    assert [request.cached_tokens for request in together] == [0, 304]
    assert together[0].first_token == together[1].first_token


def test_the_blocks_released_first_are_evicted_first_and_the_end_of_a_prompt_before_its_start() -> (
    None
):
    pod = Pod(kv_cache_tokens=100 * 16)
    pod.send(40 * 16, range(40))
    pod.send(40 * 16, range(100, 140), at=1.0)
    pod.send(40 * 16, at=2.0)  # Takes what is free, and then the end of the first prompt.
    first = pod.send(40 * 16, range(40), at=3.0)
    pod.run()

    # A request takes 41 blocks with its answer. Of 123 wanted 23 had to be evicted: the first one's
    # answer, and the last 22 blocks of its prompt.
    assert first.cached_tokens == 18 * 16


def test_a_block_that_is_found_again_stays_longer() -> None:
    pod = Pod(kv_cache_tokens=100 * 16)
    pod.send(40 * 16, range(40))
    pod.send(40 * 16, range(100, 140), at=1.0)
    again = pod.send(40 * 16, range(40), at=2.0)
    pod.send(20 * 16, at=3.0)
    last = pod.send(40 * 16, range(40), at=4.0)
    other = pod.send(40 * 16, range(100, 140), at=5.0)
    pod.run()

    assert again.cached_tokens == last.cached_tokens == 39 * 16
    assert other.cached_tokens < 39 * 16


def test_an_answer_is_found_if_the_trace_names_its_blocks() -> None:
    pod = Pod()
    pod.send(100, range(12), answer=100)  # 199 tokens are in the cache at the end: 12 blocks.
    pod.send(100, range(50, 56), answer=100, at=3.0)
    turns = [
        pod.send(250, range(15), at=6.0),
        pod.send(250, [*range(50, 56), *range(70, 80)], at=7.0),
    ]
    pod.run()

    assert [turn.cached_tokens for turn in turns] == [12 * 16, 6 * 16]


def test_usage_counts_what_requests_hold_and_not_what_is_kept() -> None:
    pod = Pod(kv_cache_tokens=1600)
    pod.send(800, range(50), answer=50)
    busy, idle = pod.usage_at(0.3, 5.0)

    assert busy == pytest.approx(0.54)
    assert idle == 0.0


# Chunked prefill


def test_a_long_prompt_takes_several_steps_and_others_get_their_tokens_in_between() -> None:
    pod = Pod(chunk_tokens=101, prefix_caching=False)
    short = pod.send(1, answer=40)
    long = pod.send(1000, at=0.005)
    pod.run()

    # 10 steps of 100 tokens for the prompt and a token for the other request.
    assert long.first_token == pytest.approx(short.first_token + 10 * (STEP + 100 * TOKEN))
    assert short.ended == pytest.approx(short.first_token + 39 * STEP + 1000 * TOKEN)


def test_what_a_prompt_leaves_of_a_step_goes_to_the_next_one() -> None:
    pod = Pod(chunk_tokens=100, prefix_caching=False)
    first, second, third = (pod.send(60, at=0.0) for _ in range(3))
    pod.run()

    whole = STEP + 100 * TOKEN
    assert first.first_token == pytest.approx(STEP + 60 * TOKEN)
    assert second.first_token == pytest.approx(first.first_token + whole)
    assert third.first_token == pytest.approx(second.first_token + STEP + 20 * TOKEN)


def test_the_part_of_a_prompt_that_was_computed_can_be_found() -> None:
    pod = Pod(chunk_tokens=160)
    pod.send(1600, range(100))
    # It gets its turn in the step with the last chunk's rest.
    same = pod.send(1601, range(100), at=0.001)
    pod.run()

    assert same.cached_tokens == 1600


# Preemption


def test_the_request_that_joined_last_is_preempted_and_ends_later() -> None:
    pod = Pod(kv_cache_tokens=40 * 16, preemption=True, prefix_caching=False)
    first = pod.send(160, answer=400)
    second = pod.send(160, answer=400, at=0.001)
    pod.run()

    assert pod.model.counts.preemptions == 1
    # The first one is not disturbed, but for the step with the second one's prompt.
    assert first.ended == pytest.approx(first.arrived + 400 * STEP + 320 * TOKEN)
    # The second one computes its prompt and 160 tokens or so again.
    again = second.ended - first.ended - (400 - 160) * STEP
    assert again == pytest.approx(320 * TOKEN, abs=2 * STEP)
    assert second.first_token < 0.1


def test_a_preempted_request_finds_its_own_blocks_again() -> None:
    def seconds(*, prefix_caching: bool) -> float:
        pod = Pod(kv_cache_tokens=40 * 16, preemption=True, prefix_caching=prefix_caching)
        pod.send(160, range(10), answer=200)
        second = pod.send(400, range(100, 125), answer=200, at=0.001)
        pod.run()
        assert pod.model.counts.preemptions == 1
        return second.ended

    # Both grew to 40 blocks: 12 and 28. The first one took 11 of the 28 before it ended.
    saved = seconds(prefix_caching=False) - seconds(prefix_caching=True)
    assert saved == pytest.approx(17 * 16 * TOKEN)


def test_what_nobody_holds_is_evicted_before_a_request_is_preempted() -> None:
    pod = Pod(kv_cache_tokens=100 * 16, preemption=True)
    pod.send(80 * 16, range(80))
    for _ in range(2):
        pod.send(10 * 16, answer=500, at=1.0)
    again = pod.send(80 * 16, range(80), at=20.0)
    pod.run()

    assert pod.model.counts.preemptions == 0
    # These two grew to 42 blocks each.
    assert again.cached_tokens == 16 * 16


def test_a_request_joins_if_its_prompt_fits_with_preemption_and_its_answer_too_without() -> None:
    for preemption in (False, True):
        pod = Pod(kv_cache_tokens=40 * 16, preemption=preemption)
        first = pod.send(10 * 16, answer=100)
        second = pod.send(10 * 16, answer=400, at=0.001)
        pod.run()
        assert (second.first_token < first.ended) is preemption


def test_a_request_larger_than_the_cache_runs_alone() -> None:
    pod = Pod(kv_cache_tokens=320, preemption=True, chunk_tokens=64)
    requests = [pod.send(500, answer=100, at=number * 0.01) for number in range(3)]
    pod.run()

    assert all(request.ended > 0 for request in requests)
    assert requests[0].ended <= requests[1].first_token


def test_usage_grows_with_the_tokens() -> None:
    pod = Pod(kv_cache_tokens=100 * 16, preemption=True)
    pod.send(160, answer=640)
    seen = pod.usage_at(*(STEP * tokens + 160 * TOKEN + 0.005 for tokens in (1, 2, 161, 321, 639)))

    assert seen == pytest.approx([0.11, 0.11, 0.21, 0.31, 0.5], abs=0.0101)


# Anything


blocks = st.builds(
    lambda session, length: [1000 * session + position for position in range(length)],
    st.integers(0, 3),
    st.integers(0, 14),
)
asks = st.lists(
    st.tuples(
        st.floats(0, 2),
        st.sampled_from([None, "a1", "a2", "a3"]),
        st.integers(1, 400),
        st.integers(1, 60),
        blocks,
    ),
    min_size=1,
    max_size=30,
)


@pytest.mark.slow
@examples(150)
@given(
    asks, st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([16, 48, 10])
)
def test_every_request_ends_and_the_cache_is_within_its_bounds(
    asked: list[tuple[float, str | None, int, int, list[int]]],
    prefix_caching: bool,
    chunked: bool,
    preemption: bool,
    loads_block: bool,
    block_tokens: int,
) -> None:
    pod = Pod(
        kv_cache_tokens=600,
        prefix_caching=prefix_caching,
        chunk_tokens=50 if chunked else None,
        preemption=preemption,
        loads_block=loads_block,
        disk_load_seconds=0.03,
        max_num_seqs=8,
        max_loras=2,
    )
    requests = [
        pod.send(tokens, names, at=at, adapter=adapter, answer=answer, block_tokens=block_tokens)
        for at, adapter, tokens, answer, names in asked
    ]
    cache = pod.model.kv_cache

    def within_bounds() -> bool:
        assert cache.used >= 0 <= cache.idle
        assert cache.used + cache.idle <= max(cache.capacity, cache.used)
        return False

    pod.run(within_bounds)
    assert all(request.ended >= request.first_token > request.arrived for request in requests)
    assert all(request.cached_tokens < request.prompt_tokens for request in requests)
    assert pod.model.load == 0
    assert cache.used == 0
    if not prefix_caching:
        assert cache.idle == 0
