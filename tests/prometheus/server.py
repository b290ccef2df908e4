"""A real Prometheus for tests: Debian's package ``prometheus`` has it, and promtool."""

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import pytest
import yaml

from tests.envoy import free_port

_MISSING = "no {} on this machine (Debian's package prometheus has it)"


def promtool() -> str:
    """Return the path of promtool. Skips the test if there is none."""
    return _binary("promtool")


def _binary(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(_MISSING.format(name))
    return found


class Prometheus:
    """One server, which scrapes twice a second."""

    def __init__(self, folder: Path, targets: Sequence[str], rules: Path | None = None) -> None:
        self._binary = _binary("prometheus")
        self._folder = folder
        self._targets = len(targets)
        self._config = folder / "prometheus.yml"
        self._config.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
                    "rule_files": [] if rules is None else [str(rules)],
                    "scrape_configs": [
                        {
                            "job_name": "lora-router",
                            "honor_labels": True,
                            "static_configs": [
                                {"targets": list(targets), "labels": {"namespace": "models"}}
                            ],
                        }
                    ],
                }
            )
        )
        self._url = f"http://127.0.0.1:{free_port()}"

    async def __aenter__(self) -> Self:
        log = (self._folder / "prometheus.log").open("wb")
        with log:
            self._process = await asyncio.create_subprocess_exec(
                self._binary,
                f"--config.file={self._config}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address={self._url.removeprefix('http://')}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
            )
        self._client = aiohttp.ClientSession()
        async with asyncio.timeout(60):
            while not await self._is_ready():
                log_text = self._folder / "prometheus.log"
                assert self._process.returncode is None, log_text.read_text()
                await asyncio.sleep(0.05)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.close()
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _is_ready(self) -> bool:
        try:
            async with self._client.get(f"{self._url}/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of the API. An error or a warning fails the test."""
        async with self._client.get(f"{self._url}/api/v1/{path}", params=parameters) as response:
            answer = json.loads(await response.text())
        assert answer["status"] == "success", answer
        assert not answer.get("warnings"), answer
        return answer["data"]

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an expression now."""
        found: list[dict[str, Any]] = (await self.ask("query", query=expression))["result"]
        return found

    async def value(self, expression: str) -> float | None:
        """Return the value of an expression with one sample, or ``None`` without one."""
        found = await self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    async def firing(self) -> dict[str, dict[str, Any]]:
        """Return the alerts that fire, by name; of several with one name, the last."""
        listed = (await self.ask("alerts"))["alerts"]
        return {each["labels"]["alertname"]: each for each in listed if each["state"] == "firing"}

    async def scraped(self, times: int = 2) -> None:
        """Wait until each target has been scraped again so many times, and the rules evaluated."""
        for _ in range(times):
            before = await self._last_scrapes()
            async with asyncio.timeout(60):
                while (
                    any(
                        at <= before.get(target, 0.0)
                        for target, at in (await self._last_scrapes()).items()
                    )
                    or len(await self._last_scrapes()) < self._targets
                ):
                    await asyncio.sleep(0.1)

    async def _last_scrapes(self) -> dict[str, float]:
        return {
            each["metric"]["instance"]: float(each["value"][1])
            for each in await self.query("timestamp(up)")
        }

    async def until_firing(self, names: set[str]) -> dict[str, dict[str, Any]]:
        """Wait until these alerts fire, and return all that do."""
        async with asyncio.timeout(60):
            while not names <= (found := await self.firing()).keys():
                await asyncio.sleep(0.1)
        return found
