"""What a real Prometheus stores of our histograms, with and without native ones."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from lora_router.admin.server import AdminServer, Readiness
from lora_router.telemetry.decisions import Decision, DecisionLog
from lora_router.telemetry.exposition import Format, PageWriter, slices
from lora_router.telemetry.metrics import Telemetry
from lora_router.telemetry.traffic import Traffic
from tests.envoy import free_port
from tests.fleet import make_fleet
from tests.unit.telemetry.scenes import SCENES, Scene

TRACE = "0af7651916cd43dd8448eb211c80319c"
MISSING = "no {} on this machine (Debian's package prometheus has it)"
REQUESTS = 20
FOUND_IN_SLOT = 'lora_router_adapter_requests_total{adapter="a",found="slot"}'


def binary(name: str) -> str:
    """Return the path of a program of Prometheus. Skips the test if there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(MISSING.format(name))
    return found


def telemetry_of_known_traffic() -> Telemetry:
    """Twenty requests that were traced; half of them took 0.3 s, and half took 3 s."""
    fleet = make_fleet(2)
    telemetry = Telemetry(fleet)
    log = DecisionLog(10)
    traffic = Traffic(log, 5, fleet)
    traffic.traces = True
    telemetry.follow(traffic)
    for number in range(REQUESTS):
        decision = Decision(
            # It ends now, so that the exemplar is of now.
            arrived_at=log.now() - (0.3 if number % 2 else 3.0),
            decided_at=log.now(),
            answered_at=log.now() - 0.25,
            status=200,
            outcome="routed",
            pod="pod-1",
            base_model="base",
            adapter="a",
            place="slot",
            trace_id=TRACE,
        )
        log.decided(decision)
        log.ended(decision)
        telemetry.counts.decided("random", "routed", "random", 3e-5)
    return telemetry


class Prometheus:
    """A client of a Prometheus."""

    def __init__(self, url: str, client: aiohttp.ClientSession) -> None:
        self._url = url
        self._client = client

    async def ask(self, path: str, **parameters: str) -> Any:
        async with self._client.get(f"{self._url}/api/v1/{path}", params=parameters) as response:
            response.raise_for_status()
            answer = json.loads(await response.text())
        assert answer["status"] == "success", answer
        return answer["data"]

    async def query(self, expression: str) -> list[Any]:
        found: list[Any] = (await self.ask("query", query=expression))["result"]
        return found

    async def value(self, expression: str) -> float:
        [found] = await self.query(expression)
        return float(found["value"][1])

    async def until_scraped(self) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    if await self.query("lora_router_build_info"):
                        return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.1)


@asynccontextmanager
async def prometheus(folder: Path, features: str) -> AsyncIterator[Prometheus]:
    """Let a Prometheus scrape known traffic."""
    program = binary("prometheus")
    admin = AdminServer(
        telemetry_of_known_traffic().served,
        lambda: Readiness(ready=True, reason="", details={}),
        lambda: 0.0,
        host="127.0.0.1",
        port=0,
    )
    await admin.start()
    config, log = folder / "prometheus.yml", folder / "prometheus.log"
    target = {"targets": [f"127.0.0.1:{admin.port}"]}
    config.write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "500ms"},
                "scrape_configs": [{"job_name": "lora-router", "static_configs": [target]}],
            }
        )
    )
    address = f"127.0.0.1:{free_port()}"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            f"--enable-feature={features}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
        )
    try:
        async with aiohttp.ClientSession() as client:
            asked = Prometheus(f"http://{address}", client)
            await asked.until_scraped()
            yield asked
    finally:
        process.kill()
        await process.wait()
        await admin.stop()


async def exemplars(asked: Prometheus, series: str) -> set[str]:
    """Return the traces of the exemplars of a series."""
    found = await asked.ask(
        "query_exemplars",
        query=series,
        start="0",
        end="9999999999",
    )
    return {each["labels"]["trace_id"] for one in found for each in one["exemplars"]}


async def test_prometheus_stores_classic_histograms_and_exemplars(tmp_path: Path) -> None:
    async with prometheus(tmp_path, "exemplar-storage") as asked:
        durations = "lora_router_request_duration_seconds"
        assert await asked.value(f"{durations}_count") == REQUESTS
        assert await asked.value(f'{durations}_bucket{{le="0.5"}}') == REQUESTS / 2
        assert await asked.value(f'{durations}_bucket{{le="5.0"}}') == REQUESTS
        assert await asked.value(f"histogram_quantile(0.25, {durations}_bucket)") <= 0.5
        assert (
            await asked.value('lora_router_adapter_requests_total{adapter="a",found="slot"}') == 20
        )
        assert await exemplars(asked, f"{durations}_bucket") == {TRACE}


async def test_prometheus_stores_native_histograms_and_exemplars(tmp_path: Path) -> None:
    async with prometheus(tmp_path, "native-histograms,exemplar-storage") as asked:
        durations = "lora_router_request_duration_seconds"
        [found] = await asked.query(durations)
        _, histogram = found["histogram"]
        assert float(histogram["count"]) == REQUESTS
        assert float(histogram["sum"]) == pytest.approx(3.3 * REQUESTS / 2, rel=0.1)
        # Each half in a bucket, or in two that follow each other.
        counts = {float(low): float(count) for _, low, _, count in histogram["buckets"]}
        assert sum(count for low, count in counts.items() if low < 1.0) == REQUESTS / 2
        assert await asked.value(f"histogram_quantile(0.25, {durations})") == pytest.approx(
            0.3, rel=0.2
        )
        for name in (
            "lora_router_pod_request_duration_seconds",
            'lora_router_adapter_request_duration_seconds{adapter="a"}',
            "lora_router_decision_seconds",
        ):
            assert await asked.value(f"histogram_count({name})") == REQUESTS
        # A histogram without any duration is there, too.
        assert await asked.value("histogram_count(lora_router_hold_seconds)") == 0
        assert (
            await asked.value('lora_router_adapter_requests_total{adapter="a",found="slot"}') == 20
        )
        assert await exemplars(asked, durations) == {TRACE}


@pytest.mark.parametrize("make", SCENES, ids=lambda make: make.__name__)
def test_promtool_finds_nothing_to_say_about_names_and_units(make: Callable[[], Scene]) -> None:
    writer = PageWriter(Format.TEXT)
    for part in slices(make().metrics()):
        writer.write(part)

    said = subprocess.run(
        [binary("promtool"), "check", "metrics"],
        input=writer.page(),
        capture_output=True,
        check=False,
    )

    assert (said.returncode, said.stdout.decode(), said.stderr.decode()) == (0, "", "")
