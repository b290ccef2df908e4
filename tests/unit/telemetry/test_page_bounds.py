"""Pages stay bounded with any number of adapters, and one of many pods does not block the loop."""

import asyncio

import pytest

from lora_router.telemetry.decisions import Decision, DecisionLog
from lora_router.telemetry.exposition import SLICE
from lora_router.telemetry.metrics import Telemetry
from lora_router.telemetry.traffic import Traffic
from tests.fleet import make_fleet

NATIVE = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)


class Site:
    """A fleet, and requests that counted."""

    def __init__(self, pods: int, most: int = 100) -> None:
        self.fleet = make_fleet(pods)
        self.telemetry = Telemetry(self.fleet)
        self.now = 100.0
        self._log = DecisionLog(10, now=lambda: self.now)
        self.telemetry.follow(Traffic(self._log, most, self.fleet))

    def request(self, pod: int, adapter: str) -> None:
        decision = Decision(
            arrived_at=self.now,
            decided_at=self.now,
            outcome="routed",
            pod=f"pod-{pod}",
            base_model="base",
            adapter=adapter,
            place="slot",
            status=200,
        )
        self._log.decided(decision)
        decision.answered_at = self.now + 0.25
        self.now += 0.01
        self._log.ended(decision)

    async def page(self, accept: str = "") -> bytes:
        return (await self.telemetry.served(accept)).body


@pytest.mark.slow
async def test_the_page_of_a_hundred_thousand_adapters_is_as_long_as_that_of_a_few_hundred(
    capsys: pytest.CaptureFixture[str],
) -> None:
    few, many = Site(8), Site(8)
    for site, adapters in ((few, 400), (many, 100_000)):
        for number in range(adapters):
            site.request(number % 8 + 1, f"adapter-{number:06}")

    for accept in ("", NATIVE):
        lengths = len(await few.page(accept)), len(await many.page(accept))
        with capsys.disabled():
            print(f" [{lengths[0]} bytes with 400 adapters, {lengths[1]} with 100,000]", end="")
        assert lengths[1] < lengths[0] * 1.1


@pytest.mark.slow
@pytest.mark.parametrize("accept", ["", NATIVE], ids=["text", "protobuf"])
async def test_the_loop_serves_requests_while_the_page_of_a_thousand_pods_is_made(
    accept: str, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(1000)
    for number in range(2000):
        site.request(number % 1000 + 1, f"adapter-{number % 50}")
    turns = 0

    async def serve() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    serving = asyncio.create_task(serve())
    page = await site.page(accept)
    serving.cancel()

    series = sum(len(metric.samples) for metric in site.telemetry.metrics())
    with capsys.disabled():
        print(f" [{series} series, {len(page)} bytes, {turns} turns]", end="")
    # A slice has at most as many series as two slices should.
    assert turns >= series / (2 * SLICE)
