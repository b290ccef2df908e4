"""Which pages this router reads itself, and which it is told by other routers. No I/O.

Rules:

- Each pod is read by one router, at the full interval, which tells the others (``readers``).
- A router that has not heard of a pod for ``LATE_INTERVALS`` reads it itself and tells what it
  read: first the router that is next in the order of the pod, a little later those after it.
- A read that failed says nothing to others but that they must look for themselves. While this
  router fails to read a page, it believes nobody who succeeds.
- Of each pod that others read, this router reads the pages itself now and then, to compare
  (*audit*). A pod about which it was told something else is read by it for a while, and a router
  that contradicts it repeatedly is not believed (``contradictions``).
- A router that has no pod to read says now and then that it takes part. So all routers agree on
  who reads which pod, also when the next pod appears.
- Only the reader of a pod is listened to, or anybody once that reader is late.
- A list of models that somebody else tells, and that differs from the one here, is a hint: the pod
  has loaded or unloaded an adapter. Then this router reads the list itself.

Without other readers, all pages are read here, at the full interval.
"""

import logging
import random
from collections import deque
from collections.abc import Callable

from lora_router.clock import LateTurns
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.reading import Page, ReadFailure, Reading
from lora_router.scrape.audits import Audits
from lora_router.scrape.intake import Intake, RefusedReading
from lora_router.scrape.readers import Readers
from lora_router.scrape.reads import PodReads, SharingCounts
from lora_router.scrape.schedule import LONGEST_STRETCH_SECONDS

log = logging.getLogger("lora_router.scrape")

TICK_SECONDS = 0.05
"""How often ``tick`` is to be called."""
LATE_INTERVALS = 1.5
"""Intervals without a reading after which others read a pod."""
LATE_SECONDS = 0.125
"""Time that a reading may take, from the pod to this router, in addition."""
_STALL_SECONDS = 0.3
"""After so long without a tick, the next one is skipped: the event loop stalled."""
PRESENCE_SECONDS = 0.4
"""A router that has told nothing for this long says that it takes part. It may have no pod to read:
one router in four has none if three share six pods."""
_NEXT_SECONDS = 0.25
"""How much later each further router in the order of a pod reads it."""
_MOST_NEXT = 3
"""So many routers wait for the ones before them. All others read together with the last one."""
_SOONEST = 0.3
"""The part of an interval that must lie between two readings that others are believed."""
_PODS_PER_TICK = 100
"""Pods whose reader is determined anew in one tick, after a router joined or left."""


class Sharing:
    """The shared reads of all pods."""

    def __init__(
        self,
        name: str,
        intake: Intake,
        *,
        interval: float,
        models_interval: float,
        clock: Callable[[], float],
        tell: Callable[[Reading], None],
        tell_presence: Callable[[], None] = lambda: None,
        rng: random.Random | None = None,
    ) -> None:
        """Create it without pods and without other readers.

        Args:
            name: This router's name among the routers of the fleet.
            intake: Puts readings into the fleet.
            interval: Seconds between two reads of a pod's metrics.
            models_interval: Seconds between two reads of a pod's list of models.
            clock: The router's monotonic clock.
            tell: Tells all other routers a reading.
            tell_presence: Tells them that this router reads pods, without a reading.
            rng: Decides in which order pods are audited.
        """
        self.readers = Readers(name)
        self.counts = SharingCounts()
        self.wake: Callable[[PodState, Page], None] = _ignore
        """Called when a page is to be read that was not. The scraper sets it."""
        self.on_used: Callable[[Reading], None] = lambda _reading: None
        """Called with each reading of another router that was put into the fleet."""
        self._name = name
        self._intake = intake
        self._intervals: dict[Page, float] = {"metrics": interval, "models": models_interval}
        self._clock = clock
        self._tell_others = tell
        self._tell_presence = tell_presence
        self._told_at = clock()
        self._pods: dict[PodState, PodReads] = {}
        self._waiting: dict[PodState, None] = {}
        """The pods whose metrics are to be told by others, the longest unheard first."""
        self._outdated: deque[PodState] = deque()
        """Pods whose reader is to be determined anew."""
        self._version = self.readers.version
        self._audits = Audits(
            self._pods,
            self.readers,
            self.counts,
            self._begin_audit,
            clock,
            rng or random.Random(),
        )
        self._ticked_at = clock()
        self._late_turns = LateTurns(_STALL_SECONDS)

    # The pods

    def add(self, state: PodState) -> None:
        """Add a pod that is scraped."""
        self._pods[state] = PodReads()

    def remove(self, state: PodState) -> None:
        """Remove a pod."""
        self._pods.pop(state, None)
        self._waiting.pop(state, None)

    @property
    def share(self) -> float:
        """About how many of the pods this router reads, as a part of all."""
        return 1.0 / (1 + len(self.readers))

    def is_due(self, state: PodState) -> bool:
        """Return whether this router is to read a pod's metrics. If not, ``wake`` says when."""
        pod = self._pods.get(state)
        if pod is None or not len(self.readers):
            return True
        reads = pod.metrics
        if reads.failing or reads.doubted or reads.late or reads.auditing:
            return True
        if self._rank(state, pod) == 0 or self._clock() < pod.alone_until:
            return True
        self._waiting.setdefault(state)
        return False

    def turn(self, state: PodState, usual: float) -> float:
        """Return when this router is to read a list of models.

        Args:
            state: The pod.
            usual: When it would read the list if nobody else did.
        """
        pod = self._pods.get(state)
        if pod is None or not len(self.readers):
            return usual
        reads, now = pod.models, self._clock()
        if reads.doubted or reads.auditing:
            return now
        if reads.failing or self._rank(state, pod) == 0 or now < pod.alone_until:
            return usual
        return max(usual, reads.read_at + self._patience(pod, "models"))

    # Readings of this router

    def read(self, reading: Reading) -> None:
        """Note what this router read, or that it failed, and tell it to others if they wait."""
        state, page = reading.state, reading.page
        pod = self._pods.get(state)
        if pod is None:
            return
        reads = pod.page(page)
        is_audit = reads.auditing and not (reads.late or reads.failing or reads.doubted)
        found = reading.found
        reads.failing = isinstance(found, ReadFailure)
        if isinstance(found, ReadFailure):
            if not is_audit:
                self._tell(reading)
            return
        if reads.late:
            self.counts.late += 1
        if is_audit:
            self._audits.note_own(reads, reading)
        reads.auditing = reads.late = reads.doubted = False
        reads.read_at = reading.read_at
        if page == "metrics":
            self._waits_again(state)
        if is_audit:
            return
        reads.source = reads.audit = None
        self._tell(reading)

    # Readings of others

    def heard(self, name: str, interval: float) -> bool:
        """Note that another router told something; return whether it is believed.

        Args:
            name: The router.
            interval: The interval at which it says that it reads each of its pods.
        """
        longest = max(self._intervals["metrics"], LONGEST_STRETCH_SECONDS)
        if not self._intervals["metrics"] / 2 <= interval <= longest:
            interval = self._intervals["metrics"]
        return self.readers.heard(name, interval, self._clock())

    def wants(self, name: str, state: PodState, page: Page, read_at: float) -> bool:
        """Return whether a reading of another router is of use. It costs little to ask."""
        pod = self._pods.get(state)
        if pod is None:
            return False
        reads = pod.page(page)
        if reads.failing or self._clock() < pod.alone_until:
            return False
        if read_at < reads.read_at + _SOONEST * self._intervals["metrics"]:
            return False
        self._rank(state, pod)
        if pod.reader == name:
            return True
        return page == "models" or self._is_late(pod, page)

    def receive(self, name: str, reading: Reading) -> None:
        """Use a reading of another router that ``wants`` wanted."""
        state, page, found = reading.state, reading.page, reading.found
        pod = self._pods.get(state)
        if pod is None:
            return
        reads = pod.page(page)
        is_hint = page == "models" and pod.reader != name and not self._is_late(pod, page)
        if is_hint and found == state.catalog:
            return
        if is_hint or isinstance(found, ReadFailure):
            if not reads.doubted:
                reads.doubted = True
                self.wake(state, page)
            return
        if self._audits.compare(name, reading, self._patience(pod, page)):
            self.wake(state, "metrics")
            self.wake(state, "models")
            return
        try:
            self._intake.receive(reading)
        except RefusedReading as error:
            log.debug("a reading of pod %s was not used: %s", state.pod.name, error)
            if not error.is_outdated:
                return
        else:
            self.on_used(reading)
        self.counts.used += 1
        reads.read_at = reading.read_at
        reads.source, reads.told, reads.late = name, reading, False
        if page == "metrics":
            self._waits_again(state)

    def gone(self, name: str) -> None:
        """Forget a router that stopped."""
        self.readers.gone(name)

    def rename(self, name: str) -> None:
        """Use another name for this router, by which the others know it from now on."""
        self._name = name
        self.readers.rename(name)

    def _tell(self, reading: Reading) -> None:
        self._told_at = self._clock()
        self._tell_others(reading)

    # Time

    def tick(self) -> None:
        """Find pages that nobody told in time, and choose those to audit."""
        now = self._clock()
        elapsed, self._ticked_at = now - self._ticked_at, now
        if elapsed > 2 * TICK_SECONDS:
            self.readers.excuse(elapsed - TICK_SECONDS, now)
        if now - self._told_at >= PRESENCE_SECONDS:
            self._told_at = now
            self._tell_presence()
        if self._late_turns.skips(elapsed):
            return
        self.readers.expire(now)
        self._renew_readers()
        if not len(self.readers):
            for state in tuple(self._waiting):
                self._wake_late(state)
            return
        earliest = LATE_INTERVALS * self._intervals["metrics"] + LATE_SECONDS
        for state in tuple(self._waiting):
            pod = self._pods[state]
            if pod.metrics.read_at + earliest > now:
                break
            if now - pod.metrics.read_at > self._patience(pod, "metrics"):
                self._wake_late(state)
        self._audits.choose(elapsed)

    def _renew_readers(self) -> None:
        """Determine anew who reads which pod, a part of the pods in each tick."""
        if self._version != self.readers.version:
            self._version = self.readers.version
            self._outdated = deque(self._pods)
        for _ in range(min(len(self._outdated), _PODS_PER_TICK)):
            state = self._outdated.popleft()
            pod = self._pods.get(state)
            if pod is not None and self._rank(state, pod) == 0:
                self._waiting.pop(state, None)
                self.wake(state, "metrics")
                self.wake(state, "models")

    def _begin_audit(self, state: PodState, page: Page) -> None:
        self.wake(state, page)

    # Who reads, and when

    def _rank(self, state: PodState, pod: PodReads) -> int:
        if pod.version != self.readers.version:
            order = self.readers.order(state.pod.name)
            pod.rank = order.index(self._name)
            pod.reader = order[0] if pod.rank else None
            pod.version = self.readers.version
        return pod.rank

    def _is_late(self, pod: PodReads, page: Page) -> bool:
        """Return whether a page has not been told in time, so that anybody is listened to."""
        reads = pod.page(page)
        return self._clock() > reads.read_at + LATE_INTERVALS * self._interval_of(pod, page)

    def _interval_of(self, pod: PodReads, page: Page) -> float:
        interval = self._intervals[page]
        if page == "models" or pod.reader is None:
            return interval
        return max(interval, self.readers.interval(pod.reader))

    def _patience(self, pod: PodReads, page: Page) -> float:
        """Return how old the last reading of a page may be before this router reads it."""
        after_others = min(max(pod.rank - 1, 0), _MOST_NEXT) * _NEXT_SECONDS
        return LATE_INTERVALS * self._interval_of(pod, page) + LATE_SECONDS + after_others

    def _waits_again(self, state: PodState) -> None:
        """Move a pod to the end of those that wait."""
        if state in self._waiting:
            del self._waiting[state]
            self._waiting[state] = None

    def _wake_late(self, state: PodState) -> None:
        del self._waiting[state]
        self._pods[state].metrics.late = True
        self.wake(state, "metrics")


def _ignore(_state: PodState, _page: Page) -> None:
    """Do nothing."""
