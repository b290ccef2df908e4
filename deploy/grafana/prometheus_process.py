"""A Prometheus that scrapes some routers: for tests, and to draw the dashboards."""

import asyncio
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

from lora_router.demo.stack import free_ports


def binary(name: str) -> str | None:
    """Return the path of ``prometheus`` or ``promtool``, which Debian's ``prometheus`` contains."""
    return shutil.which(name)


class Prometheus:
    """One server."""

    def __init__(
        self,
        folder: Path,
        targets: Sequence[str],
        rules: Path | None = None,
        interval: str = "1s",
    ) -> None:
        """Write its configuration.

        Args:
            folder: For its files. It must exist.
            targets: The admin ports of the routers, as ``host:port``.
            rules: A file with alerts.
            interval: How often it scrapes, and evaluates the rules. A scrape that takes longer
                fails.

        Raises:
            FileNotFoundError: There is no Prometheus on this machine.
        """
        found = binary("prometheus")
        if found is None:
            raise FileNotFoundError(
                "prometheus: not on the PATH; Debian's package prometheus has it"
            )
        self._binary = found
        self._folder = folder
        self._targets = len(targets)
        self._config = folder / "prometheus.yml"
        self._config.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": interval, "evaluation_interval": interval},
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
        self._url = f"http://127.0.0.1:{free_ports(1)[0]}"

    async def __aenter__(self) -> Self:
        """Start it, and wait until it answers."""
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
                if self._process.returncode is not None:
                    raise RuntimeError((self._folder / "prometheus.log").read_text())
                await asyncio.sleep(0.05)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
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
        """Return the data of an answer of the API.

        Raises:
            RuntimeError: The answer is an error, or has a warning.
        """
        async with self._client.get(f"{self._url}/api/v1/{path}", params=parameters) as response:
            answer = json.loads(await response.text())
        if answer["status"] != "success" or answer.get("warnings"):
            raise RuntimeError(f"{path} {parameters}: {answer}")
        return answer["data"]

    async def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """Return the samples of an expression at a time in Unix seconds; ``None``: now."""
        when = {} if at is None else {"time": repr(at)}
        answer = await self.ask("query", query=expression, **when)
        found: list[dict[str, Any]] = answer["result"]
        return found

    async def value(self, expression: str, at: float | None = None) -> float | None:
        """Return the value of an expression with one sample, or ``None`` without one.

        Raises:
            RuntimeError: There are several.
        """
        found = await self.query(expression, at)
        if len(found) > 1:
            raise RuntimeError(f"several samples: {found}")
        return float(found[0]["value"][1]) if found else None

    async def firing(self) -> dict[str, dict[str, Any]]:
        """Return the alerts that fire, by name; of several with one name, the last."""
        listed = (await self.ask("alerts"))["alerts"]
        return {each["labels"]["alertname"]: each for each in listed if each["state"] == "firing"}

    async def instances_by_alert(self) -> dict[str, set[str]]:
        """Return the alerts that fire, by name, with the targets that they are about.

        An alert about all targets together has none.
        """
        found: dict[str, set[str]] = {}
        for each in (await self.ask("alerts"))["alerts"]:
            if each["state"] == "firing":
                instances = found.setdefault(each["labels"]["alertname"], set())
                if "instance" in each["labels"]:
                    instances.add(each["labels"]["instance"])
        return found

    async def scraped(self, times: int = 1) -> None:
        """Wait until each target has been scraped so many times, with success, beginning now.

        Raises:
            TimeoutError: That takes more than a minute each time.
        """
        for _ in range(times):
            began = time.time()
            async with asyncio.timeout(60):
                while not self._are_newer(await self._last_scrapes(), began):
                    await asyncio.sleep(0.1)

    async def complete_at(self) -> float:
        """Return a time, in Unix seconds, at which there are the series of all targets.

        A scrape that takes longer than the interval fails, and ends the series of its target until
        the next one.

        Raises:
            TimeoutError: There is none in a minute.
        """
        async with asyncio.timeout(60):
            while True:
                # Nothing older than the last scrape of each target is added any more.
                at = min((await self._last_scrapes()).values(), default=0.0)
                if await self.value("count(up == 1)", at) == self._targets:
                    return at
                await asyncio.sleep(0.1)

    def _are_newer(self, scrapes: dict[str, float], than: float) -> bool:
        return len(scrapes) == self._targets and all(at > than for at in scrapes.values())

    async def _last_scrapes(self) -> dict[str, float]:
        """Return when each target was scraped last, of those whose last scrape succeeded."""
        return {
            each["metric"]["instance"]: float(each["value"][1])
            for each in await self.query("timestamp(up) and up == 1")
        }

    async def note_firing(self, fired: dict[str, dict[str, Any]]) -> None:
        """Add each alert that fires to those that fired, by name, until cancelled."""
        while True:
            fired.update(await self.firing())
            await asyncio.sleep(0.2)

    async def until_quiet(self, except_for: set[str]) -> None:
        """Wait until no alert fires but these.

        Raises:
            TimeoutError: Others fire for a minute.
        """
        async with asyncio.timeout(60):
            while (await self.firing()).keys() - except_for:
                await asyncio.sleep(0.1)
