"""What the admin port shows to people: the page, and what is under ``/debug``.

All of it is read-only and stands behind the gate. So does each path that nothing is served at, so
that a page that is added later cannot be left open by mistake. Only the paths in ``OPEN`` are what
they were: probes and Prometheus read them.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol, TypeVar

from aiohttp import web

from lora_router.admin.gate import Gate

OPEN = frozenset({"/healthz", "/readyz", "/metrics"})
COOKIE = "lora-router-admin"
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""What each answer behind the gate has. The page has a policy of its own."""
BUSY = "the event loop does not respond"

_Made = TypeVar("_Made")


class Shown(NamedTuple):
    """A page under ``/debug``."""

    body: bytes
    """JSON."""
    status: int = 200


Show = Callable[[str, Mapping[str, str]], Awaitable[Shown]]
"""Makes the page under ``/debug`` that has a name (``pods``, ``decisions/ID``) from its query.

It is called in the router's loop. The first value of a query's key counts.
"""


class InRouter(Protocol):
    """Awaits something in the router's loop."""

    async def __call__(self, make: Callable[[], Awaitable[_Made]]) -> _Made:
        """Return what ``make()`` returns.

        Raises:
            TimeoutError: The router's loop does not respond.
        """
        ...


def add_pages(app: web.Application, gate: Gate, in_router: InRouter, show: Show | None) -> None:
    """Add the gate, and the pages behind it.

    Args:
        app: The admin server's application.
        gate: Who may see them.
        in_router: Runs ``show``.
        show: Makes the pages under ``/debug``. ``None``: there are none.
    """

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN:
            return await handler(request)
        refusal = await gate.refusal(
            host=request.headers.get("host", ""),
            authorization=request.headers.get("authorization", ""),
            session=request.cookies.get(COOKIE, ""),
            sender=request.remote or "an unknown address",
        )
        if refusal is None:
            return await handler(request)
        answer = web.Response(status=refusal.status, text=refusal.text)
        if refusal.status == 401:
            answer.headers["www-authenticate"] = "Bearer"
        return answer

    app.middlewares.append(guarded)
    app.on_response_prepare.append(_protect)
    if show is not None:
        app.router.add_get("/debug/{name:.+}", _debug(in_router, show))


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _debug(in_router: InRouter, show: Show) -> Handler:
    async def debug(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        query = {key: request.query[key] for key in request.query}
        try:
            shown = await in_router(lambda: show(name, query))
        except TimeoutError:
            return web.Response(status=503, text=f"{BUSY}\n")
        return web.Response(body=shown.body, status=shown.status, content_type="application/json")

    return debug


async def _protect(request: web.Request, response: web.StreamResponse) -> None:
    if request.path not in OPEN:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
