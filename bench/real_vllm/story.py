"""What is done to the fleet under load, and what is measured of it."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import aiohttp
from rich.console import Console
from rich.table import Table

from bench.real_vllm.fleet import Fleet

_CLIENTS = 3
_TOKENS = 16
_TIMEOUT_SECONDS = 120.0


class _Load:
    """Clients that ask for declared adapters, one request after the other each."""

    def __init__(self, fleet: Fleet, session: aiohttp.ClientSession) -> None:
        self._fleet = fleet
        self._session = session
        self._random = random.Random(1)
        self.names: list[str] = []
        """The adapters that are asked for."""
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []

    async def ask(self, name: str) -> int:
        """Ask for an adapter, and return the status of the answer."""
        document = {"model": name, "prompt": "What is a slot?", "max_tokens": _TOKENS}
        url = f"{self._fleet.url}/v1/completions"
        async with self._session.post(url, json=document) as response:
            text = await response.text()
            if response.status != 200:
                self.failures.append(f"{name}: {response.status} {text[:200]}")
            self.answers[response.status] += 1
            return response.status

    async def run(self) -> None:
        """Ask until this is cancelled."""
        async with asyncio.TaskGroup() as clients:
            for _ in range(_CLIENTS):
                clients.create_task(self._client())

    async def _client(self) -> None:
        while True:
            await self.ask(self._random.choice(self.names))


async def tell(fleet: Fleet) -> int:
    """Run the whole, print what was measured, and return how many requests failed."""
    console = Console()
    rows = Table("what", "seconds")
    console.print(f"starting {fleet.plan.servers} vLLM servers")
    await fleet.start_servers()
    for number in range(fleet.plan.adapters):
        fleet.declared[f"a{number}"] = fleet.source(number)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        load = _Load(fleet, session)

        async def measured(
            what: str, condition: Callable[[], Awaitable[bool]], started: float | None = None
        ) -> None:
            started = time.monotonic() if started is None else started
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                while not await condition():  # noqa: ASYNC110 -- other processes change it
                    await asyncio.sleep(0.05)
            rows.add_row(what, f"{time.monotonic() - started:.2f}")

        async def everywhere() -> bool:
            listed = await fleet.listed(session)
            return all(any(name in on for on in listed.values()) for name in fleet.declared)

        async def first_answer(name: str) -> bool:
            return await load.ask(name) == 200

        started = time.monotonic()
        await fleet.start_router()
        loaded = f"from the start of the router until {len(fleet.declared)} adapters are loaded"
        await measured(loaded, everywhere, started)
        load.names = list(fleet.declared)
        running = asyncio.ensure_future(load.run())
        try:
            await asyncio.sleep(5)
            new, changed, removed = fleet.plan.adapters, "a0", "a1"
            fleet.declared[f"a{new}"] = fleet.source(new)
            fleet.declare()
            await measured(
                "a further adapter: from its declaration to its first answer",
                lambda: first_answer(f"a{new}"),
            )
            load.names.append(f"a{new}")

            source = fleet.declared[changed] = fleet.source(new + 1)
            fleet.declare()

            async def has_moved() -> bool:
                roots = [
                    root
                    for on in (await fleet.listed(session)).values()
                    for name, root in on.items()
                    if name.split("@")[0] == changed
                ]
                return bool(roots) and all(root == source for root in roots)

            await measured("a new source: declared until the old one is unloaded", has_moved)

            load.names.remove(removed)
            del fleet.declared[removed]
            fleet.declare()

            async def is_gone() -> bool:
                return not any(removed in on for on in (await fleet.listed(session)).values())

            await measured("an adapter removed: until no server lists it", is_gone)
            await asyncio.sleep(5)
            if running.done():
                await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    console.print(rows)
    return _report(console, load)


def _report(console: Console, load: _Load) -> int:
    console.print(f"requests by status: {dict(load.answers)}")
    for failure in load.failures[:10]:
        console.print(f"failed: {failure}", markup=False)
    return len(load.failures)
