"""Scrapes ``/metrics`` and ``/v1/models`` of every ready pod periodically, spread over time.

Each pod and page has a supervised task. Concurrency is limited, and each read has a timeout. A
failed read only increments a counter: the last snapshot stays in use and becomes stale. The same
holds for a fault in this process while it handles a page: the read fails with cause ``internal``,
and the next one follows at its usual time.
Pods whose last read failed, often by timeout, use at most half of the concurrent reads. Any number
of failing pods therefore does not delay the others.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext
from functools import partial
from typing import Literal, Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.log_limit import LogLimit
from lora_router.scrape import page_reader
from lora_router.scrape.exposition import read_page
from lora_router.scrape.models import ModelsError, read_models
from lora_router.scrape.page_reader import PageReader, ScrapeError
from lora_router.scrape.schedule import ScrapeSchedule
from lora_router.scrape.series import ExpositionError, PageTooLargeError
from lora_router.supervision import Supervisor, cancel, describe

log = logging.getLogger("lora_router.scrape")

FIRST_RETRY_SECONDS = 1.0
"""First delay before a failed ``/v1/models`` is retried. Doubles up to the normal interval."""

Kind = Literal["metrics", "models"]


class ScrapeObserver(Protocol):
    """Counts scrapes."""

    def scraped(self, kind: str, pod: str, seconds: float) -> None:
        """Count a successful read and its duration."""

    def failed(self, kind: str, pod: str, cause: str) -> None:
        """Count a failed read. ``cause`` is one of a few words, for a label."""


class Scraper:
    """Keeps the fleet's snapshots and lists of models up to date."""

    def __init__(  # noqa: PLR0913 -- each is a setting or a part that tests replace
        self,
        fleet: Fleet,
        observer: ScrapeObserver,
        *,
        interval: float = 1.0,
        models_interval: float = 10.0,
        timeout: float = 2.0,
        concurrency: int = 64,
        api_key: SecretStr | None = None,
        supervisor: Supervisor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a scraper that does not run yet.

        Args:
            fleet: Provides the pods and receives the results.
            observer: Counts the reads.
            interval: Seconds between two reads of a pod's ``/metrics``.
            models_interval: Seconds between two reads of a pod's ``/v1/models``.
            timeout: Timeout of one read in seconds.
            concurrency: Maximum number of concurrent reads.
            api_key: Sent as bearer token when ``/v1/models`` is read.
            supervisor: Runs the tasks. Default: a supervisor of its own.
            clock: The router's monotonic clock.
        """
        self._fleet = fleet
        self._observer = observer
        self._interval = interval
        self._models_interval = models_interval
        self._timeout = timeout
        self._concurrency = concurrency
        self._api_key = api_key
        self._supervisor = supervisor or Supervisor()
        # A network failure causes a line for each pod, and a flapping network does so repeatedly.
        self._limit = LogLimit(10.0, burst=20, clock=clock)
        self._clock = clock
        self._tasks: dict[PodState, tuple[asyncio.Task[None], ...]] = {}
        self._pages: PageReader | None = None
        self._untried: set[tuple[PodState, Kind]] = set()
        self._all_tried = asyncio.Event()

    async def start(self) -> None:
        """Start to scrape the pods of the fleet, and follow its changes."""
        self._places = asyncio.Semaphore(self._concurrency)
        self._places_for_failing = asyncio.Semaphore(max(1, self._concurrency // 2))
        self._pages = PageReader(self._timeout)
        self._fleet.changes.pods.subscribe(self._follow)
        self._follow(tuple(self._fleet))

    async def stop(self) -> None:
        """Stop scraping. No task and no connection is left."""
        pages, self._pages = self._pages, None
        tasks = [task for pair in self._tasks.values() for task in pair]
        self._tasks.clear()
        try:
            await cancel(tasks)
        finally:
            if pages is not None:
                await pages.close()

    async def first_round(self) -> None:
        """Wait until every page of every pod that is ready now has been read or has failed."""
        await self._all_tried.wait()

    def _follow(self, changed: Iterable[PodState]) -> None:
        """Start to scrape pods that became ready. Stop for pods that left or are not ready."""
        if self._pages is None:
            return
        for state in changed:
            wanted = state.pod.ready and self._fleet.get(state.pod.name) is state
            if wanted and state not in self._tasks:
                self._untried.update((state, kind) for kind in _kinds_of(state))
                keep, name = self._supervisor.keep, state.pod.name
                self._tasks[state] = (
                    keep("scrape-metrics", partial(self._read_metrics, state), about=name),
                    keep("scrape-models", partial(self._read_models, state), about=name),
                )
            elif not wanted and state in self._tasks:
                for task in self._tasks.pop(state):
                    task.cancel()
                self._untried -= {(state, "metrics"), (state, "models")}
        self._note_progress()

    def _tried(self, state: PodState, kind: Kind) -> None:
        self._untried.discard((state, kind))
        self._note_progress()

    def _note_progress(self) -> None:
        if self._untried:
            self._all_tried.clear()
        else:
            self._all_tried.set()

    # One pod

    async def _read_metrics(self, state: PodState) -> None:
        health = _Health(state.pod.name, "metrics", self._limit)
        turns = ScrapeSchedule(state.pod.name, self._interval, self._clock)
        while True:
            # The first read is immediate.
            await self._attempt(state, "metrics", self._scrape, health)
            await asyncio.sleep(turns.wait())

    async def _read_models(self, state: PodState) -> None:
        health = _Health(state.pod.name, "models", self._limit)
        turns = ScrapeSchedule(state.pod.name, self._models_interval, self._clock)
        retry = FIRST_RETRY_SECONDS
        while True:
            # Check each time: an edit of the pods file can add the pod's models or remove them.
            if state.pod.models is not None or await self._attempt(
                state, "models", self._list, health
            ):
                retry = FIRST_RETRY_SECONDS
                await asyncio.sleep(turns.wait())
            else:
                await asyncio.sleep(min(retry, self._models_interval))
                retry *= 2

    async def _attempt(
        self,
        state: PodState,
        kind: Kind,
        read: Callable[[PodState], Awaitable[None]],
        health: "_Health",
    ) -> bool:
        try:
            narrow = self._places_for_failing if health.failing else nullcontext()
            async with narrow, self._places:
                started = self._clock()
                await read(state)
            self._observer.scraped(kind, state.pod.name, self._clock() - started)
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
            self._tried(state, kind)
        return True

    def _failed(self, state: PodState, kind: Kind, error: ScrapeError, health: "_Health") -> None:
        self._observer.failed(kind, state.pod.name, error.cause)
        health.bad(error)
        if kind == "metrics":
            # Where another endpoint serves the metrics, it may fail alone.
            unreachable = error.unreachable and urlsplit(state.pod.metrics_url).netloc == (
                state.pod.address
            )
            self._fleet.put_scrape_failure(state, self._clock(), unreachable=unreachable)

    async def _scrape(self, state: PodState) -> None:
        page = await self._get(state.pod.metrics_url, max_bytes=page_reader.MAX_PAGE_BYTES)
        try:
            metrics = read_page(
                page, engine=state.pod.engine, scraped_at=self._clock(), wall_now=time.time()
            )
        except PageTooLargeError as error:
            raise ScrapeError("too-large", str(error)) from None
        except ExpositionError as error:
            raise ScrapeError("malformed", str(error)) from None
        self._fleet.put_metrics(state, metrics)

    async def _list(self, state: PodState) -> None:
        headers = {}
        if self._api_key is not None:
            headers["authorization"] = f"Bearer {self._api_key.get_secret_value()}"
        body = await self._get(
            state.pod.models_url, headers, max_bytes=page_reader.MAX_MODELS_BYTES
        )
        try:
            models = read_models(body)
        except ModelsError as error:
            raise ScrapeError("malformed", str(error)) from None
        # The pods file may have named the models during this read.
        if state.pod.models is None:
            self._fleet.put_models(state, models)

    async def _get(
        self, url: str, headers: dict[str, str] | None = None, *, max_bytes: int
    ) -> bytes:
        assert self._pages is not None  # noqa: S101 -- tasks run between start and stop
        return await self._pages.get(url, headers, max_bytes=max_bytes)


def _kinds_of(state: PodState) -> tuple[Kind, ...]:
    return ("metrics", "models") if state.pod.models is None else ("metrics",)


class _Health:
    """Logs when the reads of a page start to fail, and when they recover."""

    __slots__ = ("_kind", "_limit", "_pod", "failing")

    def __init__(self, pod: str, kind: Kind, limit: LogLimit) -> None:
        self._pod = pod
        self._kind = kind
        self._limit = limit
        self.failing = False

    def good(self) -> None:
        if self.failing:
            self.failing = False
            message = "scrape of %s of pod %s recovered"
            self._limit.log(log, logging.INFO, "recovered", message, self._kind, self._pod)

    def bad(self, error: ScrapeError) -> None:
        if not self.failing:
            self.failing = True
            self._limit.log(
                log,
                logging.WARNING,
                error.cause,
                "scrape of %s of pod %s failed, the last snapshot stays in use: %s",
                self._kind,
                self._pod,
                error,
            )
