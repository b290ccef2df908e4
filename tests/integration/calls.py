"""Calls of a grpcio client."""

from contextlib import suppress
from typing import Any

import grpc
import grpc.aio


async def end_of(call: grpc.aio.StreamStreamCall) -> tuple[list[Any], grpc.StatusCode]:
    """Read what is left of a call; return that, and the status of the call.

    A client knows the status once it has read the messages before it.
    """
    answers = []
    with suppress(grpc.aio.AioRpcError):
        while (answer := await call.read()) is not grpc.aio.EOF:
            answers.append(answer)
    return answers, await call.code()
