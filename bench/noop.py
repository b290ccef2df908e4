"""A server that decides nothing: the router with every message answered by CONTINUE.

``python bench/noop.py --set NAME=VALUE…`` is ``lora-router serve`` with another session. Whatever a
transport costs is in it, and nothing that the router does of its own. It is what the router's
requests per second are held against.
"""

import importlib
import pkgutil
import sys
from collections.abc import Callable, Sequence

from lora_router import extproc
from lora_router.cli.commands import app
from lora_router.extproc import answers
from lora_router.extproc.events import Message
from lora_router.extproc.exchange import SessionContext
from lora_router.extproc.pb.ext_proc_pb2 import (
    HeadersResponse,
    ProcessingRequest,
    ProcessingResponse,
)

_HEADERS = (ProcessingResponse(request_headers=HeadersResponse()).SerializeToString(),)
_BODY = (answers.CONTINUE_BODY,)


class NoSession:
    """Stands where a transport would make a ``Session``."""

    __slots__ = ()
    routed = None

    def __init__(self, _context: SessionContext, _on_late: Callable[..., None]) -> None: ...

    def receive(self, message: Message) -> Sequence[bytes]:
        """Answer as the message asks, with nothing in it."""
        request = ProcessingRequest.FromString(message)  # type: ignore[arg-type]  # any buffer
        return _HEADERS if request.HasField("request_headers") else _BODY

    def end(self) -> None:
        """Nothing was taken, so nothing is given back."""


def main() -> None:
    """Serve."""
    replaced = 0
    for found in pkgutil.walk_packages(extproc.__path__, f"{extproc.__name__}."):
        module = importlib.import_module(found.name)
        if hasattr(module, "Session"):
            setattr(module, "Session", NoSession)  # noqa: B010 -- any module has it, to mypy none
            replaced += 1
    if not replaced:
        raise RuntimeError("no transport makes sessions by that name any more")
    app(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    main()
