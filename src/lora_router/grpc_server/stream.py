"""One stream: what a call may do with it, and the frames of gRPC responses.

Response headers and trailers are constant bytes. They are literals without indexing, so no stateful
HPACK encoder is needed.
"""

import struct
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Protocol

from lora_router.grpc_server import frames
from lora_router.grpc_server.budget import Account, Budget, CallLater
from lora_router.grpc_server.flow import Flow, Outbox
from lora_router.grpc_server.frames import Payload
from lora_router.grpc_server.grpc_messages import PREFIX_BYTES, prefix
from lora_router.grpc_server.headers import literals
from lora_router.grpc_server.status import OK
from lora_router.grpc_server.violations import ErrorCode, StreamError

_STATUS_200 = b"\x88"
"""``:status: 200`` is an entry of HPACK's static table."""
_GRPC_HEADERS = _STATUS_200 + literals(
    [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", b"identity,deflate,gzip")]
)
_LONGEST_STATUS_MESSAGE = 1024

_first_message = struct.Struct(f">5sI{len(_GRPC_HEADERS)}sIBIBI")
_next_message = struct.Struct(">IBIBI")
_ENDING_FLAGS = frames.END_HEADERS | frames.END_STREAM
_FRAME_START = frames.frame_head(frames.HEADERS, frames.END_HEADERS, 0, len(_GRPC_HEADERS))[:5]


@lru_cache(maxsize=64)
def _status(code: int, message: str = "") -> bytes:
    status = [(b"grpc-status", b"%d" % code)]
    if message:
        status.append((b"grpc-message", _percent_encoded(message)))
    return literals(status)


def _percent_encoded(message: str) -> bytes:
    """Encode a status message as gRPC requires: printable ASCII as is, other bytes as ``%XX``."""
    text = message.encode(errors="replace")[:_LONGEST_STATUS_MESSAGE]
    return b"".join(
        bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        for byte in text
    )


_OK_BLOCK = _status(OK)
_OK_START = frames.frame_head(frames.HEADERS, _ENDING_FLAGS, 0, len(_OK_BLOCK))[:5]
_ok_trailers = struct.Struct(f">5sI{len(_OK_BLOCK)}s")


class Call(Protocol):
    """A call on a stream. It answers through its stream. Nothing is called after ``finish``."""

    def data(self, payload: Payload) -> Payload | None:
        """Handle bytes of the request, at least one.

        Returns:
            The bytes that are left, for another call: the first ones were worth some work.
        """

    def end(self) -> None:
        """Handle the end of the peer's side of the stream."""

    def gone(self) -> None:
        """Handle the loss of the stream: nothing can be sent, and nothing else arrives."""

    def let_go(self) -> None:
        """End the stream with a status because the server stops."""


class _Over:
    """The call of a stream whose response is complete. It ignores everything."""

    __slots__ = ()

    def data(self, payload: Payload) -> None:
        pass

    def end(self) -> None:
        pass

    def gone(self) -> None:
        pass

    def let_go(self) -> None:
        pass


OVER: Call = _Over()


class Owner(Protocol):
    """The connection of a stream, as seen by the stream."""

    outbox: Outbox
    budget: Budget
    call_later: CallLater

    def closed(self, stream: "Stream") -> None:
        """Remove a stream that both sides have ended, or that this server ended early."""

    def refill(self, stream: "Stream") -> None:
        """Let the peer send more on a stream, as far as the budget lets it in."""

    def wake(self) -> None:
        """Schedule a write of output that is not the result of something received."""


class Stream(Flow):
    """One stream."""

    __slots__ = ("_owner", "account", "answered", "call", "content_left", "remote_ended")

    def __init__(self, owner: Owner, number: int, send_window: int, receive_window: int) -> None:
        self.id = number
        self.send_window = send_window
        self.receive_window = receive_window
        self.queue = None
        self.ending = None
        self._owner = owner
        self.account: Account | None = None
        """What the call holds. Set when a message or a body arrives in pieces."""
        self.call: Call = OVER
        self.answered = False
        """Whether response headers have been sent."""
        self.remote_ended = False
        """Whether the peer has ended its side."""
        self.content_left: int | None = None
        """Bytes that must still arrive, if the request has a ``content-length``."""

    def send_message(self, message: bytes) -> None:
        """Send a gRPC message. The first one follows the response headers."""
        length = len(message)
        size = length + PREFIX_BYTES
        outbox = self._owner.outbox
        if size > self.send_window or size > outbox.window or size > outbox.max_frame or self.queue:
            self._send_headers()
            outbox.send(self, prefix.pack(0, length) + message)
            return
        self.send_window -= size
        outbox.window -= size
        if self.answered:
            head = _next_message.pack(size << 8, 0, self.id, 0, length)
        else:
            self.answered = True
            head = _first_message.pack(
                _FRAME_START, self.id, _GRPC_HEADERS, size << 8, 0, self.id, 0, length
            )
        outbox.chunks += (head, message)

    def send_parts(self, head: bytes, body: memoryview) -> None:
        """Send a gRPC message that consists of two parts. The second one is not copied here."""
        self._send_headers()
        start = prefix.pack(0, len(head) + len(body)) + head
        self._owner.outbox.send_parts(self, start, body)

    def finish(self, code: int, message: str = "") -> None:
        """Send the status after all messages. Nothing can be sent after it."""
        self.call = OVER
        if self.answered and code == OK:
            ending = _ok_trailers.pack(_OK_START, self.id, _OK_BLOCK)
        else:
            block = _status(code, message)
            if not self.answered:
                self.answered = True
                block = _GRPC_HEADERS + block
            ending = frames.frame(frames.HEADERS, _ENDING_FLAGS, self.id, block)
        self._owner.outbox.end(self, ending)

    def respond(self, status: int, text: str) -> None:
        """Send a plain HTTP response to a request that is not gRPC."""
        self.call = OVER
        self.answered = True
        body = text.encode()
        block = literals(
            [
                (b":status", b"%d" % status),
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"%d" % len(body)),
            ]
        )
        outbox = self._owner.outbox
        outbox.chunks.append(frames.frame(frames.HEADERS, frames.END_HEADERS, self.id, block))
        outbox.send(self, body)
        outbox.end(self, frames.frame(frames.DATA, frames.END_STREAM, self.id))

    def call_later(self, seconds: float, call: Callable[[], None]) -> Callable[[], object]:
        """Call once after a number of seconds; return a function that cancels the call."""
        return self._owner.call_later(seconds, call)

    @property
    def budget(self) -> Budget:
        """The budget that counts what the call holds."""
        return self._owner.budget

    def refill(self) -> None:
        """Let the peer send more, as far as the budget lets it in."""
        if not self.remote_ended and self.call is not OVER:
            self._owner.refill(self)

    def drained(self) -> None:
        """Let the peer send more, because it has taken what waited for it."""
        self.refill()

    def wake(self) -> None:
        """Schedule a write of output that is not the result of something received."""
        self._owner.wake()

    def ended(self) -> None:
        """Close this side of the stream. A peer that is still sending receives RST_STREAM."""
        if not self.remote_ended:
            self._owner.outbox.chunks.append(frames.rst_stream(self.id, ErrorCode.NO_ERROR))
        self._owner.closed(self)

    def count_content(self, size: int, *, ends: bool) -> None:
        """Compare what has arrived with ``content-length`` (RFC 9113, section 8.1.1).

        Raises:
            StreamError: The lengths differ.
        """
        assert self.content_left is not None  # noqa: S101 -- called only with a content-length
        self.content_left -= size
        if self.content_left < 0 or (ends and self.content_left):
            raise StreamError(ErrorCode.PROTOCOL_ERROR, "DATA does not match content-length")

    def _send_headers(self) -> None:
        if not self.answered:
            self.answered = True
            self._owner.outbox.chunks.append(
                frames.frame(frames.HEADERS, frames.END_HEADERS, self.id, _GRPC_HEADERS)
            )


NOT_GRPC = {
    status: f"lora-router: {HTTPStatus(status).phrase}: this port serves gRPC only "
    "(POST, content-type: application/grpc).\n"
    for status in (405, 415)
}
"""Bodies of the responses to plain HTTP requests."""
