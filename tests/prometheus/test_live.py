"""Every expression of the dashboards and of the alerts, against routers that served requests."""

from typing import Any

import pytest

from tests.prometheus.conftest import Observed
from tests.prometheus.expressions import queries

pytestmark = pytest.mark.asyncio(loop_scope="session")

RATE_SECONDS = 60
"""Grafana's ``$__rate_interval``. All traffic is within it."""


async def test_no_alert_fires_after_ordinary_traffic(observed: Observed) -> None:
    # One request in each slot, and a second one that must wait and a third that is refused, are in it.
    assert observed.quiet.keys() <= {"LoraRouterRefusesRequests"}


async def page_names(observed: Observed) -> set[str]:
    found = set()
    for each in await observed.prometheus.ask("label/__name__/values"):
        found.add(each)
    return found


@pytest.mark.parametrize("query", queries(), ids=lambda each: each.place)
async def test_a_query(query: Any, observed: Observed) -> None:
    found = await observed.prometheus.query(query.filled(RATE_SECONDS))
    print(query.place, query.filled(60), found[:2])
    assert found
