"""The pod for long simulations does what the step-by-step engine does, in fewer events."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from lora_router.simulator.engine import Engine, EngineOptions, EngineRequest
from lora_router.simulator.events import EventQueue
from lora_router.simulator.pod_model import PodModel, SimulatedRequest

Ask = tuple[float, str | None, int, int]
"""When, adapter, prompt tokens, output tokens."""

SMALL = EngineOptions(max_loras=2, max_cpu_loras=3, max_num_seqs=6)


def by_steps(options: EngineOptions, asks: Sequence[Ask]) -> list[tuple[float, float]]:
    """Return when each request had its first token and its last, step by step."""
    engine = Engine(options)
    requests = [EngineRequest(adapter, prompt, output, at) for at, adapter, prompt, output in asks]
    first: dict[EngineRequest, float] = {}
    last: dict[EngineRequest, float] = {}
    coming = sorted(requests, key=lambda request: request.arrived)
    now = 0.0
    while coming or engine.waiting or engine.running:
        while coming and coming[0].arrived <= now + 1e-9:
            engine.submit(coming.pop(0))
        step = engine.begin_step(now)
        if step is None:
            now = coming[0].arrived
            continue
        now += step.seconds
        for request in engine.end_step():
            first.setdefault(request, now)
            if request.finished:
                last[request] = now
    return [(first[request], last[request]) for request in requests]


def by_events(options: EngineOptions, asks: Sequence[Ask]) -> list[tuple[float, float]]:
    """The same, by the model for long simulations."""
    events = EventQueue()
    pod = PodModel("pod-0", options, events, lambda _request: None)
    requests = []
    for at, adapter, prompt, output in asks:
        request = SimulatedRequest(adapter or "base", adapter, prompt, output, at)
        requests.append(request)
        events.call_at(at, lambda request=request: pod.submit(request))  # type: ignore[misc]
    events.run(lambda: False)
    assert pod.load == 0
    assert pod.free_slots == options.max_loras
    return [(request.first_token, request.ended) for request in requests]


times = st.integers(0, 4000).map(lambda number: number / 1000 + 0.00037)
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


@settings(deadline=None, max_examples=150)
@given(asks)
def test_every_request_has_its_tokens_when_the_engine_has_them(asks: list[Ask]) -> None:
    expected = by_steps(SMALL, asks)

    for found, wanted in zip(by_events(SMALL, asks), expected, strict=True):
        assert abs(found[0] - wanted[0]) < 1e-6
        assert abs(found[1] - wanted[1]) < 1e-6


def test_a_load_that_does_not_block_delays_only_its_own_requests() -> None:
    options = EngineOptions(max_loras=2, loads_block=False, disk_load_seconds=1.5)
    [busy, cold] = by_events(options, [(0.0, "a1", 100, 200), (2.0, "a2", 100, 10)])

    assert 3.5 < cold[0] < 3.6
    assert busy[1] < 1.5 + 200 * 0.022


def test_five_adapters_on_two_slots_wait_for_whole_generations() -> None:
    """As measured on vLLM 0.32.0: a1 and a2 at once, a3 and a4 after them, a5 after those."""
    asks = [(0.0, f"a{number}", 10, 500) for number in range(1, 6)]
    options = EngineOptions(
        max_loras=2,
        step_seconds=0.010,
        step_seconds_per_request=0.0,
        host_load_seconds=0.0,
        disk_load_seconds=0.0,
    )

    first = [found[0] for found in by_events(options, asks)]
    assert max(first[:2]) < 0.05
    assert abs(first[2] - first[3]) < 0.05
    assert abs(first[2] - 5.1) / 5.1 < 0.25
    assert abs(first[4] - 9.9) / 9.9 < 0.25


def test_a_rare_adapter_starves_while_two_others_overlap() -> None:
    """As measured: one request of a1 and of a2 every 2 s; a3 gets its token when they stop."""
    options = EngineOptions(
        max_loras=2, step_seconds=0.010, host_load_seconds=0.0, disk_load_seconds=0.0
    )
    hot = [(2.0 * n + offset, name, 10, 300) for n in range(8) for name, offset in
           (("a1", 0.0), ("a2", 0.001))]  # fmt: skip
    found = by_events(options, [*hot, (1.0, "a3", 10, 10)])

    slowest_of_the_hot = max(first - ask[0] for (first, _), ask in zip(found, hot, strict=False))
    assert slowest_of_the_hot < 0.1
    assert found[-1][0] - 1.0 > 15


def test_what_does_not_fit_into_the_kv_cache_waits_and_so_do_those_behind() -> None:
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
