"""60 declared adapters on 6 simulated pods behind a real Envoy, while everything changes.

``make bench-adapters`` does the same with 200 on 8 pods for longer, and prints how long each change
took. ``test_adapters_page.py`` loads 200.
"""

from pathlib import Path

import pytest

from bench.adapter_fleet import FleetPlan
from bench.adapters import measure

pytestmark = pytest.mark.envoy

GENEROUS_SECONDS = 30.0
"""For a busy machine. The bench says what a new adapter takes: below 2 s."""


async def test_no_request_fails_while_adapters_pods_and_sources_change(tmp_path: Path) -> None:
    plan = FleetPlan(pods=6, adapters=60, host_memory=20, rate=15.0)
    figures = await measure(plan, tmp_path, seconds=0.5)

    assert figures.outcomes.failed == []
    # Only requests that were on the pod that was killed may have been lost.
    assert figures.outcomes.cut <= 8
    assert figures.outcomes.statuses[200] > 25
    assert max(figures.new_served) < GENEROUS_SECONDS
