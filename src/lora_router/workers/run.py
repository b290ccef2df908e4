"""Runs a worker in its process, from the parent's first message until it has drained."""

import asyncio
import logging
import os
import pickle
import socket
import threading
import time

import uvloop

from lora_router.config.settings import Settings
from lora_router.supervision import describe, unless
from lora_router.telemetry.logs import configure_logging
from lora_router.workers import messages
from lora_router.workers.framing import FramedProtocol
from lora_router.workers.messages import Start
from lora_router.workers.worker import Worker

log = logging.getLogger("lora_router.workers")

_FIRST_MESSAGE_SECONDS = 30.0
_ORPHAN_SECONDS = 5.0
"""How long a worker may take to end after its parent has died."""


def run(control: int, descriptors: int, lifeline: int) -> int:
    """Run until the parent orders a drain, or has ended. Returns the status of the process.

    Args:
        control: Descriptor of the socket for messages.
        descriptors: Descriptor of the socket through which descriptors come.
        lifeline: Descriptor of a pipe that the kernel closes when the parent ends.
    """
    threading.Thread(target=_end_as_orphan, args=(lifeline,), name="lifeline", daemon=True).start()
    with socket.socket(fileno=control) as first, socket.socket(fileno=descriptors) as second:
        first.setblocking(False)
        second.setblocking(False)
        try:
            return uvloop.run(_serve(first, second))
        finally:
            logging.shutdown()


async def _serve(control: socket.socket, descriptors: socket.socket) -> int:
    loop = asyncio.get_running_loop()
    first: asyncio.Future[bytes] = loop.create_future()
    gone = asyncio.Event()
    waiting: list[bytes] = []
    """Messages that arrive before the worker exists."""

    def keep(data: bytes) -> None:
        if first.done():
            waiting.append(data)
        else:
            first.set_result(data)

    protocol = FramedProtocol(keep, gone.set, max_bytes=messages.MAX_BYTES)
    await loop.create_unix_connection(lambda: protocol, sock=control)
    async with asyncio.timeout(_FIRST_MESSAGE_SECONDS):
        start = messages.from_parent(await first)
    assert isinstance(start, Start)  # noqa: S101 -- the parent sends it first
    settings = _settings(start)
    configure_logging(settings.log_level, settings.log_format, f"worker {start.number}")
    try:
        worker = Worker(
            start.number, settings, protocol, descriptors, start.host, os.environ, kept=start.kept
        )
        loop.set_exception_handler(worker.supervisor.callback_failed)
        protocol.receive = lambda data: worker.receive(messages.from_parent(data))
        for data in waiting:
            protocol.receive(data)
        await worker.start()
    except Exception as error:
        log.exception("worker %d cannot start", start.number)
        text = (str(error) if isinstance(error, OSError | ValueError) else "") or describe(error)
        protocol.send(messages.encode(messages.Failed(text)))
        protocol.close()
        await gone.wait()
        return 1
    if not await unless(gone, worker.drained()):
        log.error("the parent has ended, and so this worker ends")
    await worker.stop()
    return 0


def _settings(start: Start) -> Settings:
    settings = pickle.loads(start.settings)  # noqa: S301 -- from the parent, by a private socket
    assert isinstance(settings, Settings)  # noqa: S101 -- the parent sends them
    return settings


def _end_as_orphan(lifeline: int) -> None:
    """End the process some time after its parent, also if the event loop hangs."""
    try:
        while os.read(lifeline, 1):
            pass  # Nobody writes.
    except OSError:
        pass
    time.sleep(_ORPHAN_SECONDS)
    os._exit(1)
