"""Which method a stream calls, and what becomes of a stream that calls none.

No I/O: a call is told what arrives, and answers through its stream.
"""

import logging
from collections.abc import Callable, Mapping

from lora_router.grpc_server.call_headers import CallHeaders
from lora_router.grpc_server.frames import Payload
from lora_router.grpc_server.status import INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from lora_router.grpc_server.stream import NOT_GRPC, OVER, Call, Stream

log = logging.getLogger("lora_router.grpc_server")

Method = Callable[[Stream, CallHeaders], Call]
"""Opens a call of a method on a new stream."""


class Methods:
    """A server's methods, by their paths (``/package.Service/Method``)."""

    def __init__(self, methods: Mapping[str, Method], *, max_header_list_bytes: int) -> None:
        self._methods = dict(methods)
        self._max_header_list = max_header_list_bytes

    def open_call(self, stream: Stream, headers: CallHeaders) -> Call:
        """Open the call that a new stream asks for, or refuse the stream."""
        method = self._methods.get(headers.path)
        if headers.http_error:
            return _NotGrpc(stream, headers.http_error)
        if headers.list_bytes > self._max_header_list:
            stream.finish(
                RESOURCE_EXHAUSTED,
                f"metadata of {headers.list_bytes} bytes; at most {self._max_header_list} are "
                "taken",
            )
        elif method is None:
            stream.finish(UNIMPLEMENTED, "there is no such method")
        elif headers.bad_timeout:
            stream.finish(INTERNAL, "grpc-timeout is malformed")
        else:
            try:
                return method(stream, headers)
            except Exception:
                log.exception("a stream could not be begun; it is ended")
                stream.finish(INTERNAL, "lora-router: internal error")
        return OVER


class _NotGrpc:
    """A request that is none for us. It is answered when it is complete."""

    __slots__ = ("_status", "_stream")

    def __init__(self, stream: Stream, status: int) -> None:
        self._stream = stream
        self._status = status

    def data(self, payload: Payload) -> None:
        """Ignore the body."""

    def end(self) -> None:
        """Say what is spoken here."""
        self._stream.respond(self._status, NOT_GRPC[self._status])

    def gone(self) -> None:
        """Nothing was kept."""

    def let_go(self) -> None:
        """Answer now."""
        self.end()
