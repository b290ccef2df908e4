"""Streams of other hosts that one worker accepts and another one answers.

The parent hands on a connection before anybody has read from it. So a stream can arrive at another
worker than the one that it is for. That worker checks that the stream comes from a peer, and passes
its messages on, unread, over a socket pair that the parent created.
"""

import asyncio
import socket
from collections.abc import Callable

from lora_router.grpc_server.status import UNAVAILABLE
from lora_router.peering.conversation import Conversation
from lora_router.peering.limits import MAX_MESSAGE_BYTES, MAX_STREAMS
from lora_router.peering.link import Ending, Link
from lora_router.peering.mesh import Mesh
from lora_router.workers.framing import FramedProtocol

_OPEN, _TO, _END, _HOLD, _GO, _BACK, _ENDED = range(7)
"""What a frame is. The worker that accepted a stream sends ``_OPEN``, ``_TO`` with each message,
``_END``, and, when the other host does not read and when it does again, ``_HOLD`` and ``_GO``. The
worker that the stream is for sends ``_BACK`` with each message, and ``_ENDED``."""
_NUMBER_BYTES = 4
_HEAD_BYTES = 1 + _NUMBER_BYTES
_MAX_UNSENT_BYTES = 8 * 1024 * 1024
"""Bytes that wait for another worker to read them, with which a stream is passed on no more."""
_POLL_SECONDS = 0.02


class PassedOn:
    """A stream that this worker accepted, for another one."""

    def __init__(self, way: "_Way", number: int, link: Link) -> None:
        self._link = link
        self._way = way
        self._number = number
        self._holds = False

    def receive(self, data: bytes) -> Ending | None:
        """Pass on a message of the other host."""
        if self._way.unsent > _MAX_UNSENT_BYTES:
            return Ending(UNAVAILABLE, "lora-router: the worker does not read")
        self._way.frame(_TO, self._number, data)
        return None

    def ended(self) -> None:
        """Handle the end of the stream, whoever ended it."""
        if self._way.passed_on.pop(self._number, None) is not None:
            self._way.frame(_END, self._number)

    def back(self, data: bytes) -> None:
        """Send what the other worker answers."""
        self._link.send(data)
        if not self._link.is_ready and not self._holds:
            self._holds = True
            self._way.frame(_HOLD, self._number)
            self._look_later()

    def close(self, ending: Ending) -> None:
        """End the stream."""
        self._link.close(ending)

    def _look_later(self) -> None:
        asyncio.get_running_loop().call_later(_POLL_SECONDS, self._look)

    def _look(self) -> None:
        if self._way.passed_on.get(self._number) is not self:
            return
        if self._link.is_ready:
            self._holds = False
            self._way.frame(_GO, self._number)
        else:
            self._look_later()


class _Taken:
    """A stream that another worker accepted, for this one: the link of a conversation."""

    def __init__(self, way: "_Way", number: int, mesh: Mesh) -> None:
        self.holds = False
        self._way = way
        self._number = number
        self.conversation: Conversation = mesh.accept(self)

    @property
    def is_ready(self) -> bool:
        """Whether the other host has read what was sent."""
        return not self.holds and not self._way.unsent

    def send(self, message: bytes) -> None:
        """Send a message."""
        if self._number in self._way.taken:
            self._way.frame(_BACK, self._number, message)

    def close(self, ending: Ending) -> None:
        """End the stream."""
        if self._way.taken.pop(self._number, None) is not None:
            self._way.end_other(self._number, ending)
            self.conversation.ended()

    def receive(self, data: bytes) -> None:
        """Handle a message of the other host."""
        ending = self.conversation.receive(data)
        if ending is not None:
            self.close(ending)


class _Way(FramedProtocol):
    """The way to another worker, and from it."""

    def __init__(self, mesh: Mesh, over: Callable[[], None]) -> None:
        super().__init__(self._arrived, self._broke, max_bytes=MAX_MESSAGE_BYTES + 1024)
        self.passed_on: dict[int, PassedOn] = {}
        self.taken: dict[int, _Taken] = {}
        """Both by the numbers that the worker that accepted the stream has chosen."""
        self._mesh = mesh
        self._over = over
        self._number = 0

    def open(self, link: Link) -> PassedOn:
        """Pass a stream on."""
        self._number = (self._number + 1) % 2 ** (8 * _NUMBER_BYTES)
        stream = self.passed_on[self._number] = PassedOn(self, self._number, link)
        self.frame(_OPEN, self._number)
        return stream

    def frame(self, kind: int, number: int, data: bytes = b"") -> None:
        """Send a frame."""
        self.send(bytes((kind,)) + number.to_bytes(_NUMBER_BYTES) + data)

    def end_other(self, number: int, ending: Ending) -> None:
        """Tell the worker that accepted a stream how it ends."""
        self.frame(_ENDED, number, bytes((ending.code,)) + ending.message.encode())

    def end_passed_on(self, ending: Ending) -> None:
        """End all streams that are passed on."""
        for stream in tuple(self.passed_on.values()):
            stream.close(ending)

    def _arrived(self, data: bytes) -> None:
        kind, number, rest = data[0], int.from_bytes(data[1:_HEAD_BYTES]), data[_HEAD_BYTES:]
        if kind in (_BACK, _ENDED):
            self._answered(kind, number, rest)
        elif kind == _OPEN:
            refusal = self._mesh.refusal()
            if refusal is None:
                self.taken[number] = _Taken(self, number, self._mesh)
            else:
                self.end_other(number, refusal)
        elif (taken := self.taken.get(number)) is not None:
            if kind == _TO:
                taken.receive(rest)
            elif kind == _END:
                del self.taken[number]
                taken.conversation.ended()
            else:
                taken.holds = kind == _HOLD

    def _answered(self, kind: int, number: int, data: bytes) -> None:
        stream = self.passed_on.get(number)
        if stream is None:
            return
        if kind == _BACK:
            stream.back(data)
        else:
            stream.close(Ending(data[0], data[1:].decode()))

    def _broke(self) -> None:
        self.end_passed_on(Ending(UNAVAILABLE, "lora-router: the worker ended"))
        taken, self.taken = self.taken, {}
        for each in taken.values():
            each.conversation.ended()
        self._over()


class Relays:
    """The ways to all other workers."""

    def __init__(self, mesh: Mesh) -> None:
        """Create it without ways.

        Args:
            mesh: This worker's streams to and from other hosts.
        """
        self._mesh = mesh
        self._ways: dict[int, _Way] = {}
        self._is_draining = False

    @property
    def numbers(self) -> tuple[int, ...]:
        """The workers to which there is a way."""
        return tuple(self._ways)

    async def add(self, number: int, end: socket.socket) -> None:
        """Use one end of a socket pair as the way to a worker, instead of an older one."""
        before = self._ways.pop(number, None)
        if before is not None:
            before.abort()

        def over() -> None:
            if self._ways.get(number) is way:
                del self._ways[number]

        way = _Way(self._mesh, over)
        self._ways[number] = way
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: way, sock=end)
        except OSError:
            way.connection_lost(None)
            end.close()

    def open(self, worker: int, link: Link) -> PassedOn | None:
        """Pass a stream on to another worker; ``None``: that is not possible."""
        way = self._ways.get(worker)
        passed_on = sum(len(each.passed_on) for each in self._ways.values())
        if way is None or self._is_draining or passed_on >= MAX_STREAMS:
            return None
        return way.open(link)

    def drain(self) -> None:
        """End all streams that are passed on, and pass on no more."""
        self._is_draining = True
        for way in self._ways.values():
            way.end_passed_on(Ending(UNAVAILABLE, "lora-router: shutting down"))

    def close(self) -> None:
        """End all ways."""
        for way in tuple(self._ways.values()):
            way.close()
