"""Gets pods' pages over HTTP: one kept connection for each pod, a bound on time and size."""

from functools import lru_cache

import aiohttp
from yarl import URL

MAX_PAGE_BYTES = 4 * 1024 * 1024
"""Longest ``/metrics``. A vLLM page has 60 KB, and 170 bytes for each combination of adapters."""
MAX_MODELS_BYTES = 16 * 1024 * 1024
"""Longest ``/v1/models``. vLLM writes about 550 bytes for each adapter."""

# Taking a URL apart costs a fifth of a read over a kept connection.
_url = lru_cache(maxsize=16384)(URL)


class ScrapeError(Exception):
    """A read failed."""

    def __init__(self, cause: str, message: str) -> None:
        self.cause = cause
        """``timeout``, ``connect``, ``status``, ``too-large``, ``malformed`` or ``internal``."""
        super().__init__(message)


class PageReader:
    """An HTTP client for pages that are read again and again. Make it in the event loop."""

    def __init__(self, timeout: float) -> None:
        """Prepare.

        Args:
            timeout: Longest time for one read, in seconds.
        """
        self._timeout = timeout
        self._session = aiohttp.ClientSession(
            # How many are read at once is the caller's to say.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60, ttl_dns_cache=60),
            timeout=aiohttp.ClientTimeout(total=timeout),
            headers={"accept-encoding": "identity", "user-agent": "lora-router"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def get(
        self, url: str, headers: dict[str, str] | None = None, *, max_bytes: int
    ) -> bytes:
        """Return a page.

        Raises:
            ScrapeError: There is none, or too much of it, or not in time.
        """
        try:
            async with self._session.get(
                _url(url), headers=headers, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise ScrapeError("status", f"{url} answers with status {response.status}")
                return await _bounded(response, url, max_bytes)
        except TimeoutError:
            raise ScrapeError(
                "timeout", f"{url} gave no answer within {self._timeout:g} s"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Some errors have no text of their own.
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
