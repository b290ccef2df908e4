"""One of two routers that are peers is killed: the other forgets all that it reported."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
import yaml

from tests.faults.field import Field, field
from tests.faults.figures import Figures
from tests.faults.plan import PLAN
from tests.faults.routers import Router
from tests.faults.running import running_answers
from tests.faults.verdict import verdict

pytestmark = pytest.mark.asyncio(loop_scope="module")

REPORTED = (
    "lora_router_peer_in_flight_requests",
    "lora_router_peer_in_flight_adapters",
    "lora_router_peer_held_adapters",
)
FORGOTTEN_SECONDS = 1.1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Field]:
    directory = tmp_path_factory.mktemp("peers")
    async with field(directory, pods=2, routers=2, prepare=make_peers) as running:
        yield running


def make_peers(router: Router) -> None:
    """Tell a router the addresses of all routers. It recognizes its own."""
    document = yaml.safe_load(router.file.read_text())
    document["peers"] = document["envoy_router_address"]
    router.file.write_text(yaml.safe_dump(document))


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    """Wait until something is true. Fails after a time."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_the_load_of_a_killed_router_is_forgotten_by_its_peer(
    gateway: Field, figures: Figures
) -> None:
    killed, other = gateway.routers

    async def reported() -> list[float]:
        return [await other.metric(name) for name in REPORTED]

    async def has_all() -> bool:
        return all(await reported())

    async def know_the_slots() -> bool:
        slots = [await router.metric("lora_router_slots") for router in gateway.routers]
        return slots == [len(gateway.pods)] * len(slots)

    async def is_alone() -> bool:
        return await other.metric("lora_router_peers") == 0

    # Six adapters for two slots, so that both routers hold requests.
    for pod in gateway.pods:
        await pod.become(slots=1)
    # The next scrape shows it. The answers last for seconds, and must not all have slots.
    await until(know_the_slots)
    async with gateway.load(rate=PLAN.rate / 3) as load, running_answers(gateway, 30) as answers:
        await until(has_all)
        at, logged = time.monotonic(), len(other.log.read_text())
        await killed.kill()
        await until(is_alone)
        left = await reported()
        await load.for_(1)
    await other.until_idle()
    found = verdict([*load.seen, *answers.seen], at)

    assert left == [0, 0, 0], "no ghost requests, slots or holds"
    # On a busy machine, it may have been silent before.
    said = other.log.read_text()[logged:]
    silent = [float(each) for each in re.findall(r"silent for ([\d.]+) s", said)]
    assert len(silent) == 1, said
    figures.bound(
        "A killed router's load is forgotten by its peer",
        f"{FORGOTTEN_SECONDS} s",
        f"{silent[0]} s",
    )
    # A busy machine may stall the loop, which measures that itself, ten times a second.
    lag = await other.metric("lora_router_loop_lag_seconds")
    assert 1.0 <= silent[0] <= FORGOTTEN_SECONDS + lag
    assert (found.cut, found.failed_before) == (0, 0), found


async def test_a_router_that_is_started_again_is_a_peer_again(gateway: Field) -> None:
    first, other = gateway.routers

    async def are_peers() -> bool:
        return [await each.metric("lora_router_peers") for each in (first, other)] == [1, 1]

    await until(are_peers)
    await first.kill()
    await first.start()
    await until(are_peers)
