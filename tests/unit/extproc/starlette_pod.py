"""Reads request bodies as pods do: with Starlette and python-multipart."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

T = TypeVar("T")


def read_json(body: bytes) -> dict[str, object] | None:
    """Return the document of a body; ``None`` if the pod refuses it or it is not an object."""
    try:
        document = _finish(_request(body, "application/json").json())
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def read_form(body: bytes, content_type: str) -> tuple[str, str] | None:
    """Return what the pod sees of ``model`` and ``stream``; ``None`` if it refuses the form."""

    async def fields() -> tuple[object, object]:
        async with _request(body, content_type).form() as form:
            return form.get("model", ""), form.get("stream", "")

    try:
        model, stream = _finish(fields())
    except (MultiPartException, HTTPException, ValueError):
        return None
    # A field that should be text and is a file is refused with 422.
    return (model, stream) if isinstance(model, str) and isinstance(stream, str) else None


def _request(body: bytes, content_type: str) -> Request:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body}

    headers = [(b"content-type", content_type.encode("latin-1"))]
    return Request({"type": "http", "headers": headers}, receive)


def _finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing. An event loop for each body would take longer."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError
