"""The only router fails, is short of something, or is away: requests are served all the same."""

import asyncio
import fcntl
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, suppress

import aiohttp
import pytest
import pytest_asyncio

from tests.faults.field import Field, field
from tests.faults.figures import Figures
from tests.faults.floods import Flood
from tests.faults.plan import PLAN
from tests.faults.pods import Pod, write_pods
from tests.faults.running import running_answers
from tests.faults.verdict import verdict

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Field]:
    directory = tmp_path_factory.mktemp("one-router")
    async with field(directory, drain_timeout_seconds=2) as running:
        yield running


async def test_no_answer_is_cut_and_no_request_lost_while_no_router_lives(
    gateway: Field, figures: Figures
) -> None:
    """Every pod serves every model here, so that Envoy's own choice is right, too."""
    router = gateway.router
    async with gateway.load(rate=PLAN.rate) as load, running_answers(gateway, 30) as answers:
        await load.for_(1)
        at = time.monotonic()
        await router.kill()
        await load.for_(PLAN.away_seconds)
        await router.start()
        await load.for_(2)
    await gateway.until_idle()
    found = verdict([*load.seen, *answers.seen], at)
    figures.add(
        "Routers fail", f"the only router is killed, back after {PLAN.away_seconds:g} s", found
    )

    assert (found.lost, found.cut, found.failed_before) == (0, 0, 0), found


async def test_no_client_can_choose_an_address_while_no_router_lives(gateway: Field) -> None:
    stranger = Pod("stranger")
    await stranger.start()
    names = ("target-pod", "x-gateway-destination-endpoint", "x-envoy-original-dst-host")
    await gateway.router.kill()
    try:
        async with aiohttp.ClientSession() as client:
            for name in names:
                async with client.post(
                    f"{gateway.url}/v1/completions",
                    json={"model": "base", "max_tokens": 1},
                    headers={name: stranger.address},
                ) as response:
                    assert response.status in {200, 503}
        assert (await stranger.become()).received == []
    finally:
        await stranger.end()


async def test_a_router_that_drains_and_comes_back_cuts_and_loses_nothing(
    gateway: Field, figures: Figures
) -> None:
    router = gateway.router
    async with gateway.load(rate=PLAN.rate) as load, running_answers(gateway, 30) as answers:
        await load.for_(1)
        at = time.monotonic()
        router.send(signal.SIGTERM)
        assert await router.ended() == 0
        await router.start()
        await load.for_(2)
    await gateway.until_idle()
    found = verdict([*load.seen, *answers.seen], at)
    figures.add("Routers fail", "the only router gets SIGTERM and is started again", found)

    assert (found.lost, found.cut, found.failed_before) == (0, 0, 0), found


async def test_a_router_that_is_stopped_loses_no_request(gateway: Field, figures: Figures) -> None:
    router = gateway.router
    async with gateway.load(rate=PLAN.rate) as load, running_answers(gateway, 30) as answers:
        await load.for_(1)
        at = time.monotonic()
        router.send(signal.SIGSTOP)
        await load.for_(PLAN.away_seconds)
        router.send(signal.SIGCONT)
        await load.for_(2)
    await gateway.until_well()
    await gateway.until_idle()
    found = verdict([*load.seen, *answers.seen], at)
    figures.add("Routers fail", f"the only router is stopped for {PLAN.away_seconds:g} s", found)

    assert (found.lost, found.cut, found.failed_before) == (0, 0, 0), found


async def test_sighup_reads_again_and_ends_nothing(gateway: Field, figures: Figures) -> None:
    router = gateway.router
    pid = router.pid
    async with gateway.load(rate=PLAN.rate) as load, running_answers(gateway, 10) as answers:
        await load.for_(0.5)
        at = time.monotonic()
        for left_out in range(3):
            listed = [pod for number, pod in enumerate(gateway.pods) if number != left_out]
            write_pods(gateway.pods_file, listed)
            router.send(signal.SIGHUP)
            await load.for_(0.3)
        write_pods(gateway.pods_file, gateway.pods)
        router.send(signal.SIGHUP)
        await load.for_(0.5)
    assert (router.runs, router.pid) == (True, pid)
    await gateway.until_well()
    await gateway.until_idle()
    found = verdict([*load.seen, *answers.seen], at)
    figures.add("Routers fail", "four SIGHUPs, each with another list of pods", found)

    assert (found.lost, found.cut, found.failed_before) == (0, 0, 0), found


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """A pipe that is full and that nobody reads."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    assert not fcntl.fcntl(writing, fcntl.F_GETFL) & os.O_NONBLOCK
    yield writing
    os.close(reading)
    os.close(writing)


async def test_a_log_that_nobody_reads_holds_up_no_request(
    gateway: Field, figures: Figures, full_pipe: int
) -> None:
    router = gateway.router
    await router.kill()
    await router.start(output=full_pipe, log_level="debug")
    await gateway.until_well()
    async with gateway.load(rate=PLAN.rate) as load:
        at = time.monotonic()
        await load.for_(PLAN.seconds)
        status, _ = await router.get("/healthz")
    await gateway.until_idle()
    found = verdict(load.seen, at)
    figures.add("Routers fail", "standard error is a full pipe, log_level=debug", found)

    assert status == 200
    assert (found.lost, found.waited) == (0, 0), found


async def test_a_router_without_file_descriptors_serves_on(
    gateway: Field, figures: Figures
) -> None:
    """Idle connections take all descriptors. No pod is blamed because it cannot be scraped."""
    router = gateway.router
    await router.kill()
    await router.start(limits={resource.RLIMIT_NOFILE: 64})
    await gateway.until_well()
    async with AsyncExitStack() as idle, gateway.load(rate=PLAN.rate) as load:
        at = time.monotonic()
        for _ in range(100):
            await take_connection(idle, router.grpc_port)
        await load.for_(PLAN.seconds)
    await gateway.until_idle()
    found = verdict(load.seen, at)
    figures.add("Routers fail", "the router is out of file descriptors", found)

    assert (found.lost, found.waited) == (0, 0), found
    assert {pod.name for pod in gateway.pods} <= {each.pod for each in load.seen}, found


async def take_connection(stack: AsyncExitStack, port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    stack.callback(writer.transport.abort)


async def test_a_memory_limit_is_not_met(gateway: Field, figures: Figures) -> None:
    """The limit is that of the chart, 1 GiB; 1.6 GB of unfinished messages are on their way."""
    router = gateway.router
    await router.kill()
    await router.start(limits={resource.RLIMIT_DATA: 1024 * MIB})
    await gateway.until_well()
    async with gateway.load(rate=PLAN.rate) as load:
        at = time.monotonic()
        floods = [await Flood.connected(router.grpc_port) for _ in range(8)]
        await send_all(floods)
        for flood in floods:
            flood.close()
        await load.for_(0.5)
    await gateway.until_idle()
    assert router.runs
    found = verdict(load.seen, at)
    figures.add("Routers fail", "1 GiB of memory, 1.6 GB of unfinished messages", found)

    assert found.lost == 0, found
    assert "MemoryError" not in router.log.read_text()


async def send_all(floods: Sequence[Flood]) -> None:
    await asyncio.gather(*(flood.send_unfinished(20 * MIB, 200 * MIB) for flood in floods))
