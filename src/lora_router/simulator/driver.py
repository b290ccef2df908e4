"""Runs the engine model in real time: each step takes as long as the model says."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from lora_router.simulator.engine import Engine, EngineRequest
from lora_router.simulator.metrics_page import MetricsPage


class Generation:
    """The tokens of some requests as they are generated: each with the number of its request.

    ``True`` marks the last token of a request.
    """

    def __init__(self, requests: int) -> None:
        self._left = requests
        self._tokens: asyncio.Queue[tuple[int, bool]] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[tuple[int, bool]]:
        while self._left:
            number, last = await self._tokens.get()
            self._left -= last
            yield number, last

    def put(self, number: int, *, last: bool) -> None:
        """Add a token of a request."""
        self._tokens.put_nowait((number, last))


class EngineDriver:
    """Drives an engine by the clock of the event loop, and updates its metrics page."""

    def __init__(self, engine: Engine, page: MetricsPage) -> None:
        self._engine = engine
        self._page = page
        self._open: dict[EngineRequest, tuple[Generation, int]] = {}
        self._to_load: deque[tuple[str, asyncio.Future[None]]] = deque()
        self._work = asyncio.Event()
        self._task: asyncio.Task[None]

    def start(self) -> None:
        """Start to run steps."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop running steps. Requests that wait for tokens get none. Call ``start`` first."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    @asynccontextmanager
    async def generate(self, requests: Sequence[EngineRequest]) -> AsyncIterator[Generation]:
        """Submit requests to the engine. Leaving the block before their last tokens aborts them."""
        generation = Generation(len(requests))
        for number, request in enumerate(requests):
            self._open[request] = generation, number
            self._engine.submit(request)
        self._work.set()
        try:
            yield generation
        finally:
            for request in requests:
                del self._open[request]
                if not request.finished:
                    self._engine.abort(request)
                    self._page.note_abort()
                    self._work.set()

    async def load(self, adapter: str) -> None:
        """Load an adapter between two steps, and return when that is done."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._to_load.append((adapter, done))
        self._work.set()
        await done

    async def _load(self) -> None:
        loop = asyncio.get_running_loop()
        while self._to_load:
            adapter, done = self._to_load.popleft()
            seconds = self._engine.load(adapter, loop.time())
            if self._engine.options.loads_block:
                await asyncio.sleep(seconds)
                _set(done)
            else:
                loop.call_later(seconds, _set, done)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            if self._to_load:
                await self._load()
                due = loop.time()
            step = self._engine.begin_step(loop.time())
            if step is None and self._to_load:
                continue
            if step is None:
                self._work.clear()
                await self._work.wait()
                due = loop.time()
                continue
            # Steps do not drift, but a delay is not made up for by a burst of steps.
            due = max(due + step.seconds, loop.time())
            await asyncio.sleep(due - loop.time())
            batch = self._engine.end_step()
            self._page.note_step(batch, loop.time())
            for request in batch:
                opened = self._open.get(request)
                if opened is not None:
                    generation, number = opened
                    generation.put(number, last=request.finished)


def _set(done: asyncio.Future[None]) -> None:
    # The client may have disconnected.
    if not done.done():
        done.set_result(None)
