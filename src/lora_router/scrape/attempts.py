"""One attempt to read a page of a pod, from the wait for a place to the result in the fleet.

Concurrency is limited, and each read has a timeout. A failed read only increments a counter: the
last snapshot stays in use and becomes stale. The same holds for a fault in this process while it
handles a page: the read fails with cause ``internal``, and the next one follows at its usual time.
Reads that take long, and those of pods that failed, leave room for the others (``places``).
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlsplit

from lora_router.fleet.catalog_digests import CatalogDigests
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.reading import ReadFailure, Reading
from lora_router.scrape.breaks import with_breaks
from lora_router.scrape.followers import Followers
from lora_router.scrape.intake import Intake, RefusedReading
from lora_router.scrape.lacking import read_list, read_load
from lora_router.scrape.models_plan import ModelsPlan
from lora_router.scrape.page_reader import LongPageError, ScrapeError
from lora_router.scrape.places import Places
from lora_router.scrape.pod_pages import PodPages
from lora_router.scrape.read_health import Kind, ReadHealth
from lora_router.supervision import Supervisor, describe


class ScrapeObserver(Protocol):
    """Counts scrapes."""

    def scraped(self, kind: str, pod: str, seconds: float) -> None:
        """Count a successful read and its duration."""

    def failed(self, kind: str, pod: str, cause: str) -> None:
        """Count a failed read. ``cause`` is one of a few words, for a label."""


class Attempts:
    """Reads pages of pods, a limited number at once."""

    def __init__(  # noqa: PLR0913 -- each is a part of the scraper
        self,
        pages: PodPages,
        concurrency: int,
        observer: ScrapeObserver,
        supervisor: Supervisor,
        clock: Callable[[], float],
        *,
        intake: Intake,
        followers: Followers,
        plan: ModelsPlan,
        digests: CatalogDigests | None,
        on_tried: Callable[[PodState, Kind], None],
    ) -> None:
        """Prepare to read.

        Args:
            pages: Gets the pages.
            concurrency: Maximum number of concurrent reads that are not slow.
            observer: Counts the reads.
            supervisor: Is told of faults in this process.
            clock: The router's monotonic clock.
            intake: Puts readings into the fleet.
            followers: Are told of readings.
            plan: Is told when the read of a list starts and ends.
            digests: Gets the digests of all lists before these are handed on. ``None``: nobody
                needs them.
            on_tried: Called when an attempt has ended, however it ended.
        """
        self.pages = pages
        self._places = Places(concurrency)
        self._observer = observer
        self._supervisor = supervisor
        self._clock = clock
        self._intake = intake
        self._followers = followers
        self._plan = plan
        self._digests = digests
        self._on_tried = on_tried

    async def read_metrics(self, state: PodState, health: ReadHealth) -> bool:
        """Read a pod's ``/metrics`` once; return whether that succeeded."""
        return await self._attempt(state, "metrics", self._scrape, health)

    async def read_models(self, state: PodState, health: ReadHealth) -> bool:
        """Read a pod's ``/v1/models`` once; return whether that succeeded."""
        return await self._attempt(state, "models", self._list, health)

    async def _attempt(
        self,
        state: PodState,
        kind: Kind,
        read: Callable[[PodState, ReadHealth], Awaitable[None]],
        health: ReadHealth,
    ) -> bool:
        try:
            try:
                seconds = await self._read(state, kind, read, health)
            except LongPageError:
                health.is_long = True
                seconds = await self._read(state, kind, read, health)
            self._observer.scraped(kind, state.pod.name, seconds)
            health.good()
        except ScrapeError as error:
            self._failed(state, kind, error, health)
            return False
        except Exception as error:
            # A fault in this process, or in a listener of the fleet. It must neither end the pod's
            # scrapes nor slow them down.
            self._supervisor.failed(f"scrape-{kind}", error, about=state.pod.name)
            self._failed(state, kind, ScrapeError("internal", describe(error)), health)
            return False
        finally:
            if kind == "models":
                self._plan.ended(state)
            self._on_tried(state, kind)
        return True

    async def _read(
        self,
        state: PodState,
        kind: Kind,
        read: Callable[[PodState, ReadHealth], Awaitable[None]],
        health: ReadHealth,
    ) -> float:
        """Read a page when it is its turn, and return the seconds that it took."""
        pages = self.pages
        async with pages.place(kind, health) as long:
            failing = health.failures > 0 or state.unreachable_scrapes > 0
            on_slow = None
            if long is not None and kind == "metrics":
                on_slow = long.wait_outside
            elif long is not None and failing:
                long.free()
            async with self._places.place(failing=failing, on_slow=on_slow):
                await pages.turns.take()
                started = self._clock()
                await read(state, health)
                return self._clock() - started

    def _failed(self, state: PodState, kind: Kind, error: ScrapeError, health: ReadHealth) -> None:
        self._observer.failed(kind, state.pod.name, error.cause)
        health.bad(error)
        # Where another endpoint serves the metrics, it may fail alone.
        unreachable = error.unreachable and (
            kind == "models" or urlsplit(state.pod.metrics_url).netloc == state.pod.address
        )
        failure = ReadFailure(kind, error.cause, unreachable)
        reading = Reading(state, self._clock(), failure)
        # The pod may have left.
        with suppress(RefusedReading):
            self._intake.put(reading)
            self._followers.read(reading)

    async def _scrape(self, state: PodState, health: ReadHealth) -> None:
        metrics = await read_load(state, self.pages, health, self._clock)
        reading = Reading(state, metrics.scraped_at, metrics)
        self._put(reading)
        self._followers.read(reading)

    async def _list(self, state: PodState, health: ReadHealth) -> None:
        self._plan.started(state)
        read_at, models = self._clock(), await read_list(state, self.pages, health)
        if models is None:
            self._followers.read(Reading(state, read_at, ReadFailure("models", "status")))
            return
        self._put(Reading(state, read_at, models))
        if self._digests is not None:
            await with_breaks(self._digests.in_steps(state.catalog))
        # The same object for all pods that serve the same.
        self._followers.read(Reading(state, read_at, state.catalog))
        self._followers.listed(state, read_at)

    def _put(self, reading: Reading) -> None:
        try:
            self._intake.put(reading)
        except RefusedReading as error:
            if not error.is_outdated:
                raise ScrapeError(error.cause, str(error)) from None
