"""Runs the engine model in real time: each step takes as long as the model says."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from lora_router.simulator.engine import Engine, EngineRequest
from lora_router.simulator.metrics_page import MetricsPage


class Generation:
    """The tokens of one request as they are generated: ``True`` for the last one."""

    def __init__(self) -> None:
        self._tokens: asyncio.Queue[bool] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[bool]:
        last = False
        while not last:
            last = await self._tokens.get()
            yield last

    def put(self, *, last: bool) -> None:
        """Add a token."""
        self._tokens.put_nowait(last)


class EngineDriver:
    """Drives an engine by the clock of the event loop, and updates its metrics page."""

    def __init__(self, engine: Engine, page: MetricsPage) -> None:
        self._engine = engine
        self._page = page
        self._open: dict[EngineRequest, Generation] = {}
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
    async def generate(self, request: EngineRequest) -> AsyncIterator[Generation]:
        """Submit a request to the engine. Leaving the block before its last token aborts it."""
        generation = self._open[request] = Generation()
        self._engine.submit(request)
        self._work.set()
        try:
            yield generation
        finally:
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
                generation = self._open.get(request)
                if generation is not None:
                    generation.put(last=request.finished)


def _set(done: asyncio.Future[None]) -> None:
    # The client may have disconnected.
    if not done.done():
        done.set_result(None)
