"""``POST /debug/order``: orders to the router that loads adapters.

Orders need ``admin_token_file``, also on a loopback address, and the token itself: the session of a
browser is not enough, so that no web site can give one.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from lora_router.admin.client_errors import UNREADABLE_BODY
from lora_router.admin.gate import Gate
from lora_router.admin.shown import BUSY, InRouter, Order

ORDER = "/debug/order"
NO_TOKEN = (
    "orders need a token: set admin_token_file, and send it as Authorization: Bearer TOKEN "  # noqa: S105
    "(lora-router: --token-file, or --config)"
)
_BODY_SECONDS = 5.0

_decode = msgspec.json.Decoder(dict[str, str]).decode


def takes_orders(
    gate: Gate, in_router: InRouter, order: Order
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return the handler of orders.

    Args:
        gate: Has the token. It has let the request pass already.
        in_router: Runs ``order``.
        order: Gives the order.
    """

    async def take(request: web.Request) -> web.Response:
        token = gate.token
        if token is None or not token.is_sent_in(request.headers.get("authorization", "")):
            return _refused(403, NO_TOKEN)
        if request.content_type != "application/json":
            return _refused(415, "content-type: must be application/json")
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                asked = _decode(await request.read())
        except TimeoutError:
            return _refused(408, "the order did not arrive in time")
        except (msgspec.MsgspecError, *UNREADABLE_BODY):
            return _refused(400, "the body must be a JSON object of texts")
        try:
            shown = await in_router(lambda: order(asked))
        except TimeoutError:
            return _refused(503, BUSY)
        return web.Response(body=shown.body, status=shown.status, content_type="application/json")

    return take


def _refused(status: int, message: str) -> web.Response:
    body = msgspec.json.encode({"error": message})
    return web.Response(body=body, status=status, content_type="application/json")
