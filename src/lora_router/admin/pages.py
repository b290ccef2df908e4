"""What the admin port shows to people: the page, and what is under ``/debug``.

All of it stands behind the gate, and all but orders is read-only. So does each path that nothing is
served at, so that a page that is added later cannot be left open by mistake. Only the paths in
``OPEN`` are what they were: probes and Prometheus read them.
"""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from lora_router.admin.client_errors import UNREADABLE_BODY
from lora_router.admin.documents import Document, page, sign_in
from lora_router.admin.events import Events
from lora_router.admin.gate import Gate
from lora_router.admin.orders import ORDER, takes_orders
from lora_router.admin.shown import BUSY, InRouter, Order, Show, Shown
from lora_router.admin.token import SESSION_SECONDS

__all__ = ["Show", "Shown", "add_pages"]

OPEN = frozenset({"/healthz", "/readyz", "/metrics"})
EVENTS, SIGN_IN, SIGN_OUT = "/debug/events", "/sign-in", "/sign-out"
COOKIE = "lora-router-admin"
FORM_SECONDS = 5.0
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""What each answer behind the gate has. Documents have a policy of their own."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_pages(
    app: web.Application,
    gate: Gate,
    in_router: InRouter,
    show: Show | None,
    order: Order | None = None,
) -> None:
    """Add the gate, and the pages behind it.

    Args:
        app: The admin server's application.
        gate: Who may see them.
        in_router: Runs ``show`` and ``order``.
        show: Makes the pages under ``/debug``, which the page shows. ``None``: there are none.
        order: Gives orders. ``None``: none are taken.
    """
    app.middlewares.append(_guarded(gate))
    app.on_response_prepare.append(_protect)
    if gate.token is not None:
        forms = _SignIn(gate)
        app.router.add_post(SIGN_IN, forms.sign_in)
        app.router.add_post(SIGN_OUT, forms.sign_out)
    if show is not None:
        events = Events(in_router, show)
        app.on_shutdown.append(lambda _: events.stop())
        document = page(signs_out=gate.token is not None)
        app.router.add_get("/", _sends(document))
        app.router.add_get(EVENTS, events.serve)
        for path in ("/debug", "/debug/{name:.*}"):
            app.router.add_get(path, _debug(in_router, show))
    if order is not None:
        app.router.add_post(ORDER, takes_orders(gate, in_router, order))


def _guarded(gate: Gate) -> Middleware:
    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN or (request.path == SIGN_IN and gate.token is not None):
            return await handler(request)
        refusal = await gate.refusal(
            host=request.headers.get("host", ""),
            authorization=request.headers.get("authorization", ""),
            session=request.cookies.get(COOKIE, ""),
            sender=_sender(request),
        )
        if refusal is None:
            return await handler(request)
        if refusal.status == 401 and request.path == "/":
            answer = _shown(sign_in(), 401)
        else:
            answer = web.Response(status=refusal.status, text=refusal.text)
        if refusal.status == 401:
            answer.headers["www-authenticate"] = "Bearer"
        return answer

    return guarded


async def _protect(request: web.Request, response: web.StreamResponse) -> None:
    if request.path not in OPEN:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)


def _sends(document: Document) -> Handler:
    async def send(_request: web.Request) -> web.Response:
        return _shown(document)

    return send


def _debug(in_router: InRouter, show: Show) -> Handler:
    async def debug(request: web.Request) -> web.Response:
        name = request.match_info.get("name", "")
        query = {key: request.query[key] for key in request.query}
        try:
            shown = await in_router(lambda: show(name, query))
        except TimeoutError:
            return web.Response(status=503, text=f"{BUSY}\n")
        return web.Response(body=shown.body, status=shown.status, content_type="application/json")

    return debug


class _SignIn:
    """The forms by which browsers begin and end sessions."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def sign_in(self, request: web.Request) -> web.Response:
        token = self._gate.token
        assert token is not None  # noqa: S101 -- otherwise there is no form
        if request.content_type != "application/x-www-form-urlencoded":
            return web.Response(status=415, text="Send the form at / instead.\n")
        try:
            async with asyncio.timeout(FORM_SECONDS):
                sent = (await request.post()).get("token", "")
        except TimeoutError:
            return web.Response(status=408, text="The form did not arrive in time.\n")
        except UNREADABLE_BODY:
            return web.Response(status=400, text="The form cannot be read.\n")
        await token.refresh()
        if not (isinstance(sent, str) and token.matches(sent.strip())):
            refusal = await self._gate.wrong(_sender(request))
            return _shown(sign_in(refusal.text), refusal.status)
        answer = web.Response(status=303, headers={"location": "/"})
        answer.set_cookie(
            COOKIE,
            token.new_session(),
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="Strict",
            # The admin port has no TLS of its own. A proxy before it says that it has.
            secure=request.headers.get("x-forwarded-proto", "") == "https",
        )
        return answer

    async def sign_out(self, _request: web.Request) -> web.Response:
        answer = web.Response(status=303, headers={"location": "/"})
        answer.del_cookie(COOKIE, httponly=True, samesite="Strict")
        return answer


def _shown(document: Document, status: int = 200) -> web.Response:
    return web.Response(
        text=document.text,
        status=status,
        content_type="text/html",
        charset="utf-8",
        headers={"content-security-policy": document.policy},
    )


def _sender(request: web.Request) -> str:
    return request.remote or "an unknown address"
