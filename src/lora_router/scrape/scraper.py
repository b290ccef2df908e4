"""Scrapes ``/metrics`` and ``/v1/models`` of every ready pod periodically, spread over time.

Each pod and page has a supervised task, which decides when the page is read. ``attempts`` reads it
once, and ``followers`` are told of it.
Where routers share the reads, this router reads what ``sharing`` says is due here.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from lora_router.counted import counted
from lora_router.fleet.catalog_digests import CatalogDigests
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.reading import Reading
from lora_router.log_limit import LogLimit
from lora_router.scrape.attempts import Attempts, ScrapeObserver
from lora_router.scrape.followers import Followers
from lora_router.scrape.intake import Intake
from lora_router.scrape.models import Roots
from lora_router.scrape.models_plan import ModelsPlan
from lora_router.scrape.pod_access import PodAccess
from lora_router.scrape.pod_pages import PodPages
from lora_router.scrape.read_health import Kind, ReadHealth
from lora_router.scrape.schedule import ScrapeSchedule, pace
from lora_router.scrape.sharing import TICK_SECONDS, Sharing
from lora_router.supervision import Supervisor, cancel

log = logging.getLogger("lora_router.scrape")

FIRST_RETRY_SECONDS = 1.0
"""First delay before a failed ``/v1/models`` is retried. Doubles up to the normal interval."""

LONGEST_RETRY_SECONDS = 2.0
"""Longest delay before a failed ``/metrics`` is retried: a pod that returns is noticed in time."""
_QUICK_RETRIES = 5
"""Failed reads of ``/metrics`` that are retried at the usual interval."""


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
        access: PodAccess | None = None,
        supervisor: Supervisor | None = None,
        clock: Callable[[], float] = time.monotonic,
        intake: Intake | None = None,
    ) -> None:
        """Create a scraper that does not run yet.

        Args:
            fleet: Provides the pods and receives the results.
            observer: Counts the reads.
            interval: Seconds between two reads of a pod's ``/metrics``.
            models_interval: Seconds between two reads of a pod's ``/v1/models``.
            timeout: Timeout of one read in seconds.
            concurrency: Maximum number of concurrent reads.
            access: The keys for pods, and whose certificates are accepted. Default: no keys.
            supervisor: Runs the tasks. Default: a supervisor of its own.
            clock: The router's monotonic clock.
            intake: Puts readings into the fleet. Default: one of its own.
        """
        self._fleet = fleet
        self._observer = observer
        self.intake = intake or Intake(fleet, clock)
        """Puts readings into the fleet."""
        self._interval = interval
        self._models_interval = models_interval
        self._timeout = timeout
        self._concurrency = concurrency
        self._access = access
        self._supervisor = supervisor or Supervisor()
        # A network failure causes a line for each pod, and a flapping network does so repeatedly.
        self._limit = LogLimit(10.0, burst=20, clock=clock)
        self._clock = clock
        self.followers = Followers(self._supervisor)
        """Who is told of readings."""
        self._tasks: dict[PodState, tuple[asyncio.Task[None], ...]] = {}
        self._wakes: dict[tuple[PodState, Kind], asyncio.Event] = {}
        self._plan = ModelsPlan(
            self._have_models,
            wake=partial(self._wake, kind="models"),
            on_round_end=self.followers.looked,
            clock=clock,
        )
        self._sharing: Sharing | None = None
        self._digests: CatalogDigests | None = None
        self._sharing_task: asyncio.Task[None] | None = None
        self._attempts: Attempts | None = None
        """``None``: the scraper does not run."""
        self.roots: Roots | None = None
        """Is told from where pods have loaded adapters. To be set before ``start``."""
        self._untried: set[tuple[PodState, Kind]] = set()
        self._all_tried = asyncio.Event()

    def share(self, sharing: Sharing, digests: CatalogDigests) -> None:
        """Share the reads with other routers. Must be called before ``start``.

        Args:
            sharing: Decides which pages are read here.
            digests: Gets the digests of all lists of models before these are handed on.
        """
        self._sharing, self._digests = sharing, digests
        sharing.wake = self._wake
        self.followers.subscribe_readings(sharing.read)

    def pace(self) -> float:
        """Return the interval at which this router reads the metrics of each of its pods."""
        share = 1.0 if self._sharing is None else self._sharing.share
        return pace(self._interval, share * len(self._tasks))

    async def start(self) -> None:
        """Start to scrape the pods of the fleet, and follow its changes."""
        pages = PodPages(self._timeout, access=self._access, clock=self._clock)
        pages.roots = self.roots
        self._attempts = Attempts(
            pages,
            self._concurrency,
            self._observer,
            self._supervisor,
            self._clock,
            intake=self.intake,
            followers=self.followers,
            plan=self._plan,
            digests=self._digests,
            on_tried=self._tried,
        )
        self._fleet.changes.pods.subscribe(self._follow)
        self._follow(tuple(self._fleet))
        if self._sharing is not None:
            self._sharing_task = self._supervisor.keep(
                "scrape-sharing", partial(self._keep_sharing, self._sharing)
            )

    async def stop(self) -> None:
        """Stop scraping. No task and no connection is left."""
        attempts, self._attempts = self._attempts, None
        tasks = [task for pair in self._tasks.values() for task in pair]
        if self._sharing_task is not None:
            tasks.append(self._sharing_task)
        for state in tuple(self._tasks):
            self._plan.remove(state)
        self._tasks.clear()
        self._wakes.clear()
        try:
            await cancel(tasks)
        finally:
            if attempts is not None:
                await attempts.pages.close()

    async def first_round(self, seconds: float) -> None:
        """Wait at most so long until each page of all ready pods has been read or has failed."""
        try:
            async with asyncio.timeout(seconds):
                await self._all_tried.wait()
        except TimeoutError:
            unread = sum(state.metrics is None for state in self._fleet.ready())
            log.warning("startup timeout: ready without a scrape of %s", counted(unread, "pod"))

    # Reads out of turn

    def read_models_soon(self, state: PodState, *, confirms: bool = True) -> None:
        """Read a pod's list of models again: it answered 404 for a model that it should serve.

        Returns at once, and is cheap enough for the request path. The reads are limited
        (``models_plan``). When the list changed, ``Fleet.changes.pods`` reports it.

        Args:
            state: The pod.
            confirms: Whether the list is believed even if it lost everything.
        """
        if state in self._tasks:
            if confirms:
                self.intake.confirm_loss(state)
            self._plan.read_soon(state)

    def models_changed(self, state: PodState) -> None:
        """Hand on a pod's list, which a call of this router has changed."""
        self.followers.read(Reading(state, self._clock(), state.catalog))

    def look_again(self) -> bool:
        """Read the lists of all pods that are not recent: a client asked for an unknown model.

        Returns at once, and is cheap enough for the request path. All who ask share a round. When
        a pod has the model, ``Fleet.changes.pods`` reports it before the round ends.

        Returns:
            Whether a round is under way, whose end ``followers`` reports. It can last longer
            than a client should wait, so that a deadline is needed. False: all lists are recent.
        """
        return self._attempts is not None and self._plan.look_again()

    def _have_models(self) -> Iterable[PodState]:
        """Return the pods of a round: those that are asked for their models and can be reached."""
        return [
            state
            for state in self._tasks
            if state.pod.models is None and not state.unreachable_scrapes
        ]

    def _wake(self, state: PodState, kind: Kind) -> None:
        wake = self._wakes.get((state, kind))
        if wake is not None:
            wake.set()

    # The pods

    def _follow(self, changed: Iterable[PodState]) -> None:
        """Start to scrape pods that became ready. Stop for pods that left or are not ready."""
        attempts = self._attempts
        if attempts is None:
            return
        for state in changed:
            wanted = state.pod.ready and self._fleet.get(state.pod.name) is state
            if wanted and state not in self._tasks:
                self._untried.update((state, kind) for kind in _kinds_of(state))
                self._wakes[state, "metrics"] = asyncio.Event()
                self._wakes[state, "models"] = asyncio.Event()
                self._plan.add(state)
                if self._sharing is not None:
                    self._sharing.add(state)
                keep, name = self._supervisor.keep, state.pod.name
                metrics = partial(self._read_metrics, attempts, state)
                models = partial(self._read_models, attempts, state)
                self._tasks[state] = (
                    keep("scrape-metrics", metrics, about=name),
                    keep("scrape-models", models, about=name),
                )
            elif not wanted and state in self._tasks:
                for task in self._tasks.pop(state):
                    task.cancel()
                del self._wakes[state, "metrics"], self._wakes[state, "models"]
                self._plan.remove(state)
                if self._sharing is not None:
                    self._sharing.remove(state)
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
            if self._fleet.synced and self._attempts is not None:
                self._attempts.pages.serving = True

    # One pod

    async def _read_metrics(self, attempts: Attempts, state: PodState) -> None:
        health = ReadHealth(state.pod.name, "metrics", self._limit)
        turns = ScrapeSchedule(state.pod.name, self._interval, self._clock)
        retries = ScrapeSchedule(state.pod.name, LONGEST_RETRY_SECONDS, self._clock)
        while True:
            # The first read is immediate.
            await attempts.read_metrics(state, health)
            is_usual = self._interval <= LONGEST_RETRY_SECONDS and health.failures < _QUICK_RETRIES
            turns.interval = self.pace()
            await asyncio.sleep((turns if is_usual or not health.failures else retries).wait())
            if self._sharing is not None:
                wake = self._wakes[state, "metrics"]
                while not self._sharing.is_due(state):
                    wake.clear()
                    await wake.wait()

    async def _read_models(self, attempts: Attempts, state: PodState) -> None:
        health = ReadHealth(state.pod.name, "models", self._limit)
        turns = ScrapeSchedule(state.pod.name, self._models_interval, self._clock)
        retry = FIRST_RETRY_SECONDS
        while True:
            # Check each time: an edit of the pods file can add the pod's models or remove them.
            if state.pod.models is not None:
                # Nothing is read, and so nothing is due any more.
                self._plan.started(state)
                self._plan.ended(state)
                await self._wait_for_turn(state, turns.wait())
            elif await attempts.read_models(state, health):
                retry = FIRST_RETRY_SECONDS
                await self._wait_for_turn(state, turns.wait())
            else:
                await self._wait_for_turn(state, min(retry, self._models_interval))
                retry = min(retry * 2, self._models_interval)

    async def _wait_for_turn(self, state: PodState, seconds: float) -> None:
        """Wait for the next read of a list, in its usual turn or out of turn."""
        usual, wake = self._clock() + seconds, self._wakes[state, "models"]
        while (wait := min(usual, self._plan.due(state)) - self._clock()) > 0:
            wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await wake.wait()
            if self._sharing is not None:
                usual = self._sharing.turn(state, usual)

    async def _keep_sharing(self, sharing: Sharing) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            sharing.tick()


def _kinds_of(state: PodState) -> tuple[Kind, ...]:
    return ("metrics", "models") if state.pod.models is None else ("metrics",)
