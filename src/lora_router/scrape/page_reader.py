"""Reads pods' pages over HTTP: one persistent connection per pod, bounded in time and size."""

import errno
import time
from collections.abc import Callable
from functools import lru_cache

import aiohttp
from yarl import URL

MAX_PAGE_BYTES = 4 * 1024 * 1024
"""Longest ``/metrics`` page. vLLM's has 60 KB, plus 170 bytes per combination of adapters."""
MAX_MODELS_BYTES = 16 * 1024 * 1024
"""Longest ``/v1/models`` page. vLLM writes about 550 bytes per adapter."""

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

    def __init__(self, cause: str, message: str, *, unreachable: bool = False) -> None:
        self.cause = cause
        """``timeout``, ``connect``, ``status``, ``too-large``, ``malformed`` or ``internal``."""
        self.unreachable = unreachable
        """Whether the server refused or reset the connection, or did not respond in time."""
        super().__init__(message)


class PageReader:
    """An HTTP client for pages that are read periodically. Must be created in the event loop."""

    def __init__(self, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a client.

        Args:
            timeout: Timeout of one read in seconds.
            clock: Returns seconds, monotonic.
        """
        self._timeout = timeout
        self._clock = clock
        self._session = aiohttp.ClientSession(
            # The caller limits concurrency.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60, ttl_dns_cache=60),
            timeout=aiohttp.ClientTimeout(total=timeout),
            headers={"accept-encoding": "identity", "user-agent": "lora-router"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def get(
        self, url: str, headers: dict[str, str] | None = None, *, max_bytes: int
    ) -> bytes:
        """Return a page.

        Raises:
            ScrapeError: The pod cannot be reached, does not return status 200, returns more than
                ``max_bytes``, or does not respond within the timeout.
        """
        started = self._clock()
        try:
            async with self._session.get(
                _url(url), headers=headers, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise ScrapeError("status", f"{url} returned status {response.status}")
                return await _bounded(response, url, max_bytes)
        except TimeoutError:
            raise ScrapeError(
                "timeout",
                f"{url}: no complete response within {self._timeout:g} s",
                unreachable=self._clock() - started < self._timeout + _STALL_SECONDS,
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Some of these errors have no text.
            message = f"{url}: {str(error) or type(error).__name__}"
            if isinstance(error, OSError) and error.errno in _OWN_FAULTS:
                raise ScrapeError("internal", message) from None
            unreachable = isinstance(error, _UNREACHABLE) and not isinstance(error, _NOT_ITS_FAULT)
            raise ScrapeError("connect", message, unreachable=unreachable) from None


async def _bounded(response: aiohttp.ClientResponse, url: str, max_bytes: int) -> bytes:
    pieces = []
    size = 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise ScrapeError("too-large", f"{url} is longer than {max_bytes} bytes")
    return b"".join(pieces)
