"""Server-sent events for the page: what changed, at most once a second.

One producer reads the debug pages for all viewers. It runs while somebody looks. A new viewer gets
all rows first, and then what changes. What viewers are told is bounded, and so is their number. One
who does not keep up is dropped, and comes back for all rows.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from lora_router.admin.event_parts import PARTS
from lora_router.admin.sending import give_up
from lora_router.admin.shown import BUSY, InRouter, Show
from lora_router.admin.viewed_rows import Change, Part, ViewedRows
from lora_router.log_limit import LogLimit
from lora_router.supervision import Supervisor, describe

log = logging.getLogger("lora_router.admin")

MOST_VIEWERS = 32
MOST_WAITING = 8
"""Rounds that may wait for a viewer who does not read."""
SLOW_SECONDS = 10.0
"""A viewer who takes longer to read one round is dropped."""
STREAM_SECONDS = 600.0
"""A stream ends after that long. The viewer asks again, and passes the gate again."""
ROUND_SECONDS = 1.0
RETRY_MILLISECONDS = 500
"""After that, the page opens a stream that has ended again. It is shorter than the time from which
on the page says that its connection is lost (``stream.js``)."""
_RETRY = b"retry: %d\n\n" % RETRY_MILLISECONDS


class Viewer:
    """What waits to be sent to one viewer."""

    def __init__(self, first: bytes) -> None:
        self._waiting = deque((_RETRY + first,))
        self._changed = asyncio.Event()
        self.is_dropped = False

    def add(self, chunk: bytes) -> None:
        """Add a round; too many of them, and the viewer is dropped."""
        if len(self._waiting) >= MOST_WAITING:
            self.drop()
        self._waiting.append(chunk)
        self._changed.set()

    def drop(self) -> None:
        """Send nothing more."""
        self.is_dropped = True
        self._changed.set()

    async def next(self) -> bytes:
        """Return all that waits, once there is something. Empty: the viewer is dropped."""
        while not self._waiting and not self.is_dropped:
            self._changed.clear()
            await self._changed.wait()
        if self.is_dropped:
            return b""
        chunk = b"".join(self._waiting)
        self._waiting.clear()
        return chunk


class Events:
    """The producer and its viewers. Used in the loop of the admin server only."""

    def __init__(
        self, in_router: InRouter, show: Show, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Create it. Nothing runs until somebody looks.

        Args:
            in_router: Runs ``show``.
            show: Makes the debug pages.
            now: Returns seconds, monotonic.
        """
        self._in_router = in_router
        self._show = show
        self._now = now
        self.viewers: set[Viewer] = set()
        self.rounds = 0
        """Rounds so far, for tests."""
        self._rows: dict[str, ViewedRows] = {}
        self._told: dict[str, Mapping[str, Any]] = {}
        """What else viewers know of each part: when it was read, or why it cannot be."""
        self._supervisor = Supervisor()
        self._limit = LogLimit(60.0, clock=now)
        self._task: asyncio.Task[None] | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a viewer: send events until one of the two ends it."""
        if len(self.viewers) >= MOST_VIEWERS:
            return web.Response(
                status=503,
                text=f"{MOST_VIEWERS} viewers look at this router already. Close one of them.\n",
            )
        if request.method == "HEAD":
            return web.Response()  # The page asks why it gets no stream.
        viewer = self._join()
        response = web.StreamResponse(
            headers={"content-type": "text/event-stream", "x-accel-buffering": "no"}
        )
        transport = request.transport
        try:
            async with asyncio.timeout(SLOW_SECONDS):
                await response.prepare(request)
            await self._send(viewer, response)
        except (TimeoutError, ConnectionError) as error:
            give_up(transport, error)
        finally:
            self._leave(viewer)
        return response

    async def stop(self) -> None:
        """End all streams."""
        for viewer in tuple(self.viewers):
            viewer.drop()
        await self._supervisor.stop()

    async def _send(self, viewer: Viewer, response: web.StreamResponse) -> None:
        until = self._now() + STREAM_SECONDS
        while self._now() < until:
            chunk = await viewer.next()
            if not chunk:
                return
            async with asyncio.timeout(SLOW_SECONDS):
                await response.write(chunk)

    def _join(self) -> Viewer:
        everything = b"".join(
            _event(part, self._rows[part.event].all(), self._told[part.event], full=True)
            for part in PARTS
            if part.event in self._told
        )
        viewer = Viewer(everything)
        self.viewers.add(viewer)
        if self._task is None:
            self._task = self._supervisor.keep("page-events", self._produce)
        return viewer

    def _leave(self, viewer: Viewer) -> None:
        self.viewers.discard(viewer)
        if self.viewers or self._task is None:
            return
        self._task.cancel()
        self._task = None
        self._rows.clear()
        self._told.clear()

    async def _produce(self) -> None:
        while True:
            started = self._now()
            try:
                chunk = await self._round()
            except BaseException:
                # Changes may be lost. The next round sends everything.
                self._told.clear()
                raise
            for viewer in tuple(self.viewers):
                viewer.add(chunk)
            self.rounds += 1
            took = self._now() - started
            # Half of the time is left to others, however long a round takes.
            await asyncio.sleep(max(ROUND_SECONDS - took, took))

    async def _round(self) -> bytes:
        events = []
        for part in PARTS:
            if self.rounds % part.every and part.event in self._told:
                continue
            try:
                events.append(await self._changes(part))
            except TimeoutError:
                text = msgspec.json.encode({"text": BUSY})
                events.append(b"event: trouble\ndata: %s\n\n" % text)
                break
        else:
            events.append(b"event: tick\ndata: {}\n\n")
        return b"".join(events)

    async def _changes(self, part: Part) -> bytes:
        """Return the event of a part. Empty: nothing has changed."""
        before = self._told.get(part.event)
        if before is None:
            self._rows[part.event] = ViewedRows(part)
        try:
            rows, told, more = await self._read(part)
            change = self._rows[part.event].update(rows, more)
        except (ValueError, KeyError, TypeError) as error:
            self._limit.log(
                log,
                logging.WARNING,
                part.page,
                "/debug/%s cannot be read: %s",
                part.page,
                describe(error),
            )
            told = {"error": "this page cannot be read"}
            change = self._rows[part.event].update((), 0)
        self._told[part.event] = told
        if change is None:
            if before is not None and _lasting(before) == _lasting(told):
                return b""
            change = Change([], [], self._rows[part.event].more)
        return _event(part, change, told, full=before is None)

    async def _read(self, part: Part) -> tuple[list[dict[str, Any]], Mapping[str, Any], int]:
        rows: list[dict[str, Any]] = []
        told: Mapping[str, Any] = {}
        more = 0
        for query in part.queries:
            shown = await self._in_router(partial(self._show, part.page, query))
            page = msgspec.json.decode(shown.body)
            if shown.status != 200:
                return [], {"error": str(page["error"])}, 0
            rows += page[part.page]
            more = page.get("more", 0)
            told = {"at": page["at"], "unreachable": page["unreachable"]}
        return rows, told, more


def _lasting(told: Mapping[str, Any]) -> object:
    """Return what is worth an event of its own."""
    return told.get("unreachable"), told.get("error")


def _event(part: Part, change: Change, told: Mapping[str, Any], *, full: bool) -> bytes:
    document = {**told, "full": full, part.page: change.rows, "gone": change.gone}
    document["more"] = change.more
    if full:
        document["key"] = part.key
    return b"event: %s\ndata: %s\n\n" % (part.event.encode(), msgspec.json.encode(document))
