"""Reads the pages of pods so that other work of the event loop is hardly delayed.

- Few reads start, and few pages are handled, in one turn of the loop.
- A page is read in steps (``steps``). Few long pages are read at once (``long_pages``).
- A long list of models takes a fortieth of one CPU, and few are read at once, so that all of them
  together take a tenth. If there are many, each is read less often.

A read that does not expect a long page ends with ``LongPageError``, and waits for its turn among
the long ones.
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
from lora_router.scrape.exposition import (
    PAGE_PREFIX,
    UnknownPageError,
    page_in_steps,
)
from lora_router.scrape.long_pages import LongPages, LongPlace
from lora_router.scrape.models import ModelsError, Roots, TooManyModelsError, models_in_steps
from lora_router.scrape.page_reader import PageReader, ScrapeError
from lora_router.scrape.pod_access import PodAccess
from lora_router.scrape.read_health import Kind, ReadHealth
from lora_router.scrape.series import ExpositionError, PageTooLargeError
from lora_router.scrape.turns import Turns
from lora_router.steps import Steps

READS_IN_A_TURN = 4
"""Reads that start, or whose pages are handled, in one turn of the event loop."""
LONG_LISTS_AT_ONCE = 4
"""Long lists of models that are read at the same time."""

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
        self._long = LongPages()
        self._long_lists = asyncio.Semaphore(LONG_LISTS_AT_ONCE)
        self.roots: Roots | None = None
        """Is told from where pods have loaded adapters."""

    @property
    def serving(self) -> bool:
        """Whether requests are served. Until then, long pages are read without long breaks."""
        return self._long.resting

    @serving.setter
    def serving(self, serving: bool) -> None:
        self._long.resting = serving

    async def close(self) -> None:
        """Close all connections."""
        await self._reader.close()

    def place(
        self, kind: Kind, health: ReadHealth
    ) -> AbstractAsyncContextManager[LongPlace | None]:
        """Return what a read must hold if its last page was long."""
        if not health.is_long:
            return nullcontext()
        if kind == "metrics":
            return self._long.place(health)
        # Its breaks are within the read.
        return LongPlace(self._long_lists, health, lambda: False)

    async def metrics(self, pod: Pod, health: ReadHealth) -> PodMetrics:
        """Read ``/metrics``.

        Raises:
            ScrapeError: The page cannot be read.
        """
        wall_now = time.time()
        # A pod that does not answer waits for nobody the next time.
        may_be_long, health.is_long, health.work = health.is_long, False, 0.0
        try:
            async with self._reader.page(
                pod.metrics_url,
                self._access.current.metrics_headers,
                max_bytes=page_reader.MAX_PAGE_BYTES,
                prefix=PAGE_PREFIX,
                may_be_long=may_be_long,
                page_filter=self._long.page(health, wall_now),
            ) as page:
                steps = page_in_steps(
                    page, engine=pod.engine, scraped_at=self._clock(), wall_now=wall_now
                )
                return await self._read(steps)
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
        may_be_long, health.is_long = health.is_long, False
        async with self._reader.page(
            pod.models_url,
            self._access.current.api_headers,
            max_bytes=page_reader.MAX_MODELS_BYTES,
            may_be_long=may_be_long,
        ) as page:
            health.is_long = len(page) > page_reader.LONG_PAGE_BYTES
            try:
                return await self._read(models_in_steps(page, pod.engine, self.roots))
            except TooManyModelsError as error:
                raise ScrapeError("too-large", str(error)) from None
            except ModelsError as error:
                raise ScrapeError("malformed", str(error)) from None

    async def _read(self, steps: Steps[_Result]) -> _Result:
        """Do the steps of reading a page."""
        await self.turns.take()
        return await with_breaks(steps, pause=BREAK if self.serving else 0)
