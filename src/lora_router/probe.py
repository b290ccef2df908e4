"""Checks whether a running router serves: ``lora-router probe``.

Health checks of containers and ``helm test`` use it, since the image contains Python but no curl.
Sources: gRPC's health checking protocol (grpc/doc/health-checking.md) and this service's
``/readyz``.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lora_router.connection_error import reason_of

_PAUSE_SECONDS = 0.5
_LONGEST_TRY_SECONDS = 5.0
_SHOWN_CHARACTERS = 300


class ProbeError(Exception):
    """The router does not serve or cannot be reached. The message contains the target."""


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """What to check, and for how long."""

    grpc: str | None
    """``host:port`` of the gRPC health service. ``None``: not checked."""
    service: str = "readiness"
    """Name of the health service."""
    http: str | None = None
    """A URL that must return status 200. ``None``: not checked."""
    timeout: float = 3.0
    """Overall deadline in seconds. Checks are retried until then."""
    ca: Path | None = None
    """PEM file of trusted authorities. ``None``: gRPC without TLS."""


async def probe(options: ProbeOptions) -> list[str]:
    """Retry each check until it succeeds. Returns one line for each check.

    Raises:
        ProbeError: A check did not succeed before the deadline.
    """
    deadline = time.monotonic() + options.timeout
    answers = []
    if options.grpc is not None:
        target, credentials = options.grpc, _credentials(options.ca)
        answers.append(
            await _retried(
                lambda left: _check_grpc(target, credentials, options.service, left), deadline
            )
        )
    if options.http is not None:
        url = options.http
        answers.append(await _retried(lambda left: _check_http(url, left), deadline))
    return answers


async def _retried(check: Callable[[float], Awaitable[str]], deadline: float) -> str:
    while True:
        left = deadline - time.monotonic()
        try:
            return await check(max(0.1, min(left, _LONGEST_TRY_SECONDS)))
        except ProbeError:
            if time.monotonic() + _PAUSE_SECONDS >= deadline:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)


def _credentials(ca: Path | None) -> grpc.ChannelCredentials | None:
    if ca is None:
        return None
    try:
        return grpc.ssl_channel_credentials(ca.read_bytes())
    except OSError as error:
        raise ProbeError(f"{ca}: cannot be read: {error.strerror}") from None


async def _check_grpc(
    target: str, credentials: grpc.ChannelCredentials | None, service: str, seconds: float
) -> str:
    what = f"{target}: gRPC health of {service!r}"
    try:
        async with (
            grpc.aio.insecure_channel(target)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials)
        ) as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=seconds
            )
    except grpc.aio.AioRpcError as error:
        raise ProbeError(f"{what}: {error.code().name}: {error.details()}") from None
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise ProbeError(f"{what} is {status}")
    return f"{what} is {status}"


async def _check_http(url: str, seconds: float) -> str:
    try:
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            text = (await response.text(errors="replace"))[:_SHOWN_CHARACTERS].strip()
            line = f"{url} returned status {response.status}: {text}"
            if response.status != 200:
                raise ProbeError(line)
            return line
    except TimeoutError:
        raise ProbeError(f"{url}: timeout, no response within {seconds:.1f} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ProbeError(f"{url}: {reason_of(error)}") from None
