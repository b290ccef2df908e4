"""One run of ``make bench-fleet``: one of two routers is killed under load, and one is added."""

import sys

import pytest

from bench.live_case import ENOUGH_SLOTS, Case, play_with_change, trace_of

SECONDS = 6.0


@pytest.mark.skipif(sys.platform != "linux", reason="ends children with their parent")
async def test_a_router_is_killed_and_one_is_added_under_load() -> None:
    run, change = await play_with_change(
        Case(ENOUGH_SLOTS, "lora-placement", routers=2), SECONDS, seed=1
    )

    assert len(run.outcomes) == len(trace_of(ENOUGH_SLOTS, SECONDS, seed=1))
    lost = [outcome.error for outcome in run.outcomes if outcome.error is not None]
    assert len(lost) <= len(run.outcomes) // 100, lost
    assert change.ghosts == 0, "the other router believes nothing of the killed one any more"
    assert change.killed_at < change.added_at
