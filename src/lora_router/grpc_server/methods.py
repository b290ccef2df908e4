"""Opens the call of a new stream by its path, and refuses streams that call no method.

No I/O: a call receives what arrives on its stream, and answers through the stream.
"""

import logging
from collections.abc import Callable, Mapping

from lora_router.grpc_server.call_headers import CallHeaders
from lora_router.grpc_server.frames import Payload
from lora_router.grpc_server.status import INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from lora_router.grpc_server.stream import NOT_GRPC, OVER, Call, Stream

log = logging.getLogger("lora_router.grpc_server")

Method = Callable[[Stream, CallHeaders], Call]
"""Opens a call of one method on a new stream."""


class Methods:
    """A server's methods, by their paths (``/package.Service/Method``)."""

    def __init__(self, methods: Mapping[str, Method], *, max_header_list_bytes: int) -> None:
        self._methods = dict(methods)
        self._max_header_list = max_header_list_bytes

    def open_call(self, stream: Stream, headers: CallHeaders) -> Call:
        """Open the call that a new stream requests, or refuse the stream.

        An error while opening ends only this stream.
        """
        method = self._methods.get(headers.path)
        if headers.http_error:
            return _NotGrpc(stream, headers.http_error)
        if headers.list_bytes > self._max_header_list:
            stream.finish(
                RESOURCE_EXHAUSTED,
                f"request metadata has {headers.list_bytes} bytes; the limit is "
                f"{self._max_header_list}",
            )
        elif method is None:
            stream.finish(UNIMPLEMENTED, "unknown method")
        elif headers.bad_timeout:
            stream.finish(INTERNAL, "malformed grpc-timeout")
        else:
            try:
                return method(stream, headers)
            except Exception:
                log.exception("opening a gRPC call failed; its stream is closed with INTERNAL")
                stream.finish(INTERNAL, "lora-router: internal error")
        return OVER


class _NotGrpc:
    """A request that is not gRPC. It receives an HTTP error when it is complete."""

    __slots__ = ("_status", "_stream")

    def __init__(self, stream: Stream, status: int) -> None:
        self._stream = stream
        self._status = status

    def data(self, payload: Payload) -> None:
        """Ignore the body."""

    def end(self) -> None:
        """Send the HTTP error."""
        self._stream.respond(self._status, NOT_GRPC[self._status])

    def gone(self) -> None:
        """Do nothing: this call holds nothing."""

    def let_go(self) -> None:
        """Send the HTTP error now."""
        self.end()
