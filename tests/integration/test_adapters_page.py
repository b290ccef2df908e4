"""docs/adapters.md: its commands work as they are written, in the order in which they stand."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import pytest

from lora_router.debug.client import DebugClient
from lora_router.debug.pages import AdaptersPage
from lora_router.demo.processes import Children
from lora_router.demo.stack import envoy_binary, free_ports
from tests.pages import DOCS, commands

pytestmark = pytest.mark.envoy

_SECONDS = 60.0
_LOADS_SECONDS = 180.0
"""For all loads. They take eight seconds where nothing else runs."""


class Terminals:
    """Runs commands of the page: those that do not end in the background."""

    def __init__(self, folder: Path, children: Children) -> None:
        self._folder = folder
        self._children = children
        self._grpc, self._admin, self._envoy, self._envoy_admin = free_ports(4)
        programs = folder / "bin"
        programs.mkdir()
        (programs / "envoy").symlink_to(envoy_binary())
        self._environ = {
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LORA_ROUTER_GRPC_HOST": "127.0.0.1",
            "LORA_ROUTER_GRPC_PORT": str(self._grpc),
            "LORA_ROUTER_ADMIN_PORT": str(self._admin),
            "LORA_ROUTER_ENVOY_LISTEN_HOST": "127.0.0.1",
            "LORA_ROUTER_ENVOY_LISTEN_PORT": str(self._envoy),
            "LORA_ROUTER_ENVOY_ADMIN_PORT": str(self._envoy_admin),
        }

    async def begin(self, name: str, command: str) -> None:
        """Run a command that does not end."""
        # As a new process, so that it is what is ended.
        script = f"cd {self._folder} && exec {command}"
        environ = [f"{key}={value}" for key, value in self._environ.items()]
        if name == "envoy":
            script += " --use-dynamic-base-id --concurrency 1"
        await self._children.start(name, ["env", *environ, "sh", "-c", script])

    async def run(self, command: str) -> str:
        """Run a command until it ends well, and return what it printed."""
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", command.replace("localhost:10080", f"127.0.0.1:{self._envoy}")),
            cwd=self._folder,
            env={**os.environ, **self._environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(_SECONDS):
            printed, errors = await process.communicate()
        assert process.returncode == 0, f"{command}\n{errors.decode()}"
        return printed.decode() + errors.decode()

    async def until(self, what: str, url: str) -> None:
        """Wait until a page answers with 200."""
        async with asyncio.timeout(_SECONDS), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(url) as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                self._children.check()
                await asyncio.sleep(0.05)

    async def rows(self) -> Sequence[dict[str, object]]:
        """Return what ``lora-router adapters`` says of all adapters."""
        page = json.loads(await self.run("lora-router adapters -c router.yaml --limit 500 --json"))
        found: list[dict[str, object]] = page["adapters"]
        return found

    async def until_listed(self, number: int) -> None:
        """Wait until a pod lists each of so many adapters."""
        # Not the command: a process for each question takes more than all else of the test.
        token = (self._folder / "token").read_text().strip()
        async with asyncio.timeout(_LOADS_SECONDS), DebugClient(self._admin_url, token) as client:
            while True:
                rows = (await client.page(AdaptersPage, {"limit": "500"})).adapters
                if len(rows) == number and all(row.listed for row in rows):
                    return
                await asyncio.sleep(0.5)

    @property
    def _admin_url(self) -> str:
        return f"http://127.0.0.1:{self._admin}"

    @property
    def router(self) -> str:
        return f"{self._admin_url}/readyz"

    @property
    def envoy(self) -> str:
        return f"http://127.0.0.1:{self._envoy_admin}/ready"


async def test_from_nothing_to_200_adapters_in_ten_commands(tmp_path: Path) -> None:
    page = [command.text for command in commands((DOCS / "adapters.md").read_text())]
    walk = page[: next(at for at, text in enumerate(page) if "sync --dry-run" in text)]
    assert len(walk) == 10
    async with Children(tmp_path) as children:
        terminals = Terminals(tmp_path, children)
        pods, declare, token, settings, serve, config, envoy, curl, add, show = walk

        await terminals.begin("pods", pods)
        for command in (declare, token, settings):
            await terminals.run(command)
        assert (tmp_path / "token").stat().st_mode & 0o077 == 0
        async with asyncio.timeout(_SECONDS):
            while not (tmp_path / "pods.yaml").exists():
                await asyncio.sleep(0.05)
        await terminals.begin("router", serve)
        await terminals.until("router", terminals.router)
        await terminals.run(config)
        await terminals.begin("envoy", envoy)
        await terminals.until("envoy", terminals.envoy)

        answer = json.loads((await terminals.run(curl)).partition("\n")[0].partition("  %")[0])
        assert answer["model"] == "lora-200"

        await terminals.run(add)
        await terminals.until_listed(201)
        rows = await terminals.rows()
        assert len(rows) == 201
        assert {row["declared_by"] for row in rows} == {"file"}
        shown = (await terminals.run(show)).splitlines()
        placed = {line.split()[0] for line in shown if "pod-" in line}
        assert placed == {row["name"] for row in rows}

        # The orders of the section on commands.
        for command in page[len(walk) : len(walk) + 4]:
            await terminals.run(command)
