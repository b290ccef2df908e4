"""One router process of a live fleet, and what its admin pages say."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families

_DECISIONS = "lora_router_decision_seconds_count"


@dataclass(frozen=True, slots=True)
class RouterProcess:
    """A router. The process itself is a child of the demo with the same name."""

    name: str
    grpc_port: int
    admin_port: int
    config: Path

    @property
    def address(self) -> str:
        """Where Envoy and its peers reach it."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def ready_url(self) -> str:
        """The page that says whether it is ready."""
        return f"http://127.0.0.1:{self.admin_port}/readyz"

    @property
    def command(self) -> tuple[str | Path, ...]:
        """The command that runs it."""
        return (sys.executable, "-m", "lora_router", "serve", "--config", self.config)

    def configure(self, settings: Mapping[str, object]) -> None:
        """Write its settings: these, and its own ports."""
        own = {
            "grpc_host": "127.0.0.1",
            "grpc_port": self.grpc_port,
            "admin_port": self.admin_port,
        }
        self.config.write_text(yaml.safe_dump({**settings, **own}))

    async def status(self, session: aiohttp.ClientSession) -> dict[str, object]:
        """Return what ``/readyz`` says, whether the router is ready or not."""
        async with session.get(self.ready_url) as response:
            page: dict[str, object] = json.loads(await response.text())
            return page

    async def metrics(self, session: aiohttp.ClientSession) -> dict[str, float]:
        """Return its metrics by name, each the sum over all labels."""
        async with session.get(f"http://127.0.0.1:{self.admin_port}/metrics") as response:
            return sums(await response.text())

    async def decisions(self, session: aiohttp.ClientSession) -> int:
        """Return the number of requests that it has routed."""
        return int((await self.metrics(session)).get(_DECISIONS, 0.0))


def sums(page: str) -> dict[str, float]:
    """Return the metrics of a page by name, each the sum over all labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found
