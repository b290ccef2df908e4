"""The parts of the request path that are measured alone: each of them does what it is named for."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from bench import builtin_requests, fleets, lower_bounds, parts
from bench.large_fleet import LargeFleet
from bench.outside_algorithm import FewestRequests
from lora_router.routing.registry import installed
from lora_router.simulator.scenario import shipped_scenario
from lora_router.simulator.trace import make_trace

pytestmark = pytest.mark.slow
CALLS = 40
"""More than there are requests in flight, so that requests end, too."""


@contextmanager
def every_error_raised() -> Iterator[None]:
    """Let errors that are logged fail the test, as they end the bench."""
    logger, handler = logging.getLogger("lora_router"), parts.EndsAtErrors()
    extproc = logging.getLogger("lora_router.extproc")
    level = extproc.level
    logger.addHandler(handler)
    extproc.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        extproc.setLevel(level)


def test_an_error_of_the_router_ends_the_bench() -> None:
    with every_error_raised(), pytest.raises(RuntimeError, match="this part failed: it broke"):
        logging.getLogger("lora_router.grpc_server").error("it %s", "broke")


def test_each_part_runs_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def call_a_few_times(call: Callable[[], object], _rounds: int) -> float:
        for _ in range(CALLS):
            call()
        return 1.0

    small = partial(fleets.BenchFleet, adapter_count=100)
    monkeypatch.setattr(parts, "microseconds", call_a_few_times)
    monkeypatch.setattr(parts, "_FIRST", 3)
    monkeypatch.setattr(parts, "BenchFleet", small)
    monkeypatch.setattr(builtin_requests, "BenchFleet", small)
    monkeypatch.setattr(builtin_requests, "MESSAGES", 50)
    monkeypatch.setattr(fleets, "_ASKED", 200)
    with every_error_raised():
        rows = parts.measure(1, (1_000,), (8,))

    assert "the same, with a session that decides nothing" in rows
    for name in (*installed(), FewestRequests.name):
        assert {f"decision, {name}, 8 pods", f"routed, {name}, 8 pods"} <= rows.keys()


def test_a_large_fleet_decides_with_free_slots_and_without() -> None:
    with every_error_raised():
        free = LargeFleet(1_000, pods=8, adapter_count=64)
        full = LargeFleet(1_000, pods=8, adapter_count=64, is_full=True)
        for fleet in (free, full):
            for asked in fleet.decisions().values():
                fleet.asking(asked)()

    assert "no-slot" not in free.decisions()
    assert "no-slot" in full.decisions()


def test_no_router_can_be_better_than_the_lower_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower_bounds, "SECONDS", 20.0)
    scenario = shipped_scenario("b-zipf")
    trace = list(make_trace(scenario.workload, rate=4.0, seconds=20.0, seed=1))

    bounds = lower_bounds.lower_bounds(scenario, trace, seed=1)

    assert 0 < bounds.loads_knowing_the_future <= bounds.loads_knowing_popularity + 1000
    assert 0 < bounds.p99 < 5
