"""The engine model in simulated time reproduces the observed behaviour of vLLM."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.simulator.engine import Engine, EngineRequest
from lora_router.simulator.engine_options import EngineOptions
from tests.unit.simulator.engine_run import ask, make

# Steps


def test_an_idle_engine_has_nothing_to_do() -> None:
    engine = Engine()
    assert engine.begin_step(0.0) is None
    assert engine.end_step() == ()


def test_every_running_request_gets_one_token_in_each_step() -> None:
    run = make()
    short, long = ask(None, tokens=2), ask(None, tokens=3)
    run.engine.submit(short)
    run.engine.submit(long)
    run.step()
    assert (short.generated, long.generated) == (1, 1)
    run.step()
    assert short.finished
    assert run.engine.running == [long]
    run.step()
    assert run.engine.running == []
    assert not run.step()


def test_a_step_takes_longer_with_more_requests_and_with_their_prompts() -> None:
    engine = Engine(
        EngineOptions(
            step_seconds=0.02, step_seconds_per_request=0.0005, prefill_seconds_per_token=0.001
        )
    )
    for _ in range(4):
        engine.submit(ask(None, prompt=10))
    first = engine.begin_step(0.0)
    assert first is not None
    assert first.seconds == pytest.approx(0.02 + 4 * 0.0005 + 40 * 0.001)
    engine.end_step()
    second = engine.begin_step(1.0)
    assert second is not None
    assert second.seconds == pytest.approx(0.02 + 4 * 0.0005)


def test_a_request_that_waits_for_a_full_batch_is_not_deferred() -> None:
    run = make(max_num_seqs=2)
    requests = [ask(None, tokens=5) for _ in range(3)]
    for request in requests:
        run.engine.submit(request)
    run.step()
    assert run.engine.running == requests[:2]
    assert run.engine.waiting == requests[2:]
    assert run.engine.deferred == 0
    assert run.engine.slot_waits == 0


# Slots


def test_a_request_without_a_slot_is_skipped_and_those_behind_it_run() -> None:
    run = make()
    a1, a2, a3, base, again = ask("a1"), ask("a2"), ask("a3"), ask(None), ask("a1")
    for request in (a1, a2, a3, base, again):
        run.engine.submit(request)
    run.step()
    assert run.engine.running == [a1, a2, base, again]
    assert run.engine.waiting == [a3]
    assert run.engine.deferred == 1
    assert a3.deferred
    assert "a3" not in run.engine.listed


def test_a_wait_for_a_slot_counts_once_however_long_it_is() -> None:
    run = make()
    run.play([ask("a1"), ask("a2"), ask("a3", tokens=1)])
    assert run.engine.slot_waits == 1
    assert run.engine.deferred == 0


def test_a_slot_is_free_only_when_every_request_of_its_adapter_has_ended() -> None:
    run = make(max_loras=1)
    short, long, other = ask("a1", tokens=5), ask("a1", tokens=20), ask("a2", tokens=1)
    run.play([short, long, other])
    assert run.first_token[other] == pytest.approx(0.21)


def test_an_idle_adapter_stays_in_its_slot_and_needs_no_load() -> None:
    run = make(host_load_seconds=0.08, disk_load_seconds=1.5)
    run.play([ask("a1", tokens=1)])
    assert run.engine.slots == {"a1": 0}
    assert run.engine.active == set()
    later = ask("a1", tokens=1, at=10.0)
    run.play([later])
    assert run.engine.loads == 1
    assert run.first_token[later] == pytest.approx(0.01)


def test_the_least_recently_used_adapter_is_evicted_from_its_slot() -> None:
    run = make()
    # a1 begins first and ends last, so a2 has been idle for longer.
    run.play([ask("a1", tokens=20), ask("a2", tokens=2, at=0.01)])
    run.play([ask("a3", at=run.now)])
    assert set(run.engine.slots) == {"a1", "a3"}


def test_an_active_adapter_never_loses_its_slot() -> None:
    run = make()
    run.play(
        [ask("a1", tokens=100), ask("a2", tokens=2), ask("a3", tokens=2), ask("a4", tokens=2)],
        until=0.3,
    )
    assert run.engine.active == {"a1"}
    assert run.engine.loads == 4


# Loads


def test_a_load_from_disk_then_from_host_memory() -> None:
    run = make(max_loras=1, host_load_seconds=0.08, disk_load_seconds=1.5)
    first, other = ask("a1", tokens=1), ask("a2", tokens=1, at=5.0)
    again = ask("a1", tokens=1, at=10.0)
    run.play([first, other, again])
    assert run.first_token[first] == pytest.approx(1.51)
    assert run.first_token[again] == pytest.approx(0.09)
    assert run.engine.loads == 3


def test_preloaded_adapters_are_in_host_memory() -> None:
    run = make(host_load_seconds=0.08, disk_load_seconds=1.5)
    run.engine.preload(["a1"])
    request = ask("a1", tokens=1)
    run.play([request])
    assert run.first_token[request] == pytest.approx(0.09)


def test_the_least_recently_used_adapter_is_evicted_from_host_memory() -> None:
    run = make(max_loras=1, max_cpu_loras=2, host_load_seconds=0.08, disk_load_seconds=1.5)
    requests = [
        ask(name, tokens=1, at=5.0 * number)
        for number, name in enumerate(["a1", "a2", "a1", "a3", "a1", "a2"])
    ]
    run.play(requests)
    waits = [round(run.first_token[request], 2) for request in requests]
    assert waits == [1.51, 1.51, 0.09, 1.51, 0.09, 1.51]


def test_an_idle_adapter_evicted_from_host_memory_leaves_its_slot_too() -> None:
    run = make(max_loras=2, max_cpu_loras=2)
    run.play([ask("a1", tokens=1), ask("a2", tokens=1, at=1.0)])
    run.engine.preload(["a9"])
    assert set(run.engine.slots) == {"a2"}
    assert set(run.engine.host_cache) == {"a2", "a9"}


def test_preloading_evicts_no_active_adapter() -> None:
    run = make(max_loras=2, max_cpu_loras=2)
    run.engine.submit(ask("a1"))
    run.engine.submit(ask("a2"))
    run.step()
    run.engine.preload(["a9"])
    assert set(run.engine.host_cache) == {"a1", "a2"}


def test_a_blocking_load_stalls_the_whole_batch() -> None:
    run = make(disk_load_seconds=1.5)
    base = ask(None, tokens=100)
    run.engine.submit(base)
    run.step()
    run.engine.submit(ask("a1"))
    before = run.now
    run.step()
    assert run.now - before == pytest.approx(1.51)


def test_a_load_that_does_not_block_delays_only_its_adapter() -> None:
    run = make(disk_load_seconds=1.5, loads_block=False)
    base, a1, second = ask(None, tokens=200), ask("a1"), ask("a1", at=0.5)
    run.play([base, a1, second])
    assert run.first_token[base] == pytest.approx(0.01)
    assert run.first_token[a1] == pytest.approx(1.51, abs=0.02)
    # Its adapter is in a slot, but not loaded yet.
    assert run.first_token[second] == pytest.approx(1.01, abs=0.02)


def test_an_engine_that_only_loads_takes_empty_steps() -> None:
    run = make(disk_load_seconds=1.5, loads_block=False)
    run.engine.submit(ask("a1"))
    step = run.engine.begin_step(0.0)
    assert step is not None
    assert step.scheduled == ()
    assert step.seconds > 0


# What the metrics report


def test_an_adapter_is_listed_from_its_first_token_until_its_last_request_ends() -> None:
    run = make()
    run.engine.submit(ask("a1", tokens=2))
    run.engine.begin_step(0.0)
    assert not run.engine.listed
    run.engine.end_step()
    assert list(run.engine.listed) == ["a1"]
    run.step()
    assert not run.engine.listed
    assert "a1" in run.engine.slots


def test_adapters_are_listed_in_the_order_of_their_first_tokens() -> None:
    run = make()
    run.play([ask("a1", tokens=4), ask("a2", at=0.015)], until=0.025)
    assert list(run.engine.listed) == ["a1", "a2"]
    run.play([ask("a1", at=0.05)], until=0.07)
    assert list(run.engine.listed) == ["a2", "a1"]


def test_cache_usage_grows_with_tokens_and_is_never_above_one() -> None:
    run = make(kv_cache_tokens=100)
    run.engine.submit(ask(None, prompt=49, tokens=5))
    run.step()
    assert run.engine.kv_cache_usage == 0.5
    run.engine.submit(ask(None, prompt=5000))
    run.step()
    assert run.engine.kv_cache_usage == 1.0


# The KV cache


def named(names: Iterable[int], *, prompt: int, tokens: int = 1, at: float = 0.0) -> EngineRequest:
    return EngineRequest(None, prompt, tokens, at, blocks=tuple(names))


def test_a_prompt_computes_only_what_the_prefix_cache_lacks() -> None:
    run = make(prefix_caching=True, prefill_seconds_per_token=0.001)
    first, second = named(range(6), prompt=100), named(range(6), prompt=100, at=1.0)
    run.play([first, second])

    assert run.first_token[first] == pytest.approx(0.11)
    assert run.first_token[second] == pytest.approx(0.01 + 4 * 0.001)
    assert (first.cached_tokens, second.cached_tokens) == (0, 96)
    assert (run.engine.prompt_tokens, run.engine.cached_tokens) == (200, 96)


def test_a_step_that_computes_a_part_of_a_prompt_gives_it_no_token() -> None:
    run = make(chunk_tokens=30, max_num_seqs=30)
    short, long = ask(None, tokens=5), ask(None, prompt=75)
    for request in (short, long):
        run.engine.submit(request)
    generated = []
    for _ in range(3):
        run.step()
        generated.append((short.generated, long.generated))

    assert generated == [(1, 0), (2, 0), (3, 1)]


def test_the_last_request_is_preempted_stays_listed_and_counts_once() -> None:
    run = make(prefix_caching=True, preemption=True, kv_cache_tokens=4 * 16)
    first, second = ask("a1", prompt=30, tokens=30), ask("a2", prompt=30, tokens=30)
    for request in (first, second):
        run.engine.submit(request)
    while not run.engine.preemptions:
        run.step()

    assert (run.engine.running, run.engine.waiting) == ([first], [second])
    assert list(run.engine.listed) == ["a1", "a2"]
    assert run.engine.active == {"a1"}
    run.play()
    assert (first.finished, second.finished, second.preemptions) == (True, True, 1)
    assert run.engine.prompt_tokens == 60
    assert run.engine.kv_cache_usage == 0.0
    assert not run.engine.listed


def test_what_was_aborted_leaves_its_blocks_to_be_found() -> None:
    run = make(prefix_caching=True, preemption=True, kv_cache_tokens=20 * 16)
    dropped = named(range(6), prompt=100, tokens=100)
    run.engine.submit(dropped)
    run.step()
    assert run.engine.kv_cache_usage == pytest.approx(7 / 20)
    run.engine.abort(dropped)
    run.step()
    assert run.engine.kv_cache_usage == 0.0
    later = named(range(6), prompt=100, at=run.now)
    run.play([later])

    assert later.cached_tokens == 96


def test_a_preempted_request_can_be_aborted() -> None:
    run = make(preemption=True, kv_cache_tokens=4 * 16)
    first, second = ask("a1", prompt=30, tokens=30), ask("a2", prompt=30, tokens=30)
    for request in (first, second):
        run.engine.submit(request)
    while not run.engine.preemptions:
        run.step()
    run.engine.abort(second)
    run.play()

    assert not second.finished
    assert not run.engine.listed
    assert run.engine.kv_cache_usage == 0.0


# Invalid options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_loras": 0}, "max_loras must be at least 1, not 0"),
        ({"max_num_seqs": 0}, "max_num_seqs must be at least 1"),
        ({"max_loras": 8, "max_cpu_loras": 4}, r"max_cpu_loras must be at least max_loras \(8\)"),
        ({"block_tokens": 0}, "block_tokens must be at least 1, not 0"),
        ({"chunk_tokens": 255}, r"chunk_tokens must be at least max_num_seqs \(256\), not 255"),
        (
            {"prefix_caching": True, "kv_cache_tokens": 15},
            r"kv_cache_tokens must be at least block_tokens \(16\), not 15",
        ),
        ({"step_seconds": -1.0}, "step_seconds must be seconds, 0 or more"),
        ({"disk_load_seconds": float("nan")}, "disk_load_seconds must be seconds"),
        (
            {"step_seconds": 0.0, "step_seconds_per_request": 0.0},
            "step_seconds must be above 0",
        ),
    ],
)
def test_an_invalid_option_is_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EngineOptions(**options)  # type: ignore[arg-type]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "a1", "a2", "a3", "a4"]),
            st.integers(1, 30),
            st.floats(0, 1),
            st.booleans(),
        ),
        max_size=30,
    ),
    st.booleans(),
)
def test_every_request_ends_and_slots_are_never_exceeded(
    load: list[tuple[str | None, int, float, bool]], loads_block: bool
) -> None:
    run = make(max_cpu_loras=3, disk_load_seconds=0.05, loads_block=loads_block)
    requests = [ask(adapter, tokens=tokens, at=at) for adapter, tokens, at, _ in load]
    run.play(requests, until=0.5)
    aborted = {request for request, entry in zip(requests, load, strict=True) if entry[3]}
    for request in aborted:
        if request.arrived <= 0.5:
            run.engine.abort(request)
    run.play()
    assert all(request.finished for request in requests if request not in aborted)
    assert run.max_active <= 2
    assert not run.engine.running
    assert not run.engine.waiting
    assert not run.engine.listed
    assert not run.engine.active
    assert len(run.engine.host_cache) <= 3
    assert set(run.engine.slots) <= set(run.engine.host_cache)
