"""Algorithms from outside that raise, lie or block: no request is lost."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.bad_algorithms import install
from tests.faults.field import Field, field
from tests.faults.figures import Figures
from tests.faults.plan import PLAN
from tests.faults.routers import Router
from tests.faults.verdict import verdict

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Field]:
    directory = tmp_path_factory.mktemp("plug-ins")
    packages = install(directory)

    def with_packages(router: Router) -> None:
        router.environment = {"PYTHONPATH": str(packages)}

    async with field(directory, pods=2, prepare=with_packages, max_hold_seconds=2) as running:
        yield running


@pytest.mark.parametrize("algorithm", ["raises", "lies"])
async def test_an_algorithm_that_fails_loses_no_request(
    gateway: Field, figures: Figures, algorithm: str
) -> None:
    router = gateway.router
    logged = len(router.log.read_text().splitlines())
    async with gateway.load(rate=PLAN.rate, algorithms=(algorithm, "")) as load:
        at = time.monotonic()
        await load.for_(PLAN.seconds)
    await gateway.until_idle()
    found = verdict(load.seen, at)
    _, page = await router.get("/metrics")
    lines = len(router.log.read_text().splitlines()) - logged
    figures.add(
        "Algorithms from outside fail", f"every second request asks for one that {algorithm}", found
    )

    assert found.lost == 0, found
    assert router.runs
    # Reasons are labels, and log lines have a rate.
    assert page.count("\nlora_router_requests_total{") <= 400
    assert lines <= 400


async def test_an_algorithm_that_blocks_is_found_and_loses_no_request(
    gateway: Field, figures: Figures
) -> None:
    router = gateway.router
    async with (
        gateway.load(rate=PLAN.rate) as load,
        gateway.load(rate=0.7, algorithms=("blocks",)) as blocked,
    ):
        at = time.monotonic()
        await load.for_(2 * PLAN.seconds)
        # On a busy machine, Envoy may pass the router over for some seconds.
        async with asyncio.timeout(60):
            while "block_here" not in router.log.read_text():
                await load.for_(0.5)
        assert (await router.get("/healthz"))[0] == 200
    await gateway.until_idle()
    found = verdict([*load.seen, *blocked.seen], at)
    figures.add(
        "Algorithms from outside fail", "one blocks the event loop for 0.8 s at a time", found
    )

    assert found.lost == 0, found
