"""One of two routers fails: the other one serves, and no answer is cut."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.field import Field, field
from tests.faults.figures import Figures
from tests.faults.plan import PLAN
from tests.faults.running import running_answers
from tests.faults.verdict import verdict

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTLE_SECONDS = 3.0
"""In which Envoy finds that a router is back: its health checks come once a second."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Field]:
    directory = tmp_path_factory.mktemp("two-routers")
    async with field(
        directory, routers=2, drain_delay_seconds=2, drain_timeout_seconds=2
    ) as running:
        yield running


async def test_the_loss_of_a_router_cuts_no_answer(gateway: Field, figures: Figures) -> None:
    first, second = gateway.routers
    async with gateway.load(rate=PLAN.rate) as load, running_answers(gateway, 30) as answers:
        await load.for_(1)
        at = time.monotonic()
        await first.kill()
        await load.for_(PLAN.seconds)
        await first.start()
        async with asyncio.timeout(60):
            while not await first.metric("lora_router_decision_seconds_count"):
                await load.for_(0.2)
    await gateway.until_idle()
    found = verdict([*load.seen, *answers.seen], at)
    figures.add("Routers fail", "1 of 2 routers is killed and started again", found)

    assert (found.cut, found.failed_before) == (0, 0), found
    assert found.lost <= found.sent // 100, found
    assert second.runs


async def test_a_router_that_is_stopped_is_passed_over(gateway: Field, figures: Figures) -> None:
    first, _ = gateway.routers
    async with gateway.load(rate=PLAN.rate) as load, running_answers(gateway, 30) as answers:
        await load.for_(1)
        at = time.monotonic()
        first.send(signal.SIGSTOP)
        await load.for_(PLAN.away_seconds)
        first.send(signal.SIGCONT)
        await load.for_(1)
    await gateway.until_idle()
    found = verdict([*load.seen, *answers.seen], at)
    figures.add("Routers fail", f"1 of 2 routers is stopped for {PLAN.away_seconds:g} s", found)

    assert (found.lost, found.cut, found.failed_before) == (0, 0, 0), found


async def test_a_rolling_restart_loses_and_cuts_nothing(gateway: Field, figures: Figures) -> None:
    async with (
        gateway.load(rate=PLAN.rate) as load,
        running_answers(gateway, 30, seconds=8) as answers,
    ):
        await load.for_(1)
        at = time.monotonic()
        for router in gateway.routers:
            router.send(signal.SIGTERM)
            assert await router.ended() == 0
            await router.start()
            await load.for_(SETTLE_SECONDS)
    await gateway.until_idle()
    found = verdict([*load.seen, *answers.seen], at)
    figures.add("Routers fail", "rolling restart of 2 routers", found)

    assert (found.lost, found.cut, found.failed_before) == (0, 0, 0), found


async def test_both_routers_are_killed_at_once(gateway: Field, figures: Figures) -> None:
    async with gateway.load(rate=PLAN.rate) as load, running_answers(gateway, 30) as answers:
        await load.for_(1)
        at = time.monotonic()
        await asyncio.gather(*(router.kill() for router in gateway.routers))
        await load.for_(1)
        await asyncio.gather(*(router.start() for router in gateway.routers))
        await load.for_(2)
    await gateway.until_idle()
    found = verdict([*load.seen, *answers.seen], at)
    figures.add("Routers fail", "2 of 2 routers are killed and started again", found)

    assert (found.lost, found.cut, found.failed_before) == (0, 0, 0), found
