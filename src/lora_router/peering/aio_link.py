"""The link of a conversation over a stream of ``grpc.aio``, of a client or of a server."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import grpc.aio

from lora_router.peering.conversation import Conversation
from lora_router.peering.link import Ending

_FLUSH_SECONDS = 0.5
"""Time to write what was sent before the end of the stream."""
_MOST_WAITING = 2
"""Messages that wait to be written on a link that is ready."""


class AioLink:
    """Keeps messages until they are written. ``carry`` writes them."""

    def __init__(self) -> None:
        self.ending: Ending | None = None
        """The status with which this router ends the stream, if it does."""
        self._queue: deque[bytes] = deque()
        self._sent = asyncio.Event()
        self._written = asyncio.Event()
        self._written.set()
        self._over = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether little of what was sent still waits to be written.

        A write takes a moment, in which the next message may be due.
        """
        return len(self._queue) <= _MOST_WAITING

    def send(self, message: bytes) -> None:
        """Send a message as soon as the stream takes it."""
        self._queue.append(message)
        self._written.clear()
        self._sent.set()

    def close(self, ending: Ending) -> None:
        """End the stream."""
        self.ending = ending
        self._over.set()

    async def carry(
        self,
        conversation: Conversation,
        read: Callable[[], Awaitable[object]],
        write: Callable[[bytes], Awaitable[object]],
    ) -> None:
        """Carry the messages of a conversation until one side ends the stream.

        Raises:
            Exception: What ``read`` or ``write`` raised because the stream broke.
        """
        tasks = (
            asyncio.create_task(self._read(conversation, read), name="peer-reads"),
            asyncio.create_task(self._write(write), name="peer-writes"),
        )
        for task in tasks:
            task.add_done_callback(lambda _task: self._over.set())
        try:
            await self._over.wait()
            if self.ending is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_FLUSH_SECONDS):
                        await self._written.wait()
        finally:
            conversation.ended()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        if self.ending is None:
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def _write(self, write: Callable[[bytes], Awaitable[object]]) -> None:
        while True:
            await self._sent.wait()
            while self._queue:
                await write(self._queue[0])
                # Only now, so that the link is not ready while a write waits.
                self._queue.popleft()
            self._sent.clear()
            self._written.set()

    async def _read(
        self, conversation: Conversation, read: Callable[[], Awaitable[object]]
    ) -> None:
        while (data := await read()) is not grpc.aio.EOF:
            assert isinstance(data, bytes)  # noqa: S101 -- nothing deserializes them
            ending = conversation.receive(data)
            if ending is not None:
                self.close(ending)
            if self.ending is not None:
                return
