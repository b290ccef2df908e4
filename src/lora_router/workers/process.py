"""A worker's process, as the parent sees it: how it is started, reached and ended."""

import asyncio
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import lora_router
from lora_router.config.settings import Settings
from lora_router.workers import messages
from lora_router.workers.descriptors import descriptor_pair, send_descriptor
from lora_router.workers.framing import FramedProtocol
from lora_router.workers.kept import NOTHING, Kept

MAX_UNSENT_BYTES = 64 * 1024 * 1024
"""Bytes of messages that wait for a worker to read them. With more, it is replaced."""
_SKIPPED_FROM_BYTES = 8 * 1024 * 1024
"""Bytes from which what will be sent again soon is not sent now."""


class WorkerProcess:
    """One process."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        control: FramedProtocol,
        descriptors: socket.socket,
        lifeline: int,
    ) -> None:
        """Create it for a process that runs. ``start_worker`` does."""
        self._process = process
        self._control = control
        self._descriptors = descriptors
        self._lifeline = lifeline

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def reads(self) -> bool:
        """Whether it reads what is sent to it."""
        return self._control.unsent <= MAX_UNSENT_BYTES

    def on_message(self, receive: Callable[[bytes], None]) -> None:
        """Call ``receive`` with each message of the worker, which sends none before the first."""
        self._control.receive = receive

    def send(self, message: bytes, *, skippable: bool = False) -> None:
        """Send a message.

        Args:
            message: The message, encoded.
            skippable: Whether it may be left out if the worker is slow.
        """
        if not skippable or self._control.unsent < _SKIPPED_FROM_BYTES:
            self._control.send(message)

    def hand(self, tag: bytes, sent: socket.socket) -> bool:
        """Pass a descriptor on; return whether that succeeded."""
        return send_descriptor(self._descriptors, tag, sent)

    def kill(self) -> None:
        """End it at once."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def ended(self) -> int:
        """Wait until it has ended; return its exit status, or minus the signal that ended it."""
        return await self._process.wait()

    def close(self) -> None:
        """Close everything that leads to it. If it still runs, it ends."""
        self._control.abort()
        self._descriptors.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


async def start_worker(
    number: int, settings: Settings, host: str, kept: Kept = NOTHING
) -> WorkerProcess:
    """Start the process of a worker, and send it the first message.

    Args:
        number: The worker's number.
        settings: The settings of the router.
        host: Identifies this run of the parent.
        kept: What files contained when they could last be used.

    Raises:
        OSError: A limit of the system is reached.
    """
    ours, theirs = socket.socketpair()
    our_descriptors, their_descriptors = descriptor_pair()
    # A worker ends when the other end of this pipe is closed, which the kernel does for a parent
    # that died. Nobody writes to it.
    their_lifeline, our_lifeline = os.pipe()
    inherited = (theirs.fileno(), their_descriptors.fileno(), their_lifeline)
    control = FramedProtocol(_ignore, lambda: None, max_bytes=messages.MAX_BYTES)
    try:
        await asyncio.get_running_loop().create_unix_connection(lambda: control, sock=ours)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "lora_router.workers", *map(str, inherited)),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=inherited,
            env=_environment(),
            # A terminal sends Ctrl-C to all processes of a session. The parent drains the workers.
            start_new_session=True,
        )
    except BaseException:
        control.abort()
        our_descriptors.close()
        os.close(our_lifeline)
        raise
    finally:
        theirs.close()
        their_descriptors.close()
        os.close(their_lifeline)
    worker = WorkerProcess(process, control, our_descriptors, our_lifeline)
    worker.send(messages.encode(messages.Start(number, pickle.dumps(settings), host, kept)))
    return worker


def _ignore(_message: bytes) -> None:
    """Take a message that nobody waits for."""


def _environment() -> dict[str, str]:
    """Return the environment, in which the worker finds this package where the parent found it."""
    root = str(Path(lora_router.__file__).parents[1])
    paths = (root, os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
