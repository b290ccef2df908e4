"""A server that decides nothing: the router, but every message is answered with CONTINUE.

``python bench/noop.py --set NAME=VALUE…`` is ``lora-router serve`` with another session. It has the
cost of the transport and nothing else, so the router's requests per second are compared with it.
"""

import importlib
import pkgutil
import sys
from collections.abc import Callable

from lora_router import extproc
from lora_router.cli.commands import app
from lora_router.extproc import answers
from lora_router.extproc.context import SessionContext
from lora_router.extproc.events import Message
from lora_router.extproc.outputs import Outputs
from lora_router.extproc.pb.ext_proc_pb2 import (
    HeadersResponse,
    ProcessingRequest,
    ProcessingResponse,
)
from lora_router.extproc.session import Session
from lora_router.extproc.states import ROUTED

_HEADERS = (ProcessingResponse(request_headers=HeadersResponse()).SerializeToString(),)
_BODY = (answers.CONTINUE_BODY,)
_RESPONSE_HEADERS = (answers.CONTINUE_RESPONSE_HEADERS,)


class NoSession(Session):
    """Replaces ``Session`` in the transports.

    It is one, so that it has whatever a transport calls. It is taken for decided from the start:
    nobody asks it for an answer that it does not give.
    """

    __slots__ = ()

    def __init__(self, context: SessionContext, on_late: Callable[[Outputs], None]) -> None:
        super().__init__(context, on_late)
        self.state = ROUTED

    def receive(self, message: Message) -> Outputs:
        """Return the empty answer to the message."""
        request = ProcessingRequest.FromString(message)  # type: ignore[arg-type]  # any buffer
        if request.HasField("response_headers"):
            return _RESPONSE_HEADERS
        return _HEADERS if request.HasField("request_headers") else _BODY

    def end(self) -> None:
        """Do nothing: no request was counted."""


def main() -> None:
    """Serve until SIGTERM."""
    replaced = 0
    for found in pkgutil.walk_packages(extproc.__path__, f"{extproc.__name__}."):
        module = importlib.import_module(found.name)
        if getattr(module, "Session", None) is Session:
            setattr(module, "Session", NoSession)  # noqa: B010 -- any module has it, to mypy none
            replaced += 1
    if not replaced:
        raise RuntimeError("no transport module has the name Session, so nothing was replaced")
    app(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    main()
