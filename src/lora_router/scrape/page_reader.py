"""Reads pods' pages over HTTP: one persistent connection per pod, bounded in time and size.

A page that turns out to be long is read only by who expects it. Others get an error at once, and
read it again when it is their turn. A long page can be filtered while it arrives.
"""

import errno
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Protocol

import aiohttp
from yarl import URL

from lora_router.connection_error import reason_of
from lora_router.scrape.bounded_connection import (
    BoundedConnector,
    BoundedHandler,
    WastefulResponseError,
)
from lora_router.scrape.pod_access import PodAccess

MAX_PAGE_BYTES = 32 * 1024 * 1024
"""Longest ``/metrics`` page. vLLM's has 60 KB, and the names of each combination of adapters twice.
It takes a server about a second to write a page of this length."""
MAX_MODELS_BYTES = 16 * 1024 * 1024
"""Longest ``/v1/models`` page. vLLM writes about 550 bytes per adapter."""

LONG_PAGE_BYTES = 256 * 1024
"""A longer page is read in its own time, and few of them at once."""
MAX_HELD_BYTES = 64 * 1024 * 1024
"""Memory of all pages that are being read. A long page that needs more is not read to its end."""
_FILTERED_BYTES = 64 * 1024
"""A long page is filtered when so much of it has arrived."""
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


class LongPageError(Exception):
    """A page is long, and is not expected to be."""


class Filter(Protocol):
    """Takes in a long page while it arrives, and holds only a part of it."""

    async def add(self, data: bytes) -> int:
        """Take in what follows; return the number of bytes that are held.

        Raises:
            ScrapeError: The page exceeds a limit.
        """

    async def finish(self) -> bytes:
        """Return what is held.

        Raises:
            ScrapeError: The page exceeds a limit.
        """


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
        may_be_long: bool = True,
        page_filter: Filter | None = None,
    ) -> AsyncIterator[bytes]:
        """Yield a page after ``prefix``. Its memory counts until the context ends.

        Args:
            url: The page.
            headers: Headers of the request.
            max_bytes: The longest page that is read.
            prefix: What a page that is not filtered begins with.
            may_be_long: Whether a long page is read.
            page_filter: Filters a long page.

        Raises:
            ScrapeError: The pod cannot be reached, does not return status 200, returns more than
                ``max_bytes``, or does not respond within the timeout.
            LongPageError: The page is long, and ``may_be_long`` is false.
        """
        size = _Size(self._held)
        body = _Body(url, size, max_bytes, may_be_long, page_filter)
        try:
            yield await self._get(url, headers, body, prefix)
        finally:
            size.release()

    async def _get(
        self, url: str, headers: Mapping[str, str] | None, body: "_Body", prefix: bytes
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
                body.check(response.content_length or 0)
                return await body.read(response, prefix)
        except WastefulResponseError as error:
            raise ScrapeError("too-large", f"{url}: {error}") from None
        except TimeoutError:
            raise ScrapeError(
                "timeout",
                f"{url}: no complete response within {self._timeout:g} s",
                # A pod that sends so much can be reached.
                unreachable=not body.is_long
                and self._clock() - started < self._timeout + _STALL_SECONDS,
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

    __slots__ = ("_all", "held", "received")

    def __init__(self, held: _Held) -> None:
        self._all = held
        self.received = 0
        self.held = 0

    def add(self, count: int) -> None:
        """Count bytes that have arrived."""
        self.received += count
        self.hold(self.held + count)

    def hold(self, count: int) -> None:
        """Count the bytes that are held now."""
        self._all.bytes += count - self.held
        self.held = count

    def release(self) -> None:
        self.hold(0)

    @property
    def is_affordable(self) -> bool:
        """Whether all pages together fit into memory. A short page always does."""
        return self.held <= LONG_PAGE_BYTES or self._all.bytes <= MAX_HELD_BYTES


class _Body:
    """The body of one response."""

    __slots__ = ("_filter", "_max_bytes", "_may_be_long", "_size", "_url")

    def __init__(
        self, url: str, size: _Size, max_bytes: int, may_be_long: bool, page_filter: Filter | None
    ) -> None:
        self._url = url
        self._size = size
        self._max_bytes = max_bytes
        self._may_be_long = may_be_long
        self._filter = page_filter

    @property
    def is_long(self) -> bool:
        """Whether so much has arrived that the page is long."""
        return self._size.received > LONG_PAGE_BYTES

    def check(self, length: int) -> None:
        """Raise an error if a page of this length is not to be read."""
        if length > self._max_bytes:
            raise ScrapeError("too-large", f"{self._url} is longer than {self._max_bytes} bytes")
        if length > LONG_PAGE_BYTES and not self._may_be_long:
            raise LongPageError

    async def read(self, response: aiohttp.ClientResponse, prefix: bytes) -> bytes:
        """Return the body after ``prefix``, or what is kept of it."""
        connection = response.connection
        handler = connection.protocol if connection is not None else None
        url, size = self._url, self._size
        pieces, pending = [prefix], 0
        async for piece in response.content.iter_any():
            pieces.append(piece)
            pending += len(piece)
            size.add(len(piece))
            self.check(size.received)
            if not size.is_affordable:
                message = f"{url}: too many long pages are read at the same time"
                raise ScrapeError("too-large", message)
            waste = handler.received - size.received if isinstance(handler, BoundedHandler) else 0
            if waste > _MAX_WASTE_BYTES:
                raise ScrapeError("too-large", f"{url}: most of the response is not its body")
            if self._filter is not None and self.is_long and pending >= _FILTERED_BYTES:
                size.hold(await self._filter.add(b"".join(pieces)))
                pieces, pending = [], 0
        if self._filter is None or not self.is_long:
            return b"".join(pieces)
        await self._filter.add(b"".join(pieces))
        page = await self._filter.finish()
        size.hold(len(page))
        return page
