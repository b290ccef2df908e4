"""Routers with known traffic, and a Prometheus that scrapes them. All tests share them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from deploy.grafana.prometheus_process import Prometheus
from tests.prometheus.expressions import GRAFANA
from tests.prometheus.server import program
from tests.prometheus.traffic import Traffic, running

BUSY_MACHINE = {"LoraRouterLoopLags", "LoraRouterLoopStalls"}
"""Alerts that fire because of other processes."""

INTERVAL = "4s"
"""Of scrapes, each of which may take as long. On a busy machine they take more than a second."""


@dataclass
class Observed:
    """What Prometheus saw."""

    traffic: Traffic
    prometheus: Prometheus
    at: float = 0.0
    """When all series were there after all traffic, in Unix seconds. On a busy machine, a scrape
    takes longer than it may now and then, and there are none until the next one."""
    was_quiet: bool = False
    """Whether no alert fired while all was well."""
    fired: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The alerts that fired since then, also those that fire no longer, by name."""


def impatient_rules(folder: Path) -> Path:
    """Write the alerts, which fire at once instead of after some minutes."""
    document = yaml.safe_load((GRAFANA / "alerts.yaml").read_text())
    for group in document["groups"]:
        for rule in group["rules"]:
            del rule["for"]
    path = folder / "impatient.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def observed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Observed]:
    """Routers after ordinary traffic, held and refused requests, and a pod that fails."""
    program("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    rules = impatient_rules(folder)
    async with (
        running(folder) as traffic,
        Prometheus(folder, traffic.targets, rules, interval=INTERVAL) as prometheus,
    ):
        seen = Observed(traffic, prometheus)
        # Everything twice, because a series that has just begun has no rate.
        for _ in range(2):
            await traffic.ordinary()
            await prometheus.scraped()
        await prometheus.until_quiet(except_for=BUSY_MACHINE)
        seen.was_quiet = True
        noting = asyncio.create_task(prometheus.note_firing(seen.fired))
        for _ in range(2):
            await traffic.held_and_refused()
            await prometheus.scraped()
        await traffic.fail()
        await prometheus.scraped(2)
        seen.at = await prometheus.complete_at()
        yield seen
        noting.cancel()
        with suppress(asyncio.CancelledError):
            await noting
