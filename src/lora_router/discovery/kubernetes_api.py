"""A few calls of the Kubernetes API, through the asyncio client of the ``kubernetes`` package.

The client authenticates, connects and sends requests. This module decodes the responses, since the
client's own models take a millisecond for each pod, and a fleet in trouble has thousands of events.
Every failure is raised as an ``ApiError`` with one of a few causes.
"""

import asyncio
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLError
from types import MappingProxyType
from typing import Any, Self, TypeVar

import aiohttp
import msgspec
import yaml
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from lora_router.connection_error import reason_of

IN_CLUSTER_VARIABLE = "KUBERNETES_SERVICE_HOST"
REQUEST_SECONDS = 30.0
"""Timeout of a page of a list, and of the start of a watch."""
SILENCE_SECONDS = 10.0
"""A watch that the server does not end in time is ended by the client this much later."""
MAX_EVENT_BYTES = 32 * 1024 * 1024
_REFUSAL_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 500
MAX_PAGE_BYTES = 256 * 1024 * 1024
"""Longest page of a list. A pod has 5 to 20 KB."""

# Refuse compression: decompressing large lists would block the event loop.
_HEADERS = {"Accept-Encoding": "identity"}
_SUCCESS = (200, 201)
_CAUSES = {
    401: "unauthorized",
    403: "forbidden",
    404: "missing",
    409: "conflict",
    410: "expired",
    429: "throttled",
}

Call = Callable[..., Awaitable[aiohttp.ClientResponse]]


class CredentialsError(ValueError):
    """No usable credentials for an API server. The message says where they were expected."""


class ApiError(Exception):
    """A call of the API failed."""

    def __init__(self, cause: str, message: str) -> None:
        self.cause = cause
        """``expired`` (410), ``forbidden``, ``unauthorized``, ``missing``, ``conflict``,
        ``throttled`` (429), ``credentials``, ``status``, ``timeout``, ``connect`` or ``malformed``:
        a metric label."""
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to reach the API server.

    Without a kubeconfig: the pod's service account, else ``$KUBECONFIG``, else ``~/.kube/config``.
    """

    kubeconfig: Path | None = None
    context: str | None = None


class WatchEvent(msgspec.Struct, frozen=True):
    """One line of a watch."""

    type: str
    """``ADDED``, ``MODIFIED``, ``DELETED``, ``BOOKMARK`` or ``ERROR``."""
    object: msgspec.Raw


class Status(msgspec.Struct, frozen=True):
    """The API server's description of a failure."""

    message: str = ""
    reason: str = ""
    code: int = 0


_Read = TypeVar("_Read")

_events = msgspec.json.Decoder(WatchEvent)
_statuses = msgspec.json.Decoder(Status)


class KubernetesApi:
    """A client with the credentials that were valid when it was opened.

    The client reloads service account tokens every minute. After any other rotation of
    credentials, open a new client.
    """

    def __init__(self, client: ApiClient) -> None:
        self.client = client
        """What further calls are made with, through ``answer``."""

    @classmethod
    async def open(cls, credentials: Credentials) -> Self:
        """Read the credentials, without connecting.

        Raises:
            CredentialsError: There are no credentials, or they cannot be read.
        """
        configuration: Any = Configuration()
        try:
            if _is_in_cluster(credentials):
                config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                await config.load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=str(credentials.kubeconfig) if credentials.kubeconfig else None,
                    context=credentials.context,
                    client_configuration=configuration,
                    persist_config=False,
                )
            # Retries are the caller's: it knows when a retry is useful.
            configuration.retries = None
            return cls(ApiClient(configuration))
        except (
            config.ConfigException,
            OSError,
            SSLError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
            yaml.YAMLError,
        ) as error:
            raise CredentialsError(f"{_looked_in(credentials)}: {reason_of(error)}") from error

    async def close(self) -> None:
        """Close all connections."""
        await self.client.close()  # type: ignore[no-untyped-call]

    async def send(
        self,
        *,
        method: str,
        path: str,
        body: Mapping[str, Any],
        content_type: str = "application/json",
        query: Mapping[str, str] = MappingProxyType({}),
        _headers: dict[str, str],
        _request_timeout: float,
        **names: str,
    ) -> aiohttp.ClientResponse:
        """Send a document as it is: a ``Call`` for ``answer``.

        The client's own calls make a model of a document, which loses what this release of the
        client does not know, and writes times in a form that the API server does not always accept.
        """
        client = self.client
        request = await client.param_serialize(
            method=method,
            resource_path=path,
            path_params=names,
            query_params=list(query.items()),
            header_params={
                **_headers,
                "Accept": "application/json",
                "Content-Type": content_type,
            },
            body=body,
            auth_settings=["BearerToken"],
        )
        response = await client.call_api(
            *request, _request_timeout=_request_timeout, _preload_content=False
        )
        answer: aiohttp.ClientResponse = response.response
        return answer

    @asynccontextmanager
    async def answer(
        self, call: Call, time_limit: float, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request. The block reads the response.

        Args:
            call: A method of the client's API classes that returns the response itself.
            time_limit: The timeout that ``options`` sets, for the error message.
            options: The arguments of ``call``.

        Raises:
            ApiError: The call failed, or the server refused it.
        """
        try:
            response = await call(_headers=dict(_HEADERS), **options)
            try:
                if response.status not in _SUCCESS:
                    raise _refusal(response.status, await response.content.read(_REFUSAL_BYTES))
                yield response
            finally:
                response.close()
        except TimeoutError:
            raise ApiError("timeout", f"no complete response within {time_limit:g} s") from None
        except (config.ConfigException, FileNotFoundError) as error:
            # The client reloads the token's file, which may be gone.
            raise ApiError("credentials", reason_of(error)) from None
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            raise ApiError("connect", reason_of(error)) from None


async def read_events(response: aiohttp.ClientResponse) -> AsyncGenerator[list[WatchEvent]]:
    """Yield the events of a watch that arrive together.

    Raises:
        ApiError: A line is too long or not an event.
    """
    async for lines in _lines(response.content.iter_any()):
        if batch := [_decoded(_events.decode, line) for line in lines if line.strip()]:
            yield batch


async def read_body(response: aiohttp.ClientResponse, limit: int = MAX_PAGE_BYTES) -> bytes:
    """Return the whole response.

    Raises:
        ApiError: It is longer than ``limit`` bytes.
    """
    pieces = []
    size = 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise ApiError("malformed", f"a response is longer than {limit} bytes")
    return b"".join(pieces)


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[list[bytes]]:
    """Yield the lines that each chunk completes.

    Raises:
        ApiError: A line is too long.
    """
    pieces: list[bytes] = []
    size = 0
    async for chunk in chunks:
        first, *others = chunk.split(b"\n")
        pieces.append(first)
        size += len(first)
        if size > MAX_EVENT_BYTES:
            raise ApiError("malformed", f"an event is longer than {MAX_EVENT_BYTES} bytes")
        if others:
            # Joined once: joining at each chunk takes quadratic time for a long line.
            lines = [b"".join(pieces), *others[:-1]]
            pieces, size = [others[-1]], len(others[-1])
            yield lines


def event_error(event: WatchEvent) -> ApiError:
    """Return the error that an ``ERROR`` event contains."""
    status = _decoded(_statuses.decode, event.object)
    return _error_of(status.code, status.message)


def _is_in_cluster(credentials: Credentials) -> bool:
    return credentials.kubeconfig is None and bool(os.environ.get(IN_CLUSTER_VARIABLE))


def _looked_in(credentials: Credentials) -> str:
    if credentials.kubeconfig is not None:
        return f"kubeconfig {credentials.kubeconfig}"
    if _is_in_cluster(credentials):
        return "the pod's service account"
    return f"kubeconfig {os.environ.get('KUBECONFIG') or '~/.kube/config'}"


def _refusal(code: int, body: bytes) -> ApiError:
    try:
        message = _statuses.decode(body).message
    except msgspec.MsgspecError:
        message = ""
    return _error_of(code, message)


def _error_of(code: int, message: str) -> ApiError:
    reason = message[:_SHOWN_CHARACTERS] or "no reason given"
    return ApiError(_CAUSES.get(code, "status"), f"status {code}: {reason}")


def _decoded(decode: Callable[[bytes | msgspec.Raw], _Read], data: bytes | msgspec.Raw) -> _Read:
    try:
        return decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError("malformed", f"unexpected response: {error}") from None
