"""One pod of four fails while requests come: the others serve them, and it comes back by itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

import pytest
import pytest_asyncio
from _pytest.mark.structures import ParameterSet

from tests.faults.field import Field, field
from tests.faults.figures import Figures
from tests.faults.plan import PLAN
from tests.faults.pods import Pod
from tests.faults.verdict import Verdict, verdict

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALGORITHMS = (
    *("random", "least-request", "power-of-two", "lora-affinity", "four-tier"),
    *("lora-placement", "lora-residency", "shuffle-shard"),
)
ALONE = {
    "refuses connections",
    "answers 500, metrics are good",
    "hangs (SIGSTOP)",
    "hangs, metrics are good",
}
"""Faults that the long plan tries with each algorithm alone, and not only with all together."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Field]:
    directory: Path = tmp_path_factory.mktemp("pods")
    # Short, so that each test sees the pod come back.
    async with field(directory, outlier_max_ejection_seconds=2) as running:
        yield running


async def suspend(pod: Pod) -> None:
    pod.suspend()


async def suffer(
    gateway: Field,
    algorithms: tuple[str, ...],
    fault: Callable[[Pod], Awaitable[object]],
    *,
    count: int = 1,
    seconds: float = PLAN.seconds,
    patience_seconds: float = 60.0,
) -> Verdict:
    """Break pods under load; return what became of the load once all is well again.

    No request may have reached two pods: it would have been generated twice.
    """
    pods = gateway.pods[:count]
    for pod in gateway.pods:
        await pod.become()
    async with gateway.load(
        rate=PLAN.rate, algorithms=algorithms, patience_seconds=patience_seconds
    ) as load:
        await load.for_(1.5)
        await asyncio.gather(*(fault(pod) for pod in pods))
        at = time.monotonic()
        await load.for_(seconds)
        until = time.monotonic()
        received = [user for pod in gateway.pods for user in (await pod.heal()).received if user]
    assert len(received) == len(set(received))
    await gateway.until_well()
    await gateway.until_idle()
    return verdict(load.seen, at, until)


def named(algorithms: tuple[str, ...]) -> str:
    return algorithms[0] if len(algorithms) == 1 else "all"


def cases(faults: Iterable[str]) -> list[ParameterSet]:
    """Return the faults with the algorithms of the load."""
    return [
        pytest.param(fault, algorithms, id=f"{fault}-{named(algorithms)}")
        for fault in faults
        for algorithms in (
            [(name,) for name in ALGORITHMS]
            if PLAN.each_algorithm and fault in ALONE
            else [ALGORITHMS]
        )
    ]


FAILS_FAST = {
    "refuses connections": lambda pod: pod.become(listens=False),
    "is killed": lambda pod: pod.kill(),
    "answers 500, metrics are good": lambda pod: pod.become(answers="error"),
    "answers garbage, metrics are good": lambda pod: pod.become(answers="garbage"),
    "answers garbage to all": lambda pod: pod.become(
        answers="garbage", metrics="garbage", models="garbage"
    ),
    "lost its adapters (404)": lambda pod: pod.become(adapters=()),
}


@pytest.mark.parametrize(("fault", "algorithms"), cases(FAILS_FAST))
async def test_a_pod_that_fails_at_once_costs_a_few_requests_and_no_more(
    gateway: Field, figures: Figures, fault: str, algorithms: tuple[str, ...]
) -> None:
    found = await suffer(gateway, algorithms, FAILS_FAST[fault])
    figures.add("A pod fails", f"1 of 4 {fault}", found, named(algorithms))

    assert found.lost_later == 0, found
    assert found.lost_at_once <= PLAN.lost_at_once, found


HANGS = {
    "hangs (SIGSTOP)": suspend,
    "hangs, metrics are good": lambda pod: pod.become(answers="silent"),
    "cannot be reached, packets are dropped": lambda pod: pod.become(reachable=False),
}


@pytest.mark.parametrize(("fault", "algorithms"), cases(HANGS))
async def test_a_pod_that_hangs_keeps_few_requests_waiting(
    gateway: Field, figures: Figures, fault: str, algorithms: tuple[str, ...]
) -> None:
    """At most 1 % of a minute's requests wait for it, and none that is sent three seconds later."""
    found = await suffer(
        gateway, algorithms, HANGS[fault], seconds=PLAN.hang_seconds, patience_seconds=10
    )
    figures.add("A pod fails", f"1 of 4 {fault}", found, named(algorithms))

    assert found.waited <= 0.01 * 60 * PLAN.rate, found
    assert found.lost <= found.waited, found
    assert found.late_pods[gateway.pods[0].name] + found.late_pods[""] == 0, found


async def test_a_pod_that_becomes_slow_keeps_few_requests_waiting(
    gateway: Field, figures: Figures
) -> None:
    """It answers its probes in the end, so that it is tried with a request now and then."""
    found = await suffer(
        gateway,
        ALGORITHMS,
        lambda pod: pod.become(slowness=100.0),
        seconds=PLAN.hang_seconds,
    )
    figures.add("A pod fails", "1 of 4 is 100 times slower", found)

    fair_share = found.late_pods.total() / 4
    assert found.lost == 0, found
    assert found.waited <= 0.01 * 60 * PLAN.rate, found
    assert found.late_pods[gateway.pods[0].name] <= fair_share / 2, found


@pytest.mark.parametrize("fault", ["refuses connections", "answers 500, metrics are good"])
async def test_half_of_the_pods_may_fail_at_once(
    gateway: Field, figures: Figures, fault: str
) -> None:
    found = await suffer(gateway, ALGORITHMS, FAILS_FAST[fault], count=2)
    figures.add("A pod fails", f"2 of 4: {fault}", found)

    assert found.lost_later == 0, found
    assert found.lost_at_once <= 2 * PLAN.lost_at_once, found


async def test_a_pod_that_comes_and_goes_is_not_trusted_each_time(
    gateway: Field, figures: Figures
) -> None:
    pod = gateway.pods[0]
    async with gateway.load(rate=PLAN.rate, algorithms=ALGORITHMS) as load:
        await load.for_(1)
        at = time.monotonic()
        for _ in range(4):
            await pod.become(answers="error")
            await load.for_(0.5)
            await pod.become(answers="well")
            await load.for_(0.5)
    await gateway.until_well()
    await gateway.until_idle()
    found = verdict(load.seen, at)
    figures.add("A pod fails", "1 of 4 answers 500 for every second half second", found)

    assert found.lost <= 4 * 3 + 3, found


async def test_a_pod_that_is_killed_for_good_is_missed_by_nobody(
    tmp_path: Path, figures: Figures
) -> None:
    """One of two, as when a machine is lost. Only the answers that it was giving are cut."""
    async with field(tmp_path, pods=2) as gateway:
        async with gateway.load(rate=PLAN.rate) as load:
            await load.for_(1)
            asked = time.monotonic()
            did = await gateway.pods[0].become()
            await gateway.pods[0].kill()
            at = time.monotonic()
            await load.for_(PLAN.killed_seconds)
        await gateway.until_idle()
    found = verdict(load.seen, at)
    figures.add("A pod fails", f"1 of 2 is killed, {PLAN.killed_seconds:g} s of load", found)

    assert found.lost_later == 0, found
    assert found.lost_at_once <= PLAN.lost_at_once, found
    # It was asked a moment before it was killed, and may have begun with further requests since.
    begun = sum(each.at < at and each.at + each.first_byte_seconds > asked for each in load.seen)
    assert found.cut + found.failed_before <= did.running + begun + 5, found
