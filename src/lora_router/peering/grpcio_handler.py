"""``Exchange`` over ``grpc.aio``."""

from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc
import grpc.aio

from lora_router.grpc_server.status import OK
from lora_router.peering.aio_link import AioLink
from lora_router.peering.link import Ending
from lora_router.peering.secret import HEADER
from lora_router.peering.service import METHOD, SERVICE, PeerService

_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_Context: TypeAlias = grpc.aio.ServicerContext


def peers_handler(service: PeerService) -> grpc.GenericRpcHandler:
    """Return the handler of the method."""

    async def exchange(_requests: AsyncIterator[bytes], context: _Context) -> None:
        metadata = dict(context.invocation_metadata() or ())
        refusal = service.refusal(_bytes(metadata.get(HEADER, b"")))
        if refusal is None:
            refusal = await _carry(service, context)
        if refusal is not None and refusal.code != OK:
            await context.abort(_STATUS[refusal.code], refusal.message)

    method = grpc.stream_stream_rpc_method_handler(exchange)
    return grpc.method_handlers_generic_handler(SERVICE, {METHOD: method})


async def _carry(service: PeerService, context: _Context) -> Ending | None:
    link = AioLink()
    await link.carry(service.mesh.accept(link), context.read, context.write)
    return link.ending


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode(errors="replace")
