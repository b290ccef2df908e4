"""Reads pods' pages over HTTP: one persistent connection per pod, bounded in time and size."""

import errno
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache

import aiohttp
from yarl import URL

from lora_router.connection_error import reason_of
from lora_router.scrape.bounded_connection import (
    BoundedConnector,
    BoundedHandler,
    WastefulResponseError,
)
from lora_router.scrape.pod_access import PodAccess

MAX_PAGE_BYTES = 4 * 1024 * 1024
"""Longest ``/metrics`` page. vLLM's has 60 KB, plus 170 bytes per combination of adapters."""
MAX_MODELS_BYTES = 16 * 1024 * 1024
"""Longest ``/v1/models`` page. vLLM writes about 550 bytes per adapter."""

LONG_PAGE_BYTES = 256 * 1024
"""A longer page is read in its own time, and few of them at once."""
MAX_HELD_BYTES = 64 * 1024 * 1024
"""Memory of all pages that are being read. A long page that needs more is not read to its end."""
_MAX_WASTE_BYTES = 1024 * 1024
"""Bytes of a response beside its body."""
_ABSENT = frozenset((404, 405, 501))
"""Statuses of a server that does not have a page, and will not have it."""
_STALL_SECONDS = 0.1
"""A timeout that fires this late shows that this process was stalled, not that the server was."""
_OWN_FAULTS = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL)
)
"""This process or its host has no descriptors, memory or ports left."""
_UNREACHABLE = (
    aiohttp.ClientConnectionError,
    # The response was cut off.
    aiohttp.ClientPayloadError,
    ConnectionError,
)
_NOT_ITS_FAULT = (aiohttp.ClientConnectorDNSError, aiohttp.ClientSSLError)
"""A name that does not resolve, and a certificate that is not accepted: the server may be fine."""

# Parsing a URL costs a fifth of a read over a persistent connection.
_url = lru_cache(maxsize=16384)(URL)


class ScrapeError(Exception):
    """A read of a page failed."""

    def __init__(
        self, cause: str, message: str, *, unreachable: bool = False, lacks_page: bool = False
    ) -> None:
        self.cause = cause
        """``timeout``, ``connect``, ``status``, ``too-large``, ``malformed`` or ``internal``."""
        self.unreachable = unreachable
        """Whether the server refused or reset the connection, or did not respond in time."""
        self.lacks_page = lacks_page
        """Whether the server works but has no such page, or one of an unknown kind."""
        super().__init__(message)


class PageReader:
    """An HTTP client for pages that are read periodically. Must be created in the event loop."""

    def __init__(
        self,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        access: PodAccess | None = None,
    ) -> None:
        """Create a client.

        Args:
            timeout: Timeout of one read in seconds.
            clock: Returns seconds, monotonic.
            access: Whose certificates are accepted. Default: those that the system accepts.
        """
        self._access = access or PodAccess()
        self._timeout = timeout
        self._clock = clock
        self._held = _Held()
        self._session = aiohttp.ClientSession(
            # The caller limits concurrency.
            connector=BoundedConnector(limit=0, keepalive_timeout=60, ttl_dns_cache=60),
            timeout=aiohttp.ClientTimeout(total=timeout),
            headers={"accept-encoding": "identity", "user-agent": "lora-router"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    @asynccontextmanager
    async def page(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        max_bytes: int,
        prefix: bytes = b"",
    ) -> AsyncIterator[bytes]:
        """Yield a page after ``prefix``. Its memory counts until the context ends.

        Raises:
            ScrapeError: The pod cannot be reached, does not return status 200, returns more than
                ``max_bytes``, or does not respond within the timeout.
        """
        size = _Size(self._held)
        try:
            yield await self._get(url, headers, size, max_bytes, prefix)
        finally:
            size.release()

    async def _get(
        self,
        url: str,
        headers: Mapping[str, str] | None,
        size: "_Size",
        max_bytes: int,
        prefix: bytes,
    ) -> bytes:
        started = self._clock()
        try:
            async with self._session.get(
                _url(url),
                headers=headers,
                allow_redirects=False,
                ssl=self._access.current.tls,
                server_hostname=self._access.server_name,
            ) as response:
                if response.status != 200:
                    raise ScrapeError(
                        "status",
                        f"{url} returned status {response.status}",
                        lacks_page=response.status in _ABSENT,
                    )
                if (response.content_length or 0) > max_bytes:
                    raise _too_long(url, max_bytes)
                return b"".join((prefix, *await _pieces(response, url, size, max_bytes)))
        except WastefulResponseError as error:
            raise ScrapeError("too-large", f"{url}: {error}") from None
        except TimeoutError:
            raise ScrapeError(
                "timeout",
                f"{url}: no complete response within {self._timeout:g} s",
                unreachable=self._clock() - started < self._timeout + _STALL_SECONDS,
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            message = f"{url}: {reason_of(error)}"
            if isinstance(error, OSError) and error.errno in _OWN_FAULTS:
                raise ScrapeError("internal", message) from None
            unreachable = isinstance(error, _UNREACHABLE) and not isinstance(error, _NOT_ITS_FAULT)
            raise ScrapeError("connect", message, unreachable=unreachable) from None


class _Held:
    """The bytes of all pages that are being read."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class _Size:
    """The bytes of one page."""

    __slots__ = ("_held", "bytes")

    def __init__(self, held: _Held) -> None:
        self._held = held
        self.bytes = 0

    def add(self, count: int) -> None:
        self.bytes += count
        self._held.bytes += count

    def release(self) -> None:
        self._held.bytes -= self.bytes

    @property
    def is_affordable(self) -> bool:
        """Whether all pages together fit into memory. A short page always does."""
        return self.bytes <= LONG_PAGE_BYTES or self._held.bytes <= MAX_HELD_BYTES


async def _pieces(
    response: aiohttp.ClientResponse, url: str, size: _Size, max_bytes: int
) -> Sequence[bytes]:
    connection = response.connection
    handler = connection.protocol if connection is not None else None
    pieces = []
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size.add(len(piece))
        if size.bytes > max_bytes:
            raise _too_long(url, max_bytes)
        if not size.is_affordable:
            raise ScrapeError("too-large", f"{url}: too many long pages are read at the same time")
        if isinstance(handler, BoundedHandler) and handler.received - size.bytes > _MAX_WASTE_BYTES:
            raise ScrapeError("too-large", f"{url}: most of the response is not its body")
    return pieces


def _too_long(url: str, max_bytes: int) -> ScrapeError:
    return ScrapeError("too-large", f"{url} is longer than {max_bytes} bytes")
