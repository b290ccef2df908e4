"""Reads the pages of pods so that other work of the event loop is hardly delayed.

- Few reads start, and few pages are handled, in one turn of the loop.
- A page is read in steps (``steps``). A long one takes a fortieth of one CPU, and few long pages
  are read at once, so that all of them together take a tenth. If there are many long pages, each is
  read less often.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TypeVar

from lora_router.fleet.catalog import Catalog
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.scrape import page_reader
from lora_router.scrape.breaks import BREAK, with_breaks
from lora_router.scrape.exposition import PAGE_PREFIX, UnknownPageError, page_in_steps
from lora_router.scrape.models import ModelsError, Roots, TooManyModelsError, models_in_steps
from lora_router.scrape.page_reader import PageReader, ScrapeError
from lora_router.scrape.pod_access import PodAccess
from lora_router.scrape.read_health import ReadHealth
from lora_router.scrape.series import ExpositionError, PageTooLargeError
from lora_router.scrape.turns import Turns
from lora_router.steps import Steps

READS_IN_A_TURN = 4
"""Reads that start, or whose pages are handled, in one turn of the event loop."""
LONG_PAGES_AT_ONCE = 4
"""Long pages that are read at the same time."""

_Result = TypeVar("_Result")


class PodPages:
    """Reads pods' pages. Must be created in the event loop."""

    def __init__(
        self,
        timeout: float,
        *,
        access: PodAccess | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a reader.

        Args:
            timeout: Timeout of one read in seconds.
            access: The keys for pods, and whose certificates are accepted. Default: no keys.
            clock: The router's monotonic clock.
        """
        self._access = access or PodAccess()
        self._reader = PageReader(timeout, clock, self._access)
        self._clock = clock
        self.turns = Turns(READS_IN_A_TURN)
        """What the start of a read, and the handling of its page, take."""
        self._long = asyncio.Semaphore(LONG_PAGES_AT_ONCE)
        self._newly_long = asyncio.Semaphore(LONG_PAGES_AT_ONCE)
        self.roots: Roots | None = None
        """Is told from where pods have loaded adapters."""
        self.serving = False
        """Whether requests are served. Until then, long pages are read without long breaks."""

    async def close(self) -> None:
        """Close all connections."""
        await self._reader.close()

    def place(self, health: ReadHealth) -> AbstractAsyncContextManager[None]:
        """Return what a read must hold if its last page was long."""
        return self._long if health.is_long else nullcontext()

    async def metrics(self, pod: Pod, health: ReadHealth) -> PodMetrics:
        """Read ``/metrics``.

        Raises:
            ScrapeError: The page cannot be read.
        """
        async with self._reader.page(
            pod.metrics_url,
            self._access.current.metrics_headers,
            max_bytes=page_reader.MAX_PAGE_BYTES,
            prefix=PAGE_PREFIX,
        ) as page:
            steps = page_in_steps(
                page, engine=pod.engine, scraped_at=self._clock(), wall_now=time.time()
            )
            try:
                return await self._read(page, steps, health)
            except PageTooLargeError as error:
                raise ScrapeError("too-large", str(error)) from None
            except UnknownPageError as error:
                message = f"{pod.metrics_url}: {error}"
                raise ScrapeError("malformed", message, lacks_page=True) from None
            except ExpositionError as error:
                raise ScrapeError("malformed", str(error)) from None

    async def models(self, pod: Pod, health: ReadHealth) -> Catalog:
        """Read ``/v1/models``.

        Raises:
            ScrapeError: The list cannot be read.
        """
        async with self._reader.page(
            pod.models_url,
            self._access.current.api_headers,
            max_bytes=page_reader.MAX_MODELS_BYTES,
        ) as page:
            try:
                return await self._read(page, models_in_steps(page, pod.engine, self.roots), health)
            except TooManyModelsError as error:
                raise ScrapeError("too-large", str(error)) from None
            except ModelsError as error:
                raise ScrapeError("malformed", str(error)) from None

    async def _read(self, page: bytes, steps: Steps[_Result], health: ReadHealth) -> _Result:
        """Do the steps of reading a page, in a place for long pages if it is one."""
        await self.turns.take()
        was_long, health.is_long = health.is_long, len(page) > page_reader.LONG_PAGE_BYTES
        # A page that was short has no such place yet. It gets one of another kind: those who have a
        # place of the first kind may be waiting for something that this read holds.
        newly_long = self._newly_long if health.is_long and not was_long else nullcontext()
        async with newly_long:
            return await with_breaks(steps, pause=BREAK if self.serving else 0)
