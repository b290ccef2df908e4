"""The figures of a run."""

import json
from dataclasses import asdict
from io import StringIO

import pytest
from rich.console import Console

from lora_router.simulator.figures import figures_table
from lora_router.simulator.fleet_simulation import FleetRun
from lora_router.simulator.goodput import Goodput, seconds_per_token
from lora_router.simulator.no_value import for_json, has_value
from lora_router.simulator.pod_model import PodCounts
from lora_router.simulator.simulated_request import SimulatedRequest
from lora_router.simulator.summary import Summary, median_of, summarise


def served(
    at: float, *, ttft: float = 0.5, tpot: float = 0.02, tokens: int = 11, cached: int = 0
) -> SimulatedRequest:
    request = SimulatedRequest("sql", "sql", 100, tokens, at)
    request.pod = "pod-0"
    request.cached_tokens = cached
    request.first_token = at + ttft
    request.ended = at + ttft + tpot * (tokens - 1)
    return request


def refused(at: float, *, after: float = 0.0) -> SimulatedRequest:
    request = SimulatedRequest("sql", "sql", 100, 10, at)
    request.ended = at + after
    return request


def figures(
    requests: list[SimulatedRequest], *turned_away: SimulatedRequest, limits: Goodput | None = None
) -> Summary:
    pods = [PodCounts(loads=0, evictions=0, deferred=0, routed=len(requests))]
    run = FleetRun(requests, pods, 100.0, 0, turned_away=turned_away)
    return summarise(run, 100.0, limits or Goodput())


def test_a_good_request_meets_both_limits() -> None:
    requests = [
        served(20.0),
        served(30.0, ttft=2.0, tpot=0.05),
        served(40.0, ttft=2.1),
        served(50.0, tpot=0.051),
    ]
    assert figures(requests).good == 0.5
    assert figures(requests, limits=Goodput(0.4, 0.05)).good == 0.0
    assert figures(requests, limits=Goodput(3.0, 0.1)).good == 1.0


def test_an_answer_of_one_token_has_no_time_per_further_token() -> None:
    assert seconds_per_token(served(0.0, tokens=1)) == 0.0
    assert seconds_per_token(served(0.0, tpot=0.03)) == pytest.approx(0.03)


def test_a_refused_request_is_not_good_and_has_no_time_to_first_token() -> None:
    found = figures([served(20.0), served(30.0, ttft=1.0)], refused(40.0), refused(50.0))

    assert (found.good, found.refused_share, found.refused) == (0.5, 0.5, 2)
    assert found.ttft["p99"] == 1.0


def test_the_longest_wait_ends_with_a_token_or_a_refusal_in_the_whole_run() -> None:
    early = served(1.0, ttft=9.0)
    assert figures([early, served(30.0)], refused(40.0, after=5.0)).longest_wait == 9.0
    assert figures([served(30.0)], refused(2.0, after=30.0)).longest_wait == 30.0


def test_prefix_hits_are_a_share_of_the_prompt_tokens_after_the_warm_up() -> None:
    requests = [served(1.0, cached=100), served(20.0, cached=80), served(30.0)]
    assert figures(requests).prefix_hits == pytest.approx(0.4)


def test_requests_of_the_warm_up_are_not_counted() -> None:
    found = figures([served(14.0, ttft=9.0), served(16.0)], refused(1.0))
    assert (found.good, found.refused_share, found.ttft["p99"]) == (1.0, 0.0, 0.5)


def test_where_all_are_refused_no_time_has_a_value() -> None:
    found = figures([], refused(20.0))

    assert (found.good, found.refused_share, found.longest_wait) == (0.0, 1.0, 0.0)
    times = (*found.ttft.values(), *found.end_to_end.values(), *found.tpot.values())
    assert not any(map(has_value, times))
    for figure in (found.slot_waits, found.held, found.loads, found.evictions, found.prefix_hits):
        assert not has_value(figure)
    assert not any(map(has_value, (found.imbalance, found.moved)))


def test_without_requests_no_share_has_a_value() -> None:
    found = figures([])

    for figure in (found.good, found.refused_share, found.longest_wait):
        assert not has_value(figure)


def test_an_adapter_counts_with_twenty_requests_after_the_warm_up() -> None:
    early = [served(1.0, ttft=9.0) for _ in range(10)]
    few = figures(early + [served(20.0 + each) for each in range(19)])
    enough = figures(early + [served(20.0 + each) for each in range(20)])

    assert not has_value(few.worst_adapter_p99)
    assert not has_value(few.median_adapter_p99)
    assert (enough.worst_adapter_p99, enough.median_adapter_p99) == (0.5, 0.5)


def test_what_has_no_value_is_a_dash_for_people_and_null_for_programs() -> None:
    found = figures([], refused(20.0))

    table = Console(width=400, file=StringIO())
    table.print(figures_table("x", "a scenario", {"random": found}, 400))
    assert isinstance(table.file, StringIO)
    row = table.file.getvalue().splitlines()[-1].split()
    assert row == [
        "random", "-", "-", "-", "-", "-", "0.0%", "100.0%", "-", "-", "0.0", "-", "-", "-", "-",
        "-", "-", "-",
    ]  # fmt: skip
    document = json.loads(json.dumps(for_json(asdict(found)), allow_nan=False))
    assert document["ttft"] == {"p50": None, "p95": None, "p99": None}
    assert (document["good"], document["worst_adapter_p99"]) == (0.0, None)


def test_seeds_without_a_value_do_not_count_for_the_median() -> None:
    runs = [figures([served(20.0, ttft=0.3)]), figures([], refused(20.0))]

    assert median_of(runs).ttft["p99"] == pytest.approx(0.3)
    assert not has_value(median_of(runs[1:]).ttft["p99"])


def test_several_seeds_give_the_median_of_each_figure() -> None:
    runs = [figures([served(20.0, ttft=ttft)]) for ttft in (0.1, 3.0, 0.3)]
    found = median_of(runs)

    assert found.ttft["p99"] == pytest.approx(0.3)
    assert found.good == 1.0
    assert isinstance(found.refused, int)
