"""Servers close idle connections. No request is lost on a connection that is about to be closed."""

import asyncio
import random
import time
from pathlib import Path

from tests.faults.field import field
from tests.faults.figures import Figures
from tests.faults.load import Client, Seen
from tests.faults.plan import PLAN
from tests.faults.verdict import verdict

_AT_ONCE = 40


async def test_no_request_is_lost_when_pods_close_idle_connections(
    tmp_path: Path, figures: Figures
) -> None:
    """Each pause between bursts is of another length, below and above what the pods allow."""
    keep_alive = PLAN.keep_alive_seconds
    seen: list[Seen] = []
    chance = random.Random(1)
    began = time.monotonic()
    async with field(tmp_path, pods=2, envoy_pod_idle_seconds=PLAN.envoy_idle_seconds) as running:
        for pod in running.pods:
            await pod.become(keep_alive_seconds=keep_alive)
        client = Client(running.url)
        for _ in range(PLAN.bursts):
            seen += await asyncio.gather(
                *(client.complete("base", "random", pause=0) for _ in range(_AT_ONCE))
            )
            await asyncio.sleep(keep_alive * chance.uniform(0.3, 1.2))
        await client.close()
        await running.until_idle()
    found = verdict(seen, began)
    figures.add("A pod fails", f"pods close connections after {keep_alive:g} s", found)

    assert found.lost == 0, found
