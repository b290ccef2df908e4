"""Reads every ready pod's ``/metrics`` and ``/v1/models``, again and again, spread in time.

One supervised task for each pod and page, a bound on how many read at once, a time limit on each
read. A read that fails changes nothing but a count: the last good snapshot stays and grows old. The
same holds for a read that fails here, because of a fault in this process: it has the cause
``internal``, and the pod is read again at its usual time.
Pods that failed last, which often means that the time limit is what ends their reads, take up half
of the places at most, so however many they are, the others are read in time.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext
from functools import partial
from typing import Literal, Protocol

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
"""First wait before a failed ``/v1/models`` is read again; doubles up to the normal interval."""

Kind = Literal["metrics", "models"]


class ScrapeObserver(Protocol):
    """Whoever counts scrapes."""

    def scraped(self, kind: str, pod: str, seconds: float) -> None:
        """Take note of a good read and of the time it took."""

    def failed(self, kind: str, pod: str, cause: str) -> None:
        """Take note of a failed read. The cause is one of a few words, fit for a label."""


class Scraper:
    """Keeps the cache's snapshots and model lists fresh."""

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
        """Prepare.

        Args:
            fleet: Where the pods stand and the results go.
            observer: Whoever counts.
            interval: Seconds between two reads of a pod's ``/metrics``.
            models_interval: Seconds between two reads of a pod's ``/v1/models``.
            timeout: Longest time for one read, in seconds.
            concurrency: Reads at the same time.
            api_key: What ``/v1/models`` asks for, where pods ask for something.
            supervisor: Runs the tasks. By default one that nobody else knows.
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
        # A network that fails makes a line for each pod, and one that flaps does so every second.
        self._limit = LogLimit(10.0, burst=20, clock=clock)
        self._clock = clock
        self._tasks: dict[PodState, tuple[asyncio.Task[None], ...]] = {}
        self._pages: PageReader | None = None
        self._untried: set[tuple[PodState, Kind]] = set()
        self._all_tried = asyncio.Event()

    async def start(self) -> None:
        """Begin to read the pods in the cache, and follow it from now on."""
        self._places = asyncio.Semaphore(self._concurrency)
        self._places_for_failing = asyncio.Semaphore(max(1, self._concurrency // 2))
        self._pages = PageReader(self._timeout)
        self._fleet.changes.pods.subscribe(self._follow)
        self._follow(tuple(self._fleet))

    async def stop(self) -> None:
        """Stop reading; no task and no connection is left."""
        pages, self._pages = self._pages, None
        tasks = [task for pair in self._tasks.values() for task in pair]
        self._tasks.clear()
        try:
            await cancel(tasks)
        finally:
            if pages is not None:
                await pages.close()

    async def first_round(self) -> None:
        """Wait until every page of every pod that is ready now has been tried once."""
        await self._all_tried.wait()

    def _follow(self, changed: Iterable[PodState]) -> None:
        """Start to read pods that became ready, stop for those that left or are not ready."""
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
            # The first read is at once.
            await self._attempt(state, "metrics", self._scrape, health)
            await asyncio.sleep(turns.wait())

    async def _read_models(self, state: PodState) -> None:
        health = _Health(state.pod.name, "models", self._limit)
        turns = ScrapeSchedule(state.pod.name, self._models_interval, self._clock)
        retry = FIRST_RETRY_SECONDS
        while True:
            # Read each time: an edit of the pods file can name the models, or stop naming them.
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
            # A fault of ours, or of something that is told of the result, which must not end the
            # pod's scrapes, and not slow them down either.
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
            self._fleet.put_scrape_failure(state, self._clock())

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
        # The pods file may have named the models while this read was under way.
        if state.pod.models is None:
            self._fleet.put_models(state, models)

    async def _get(
        self, url: str, headers: dict[str, str] | None = None, *, max_bytes: int
    ) -> bytes:
        assert self._pages is not None  # noqa: S101 -- tasks live between start and stop
        return await self._pages.get(url, headers, max_bytes=max_bytes)


def _kinds_of(state: PodState) -> tuple[Kind, ...]:
    return ("metrics", "models") if state.pod.models is None else ("metrics",)


class _Health:
    """Logs when a page begins to fail, and when it can be read again."""

    __slots__ = ("_kind", "_limit", "_pod", "failing")

    def __init__(self, pod: str, kind: Kind, limit: LogLimit) -> None:
        self._pod = pod
        self._kind = kind
        self._limit = limit
        self.failing = False

    def good(self) -> None:
        if self.failing:
            self.failing = False
            message = "the %s of pod %s can be read again"
            self._limit.log(log, logging.INFO, "recovered", message, self._kind, self._pod)

    def bad(self, error: ScrapeError) -> None:
        if not self.failing:
            self.failing = True
            self._limit.log(
                log,
                logging.WARNING,
                error.cause,
                "the %s of pod %s cannot be read, what was read last stays in use: %s",
                self._kind,
                self._pod,
                error,
            )
