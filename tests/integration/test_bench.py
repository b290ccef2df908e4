"""The smallest run of the bench has all its rows, goals and tables."""

import json
import sys
from dataclasses import asdict

import pytest

from bench.document import document
from bench.plan import BASE, Plan
from bench.processes import transports
from bench.results import goals
from bench.run import measure
from bench.wire import NOOP_SERVER, NOTHING, ROUTER

SMALLEST = Plan(
    bodies=(),
    connections=(),
    pods=(),
    algorithms=(BASE.algorithm,),
    adapters=20,
    base_rounds=1,
    seconds=0.2,
    warm_up=0.1,
    streams=40,
    starts=1,
    scraped_pods=3,
    settle_seconds=0.3,
    scrape_seconds=1.0,
    questions=20,
)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and has pods on 127.1.0.N")
async def test_a_run_has_a_row_for_each_way_through_the_gateway_and_says_what_was_reached() -> None:
    results = await measure(SMALLEST, parts=None)

    assert [(row.server, row.transport) for row in results.wire] == [
        (NOTHING, ""),
        *((server, name) for name in transports() for server in (NOOP_SERVER, ROUTER)),
    ]
    for row in results.wire:
        assert row.point == BASE
        assert row.requests >= BASE.connections
        assert row.p50_us <= row.p99_us
        assert row.not_routed == 0
        assert (row.cpu_us is None) == (row.server == NOTHING)
    assert [each.transport for each in results.starts] == list(transports())
    assert [each.streams for each in results.streams] == [40] * len(transports())
    never, often = results.scraped
    assert never.scrapes_per_second < often.scrapes_per_second
    # Fewer on a busy machine.
    assert 0.1 <= often.scrapes_per_second <= 6, "three pods, each once a second"

    told = json.dumps({**asdict(results), "goals": [asdict(goal) for goal in goals(results)]})
    assert "start to ready, 8 pods" in told
    page = document(results)
    assert "| CPU per request: 1 KB, 64 connections, 8 pods" in page
    assert "| 1 KB " not in page, "one point is no table of bodies"
