"""Reads pods' pages over HTTP: one persistent connection per pod, bounded in time and size."""

from functools import lru_cache

import aiohttp
from yarl import URL

MAX_PAGE_BYTES = 4 * 1024 * 1024
"""Longest ``/metrics`` page. vLLM's has 60 KB, plus 170 bytes per combination of adapters."""
MAX_MODELS_BYTES = 16 * 1024 * 1024
"""Longest ``/v1/models`` page. vLLM writes about 550 bytes per adapter."""

# Parsing a URL costs a fifth of a read over a persistent connection.
_url = lru_cache(maxsize=16384)(URL)


class ScrapeError(Exception):
    """A read of a page failed."""

    def __init__(self, cause: str, message: str) -> None:
        self.cause = cause
        """``timeout``, ``connect``, ``status``, ``too-large``, ``malformed`` or ``internal``."""
        super().__init__(message)


class PageReader:
    """An HTTP client for pages that are read periodically. Must be created in the event loop."""

    def __init__(self, timeout: float) -> None:
        """Create a client.

        Args:
            timeout: Timeout of one read in seconds.
        """
        self._timeout = timeout
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
        try:
            async with self._session.get(
                _url(url), headers=headers, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise ScrapeError("status", f"{url} returned status {response.status}")
                return await _bounded(response, url, max_bytes)
        except TimeoutError:
            raise ScrapeError(
                "timeout", f"{url}: no complete response within {self._timeout:g} s"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Some of these errors have no text.
            raise ScrapeError("connect", f"{url}: {str(error) or type(error).__name__}") from None


async def _bounded(response: aiohttp.ClientResponse, url: str, max_bytes: int) -> bytes:
    pieces = []
    size = 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise ScrapeError("too-large", f"{url} is longer than {max_bytes} bytes")
    return b"".join(pieces)
