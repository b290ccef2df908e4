"""Pods whose pages nobody should write, and lists of pods and models that change under load."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.faults.field import Field, field
from tests.faults.figures import Figures
from tests.faults.load import Client
from tests.faults.plan import PLAN
from tests.faults.pods import ADAPTERS, Pod, write_pods
from tests.faults.routers import Router
from tests.faults.verdict import p99, verdict

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Field]:
    directory = tmp_path_factory.mktemp("pages")
    async with field(
        directory, outlier_max_ejection_seconds=2, models_refresh_interval_seconds=1
    ) as running:
        yield running


@dataclass(frozen=True)
class Pages:
    """Pages that nobody should write. The pods that are not named write good ones."""

    about: str
    by_pod: tuple[Mapping[str, str], ...]


def of_all(**pages: str) -> tuple[Mapping[str, str], ...]:
    return (pages,) * 4


@pytest.mark.parametrize(
    "pages",
    [
        Pages("8 MB of new series on each metrics page", ({"metrics": "huge"},)),
        Pages(
            "metrics pages without end, and none at all",
            ({"metrics": "endless"}, {"metrics": "silent"}),
        ),
        Pages(
            "a models page of 200,000 models, and one without end",
            ({"models": "huge"}, {"models": "endless"}),
        ),
        Pages("a number of 4,000 digits on all metrics pages", of_all(metrics="digits")),
        Pages("500 for all metrics pages", of_all(metrics="error")),
        Pages("no models on any models page, with status 200", of_all(models="empty")),
        Pages("garbage for all pages", of_all(metrics="garbage", models="garbage")),
    ],
    ids=lambda pages: pages.about,
)
async def test_pages_that_nobody_should_write_cost_no_request(
    gateway: Field, figures: Figures, pages: Pages
) -> None:
    router = gateway.router
    before = router.memory()
    async with gateway.load(rate=PLAN.rate) as load:
        began, cpu = time.monotonic(), router.cpu_seconds()
        await load.for_(PLAN.seconds / 2)
        at = time.monotonic()
        usual = (router.cpu_seconds() - cpu) / (at - began)
        for pod, changes in zip(gateway.pods, pages.by_pod, strict=False):
            await pod.become(**changes)
        broken, cpu = time.monotonic(), router.cpu_seconds()
        await load.for_(PLAN.seconds)
        until = time.monotonic()
        more = (router.cpu_seconds() - cpu) / (until - broken) - usual
        await asyncio.gather(*(pod.heal() for pod in gateway.pods))
    await gateway.until_well()
    await gateway.until_idle()
    found = verdict(load.seen, at, until)
    figures.add("Pages of pods", pages.about, found)
    grown = (router.memory() - before) / MIB
    # A pod that writes such pages has less time for requests. Look at the others, if there are any.
    writers = {pod.name for pod in gateway.pods[: len(pages.by_pod)]}
    others = [each for each in load.seen if len(writers) == 4 or each.pod not in writers]
    before_it = [each for each in others if each.at < at]
    with_it = [each for each in others if at <= each.at < until]
    if before_it and with_it:
        figures.bound(
            f"{pages.about}: p99 of the first byte from other pods",
            "goal: 1.2 x without",
            f"{p99(with_it) / p99(before_it):.2f} x without",
        )
    figures.bound(f"{pages.about}: CPU of the router", "+40 % of a core", f"{more:+.0%}")
    figures.bound(f"{pages.about}: growth of the router", "32 MiB", f"{grown:.0f} MiB")

    assert found.lost == 0, found
    assert more <= 0.4
    assert grown <= 32


async def test_half_of_the_pods_are_replaced_and_no_request_is_lost(
    gateway: Field, figures: Figures
) -> None:
    old, stay = gateway.pods[:2], gateway.pods[2:]
    new = [Pod(f"new-{number}", (*ADAPTERS, "only-new")) for number in range(2)]
    try:
        await asyncio.gather(*(pod.start() for pod in new))
        async with gateway.load(rate=PLAN.rate) as load:
            await load.for_(1)
            at = time.monotonic()
            write_pods(gateway.pods_file, (*stay, *new))
            await until_listed(gateway.router, (*stay, *new))
            # Kubernetes gives a pod some seconds to finish, too.
            await load.for_(1)
            async with asyncio.timeout(60):
                while any([(await pod.become()).running for pod in old]):
                    await load.for_(0.1)
            for pod in old:
                await pod.kill()
            seen = await until_served(gateway, "only-new")
            await load.for_(1)
    finally:
        for pod in old:
            await pod.heal()
        write_pods(gateway.pods_file, gateway.pods)
        await gateway.until_well()
        for pod in new:
            await pod.end()
    await gateway.until_idle()
    found = verdict(load.seen, at)
    figures.add("Pages of pods", "2 of 4 pods are replaced", found)

    assert (found.lost, found.cut) == (0, 0), found
    assert {"new-0", "new-1"} <= {each.pod for each in load.seen}
    assert seen <= {"new-0", "new-1"}


async def until_listed(router: Router, pods: Sequence[Pod]) -> None:
    """Wait until the router knows these pods and no other."""
    async with asyncio.timeout(60):
        while True:
            status, page = await router.get("/debug/pods")
            assert status == 200, page
            listed = {each["name"] for each in json.loads(page)["pods"]}
            if listed == {pod.name for pod in pods}:
                return
            await asyncio.sleep(0.05)


async def until_served(running: Field, model: str) -> set[str]:
    """Ask for a model until it is served, and then some more; return who served it."""
    client = Client(running.url)
    pods: set[str] = set()
    try:
        async with asyncio.timeout(60):
            while not pods:
                answer = await client.complete(model)
                assert answer.status in {200, 404}, answer
                if answer.served:
                    pods.add(answer.pod)
        for _ in range(20):
            answer = await client.complete(model)
            assert answer.served, answer
            pods.add(answer.pod)
    finally:
        await client.close()
    return pods


async def test_all_pods_are_gone_and_come_back(gateway: Field, figures: Figures) -> None:
    async with gateway.load(rate=PLAN.rate) as load:
        await load.for_(1)
        await asyncio.gather(*(pod.kill() for pod in gateway.pods))
        await load.for_(2)
        await asyncio.gather(*(pod.heal() for pod in gateway.pods))
        await gateway.until_well()
        back = time.monotonic()
        await load.for_(3)
    await gateway.until_idle()
    found = verdict(load.seen, back)
    figures.add("Pages of pods", "all pods are killed and come back: once one served again", found)

    assert found.lost == 0, found
    statuses = {each.status for each in load.seen}
    assert statuses <= {200, 503}, statuses


async def test_all_pods_leave_the_list_and_return(gateway: Field, figures: Figures) -> None:
    async with gateway.load(rate=PLAN.rate) as load:
        await load.for_(1)
        write_pods(gateway.pods_file, [])
        await load.for_(2)
        write_pods(gateway.pods_file, gateway.pods)
        await gateway.until_well()
        back = time.monotonic()
        await load.for_(2)
    await gateway.until_idle()
    found = verdict(load.seen, back)
    figures.add("Pages of pods", "all pods leave the list and return: once served again", found)

    assert found.lost == 0, found
    assert {each.status for each in load.seen} <= {200, 503}, found
