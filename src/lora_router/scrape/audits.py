"""Audits: reads of pods that others read too, to find out whether they can be believed. No I/O."""

import logging
import random
from collections import deque
from collections.abc import Callable, Mapping

from lora_router.fleet.catalog import Catalog
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.reading import Page
from lora_router.log_limit import LogLimit
from lora_router.scrape.contradictions import contradiction
from lora_router.scrape.readers import Readers
from lora_router.scrape.reads import PageReads, PodReads, SharingCounts

log = logging.getLogger("lora_router.scrape")

AUDIT_SECONDS, LONGEST_AUDIT_SECONDS = 10.0, 60.0
"""Time between two audits of a pod: the former for each other router, but at most the latter."""
_LISTS_FACTOR = 6
"""Lists of models change rarely, and are audited less often by this factor."""
_AT_ONCE = 8
"""Pods of a router that are audited at once after it told something wrong."""
ALONE_SECONDS = 60.0
"""For how long this router reads a pod itself after it was told something wrong about it."""


class Audits:
    """Chooses the pods to audit, and judges the routers that read them."""

    def __init__(
        self,
        pods: Mapping[PodState, PodReads],
        readers: Readers,
        counts: SharingCounts,
        begin: Callable[[PodState, Page], None],
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        """Create it.

        Args:
            pods: All pods.
            readers: The other routers.
            counts: Counts audits.
            begin: Called with a page that is to be read for an audit.
            clock: Returns seconds, monotonic.
            rng: Decides the order.
        """
        self._pods = pods
        self._readers = readers
        self._counts = counts
        self._begin = begin
        self._clock = clock
        self._random = rng
        self._limit = LogLimit(60.0, clock=clock)
        self._next: deque[PodState] = deque()
        """The pods in the order of their next audits."""
        self._due = 0.0
        """How many audits are due."""

    def choose(self, elapsed: float) -> None:
        """Begin the audits that have become due in some seconds."""
        every = min(AUDIT_SECONDS * len(self._readers), LONGEST_AUDIT_SECONDS)
        # After a stall, those that were missed are not made up for.
        self._due += len(self._pods) * min(elapsed, 1.0) / every
        while self._due >= 1.0:
            self._due -= 1.0
            if not self._next:
                states = list(self._pods)
                self._random.shuffle(states)
                self._next.extend(states)
            if not self._next:
                return
            state = self._next.popleft()
            reads = self._pods.get(state)
            if reads is not None:
                self._audit(state, reads.metrics, "metrics")
                if self._random.randrange(_LISTS_FACTOR) == 0:
                    self._audit(state, reads.models, "models")

    def compare(self, name: str, state: PodState, found: PodMetrics | Catalog) -> bool:
        """Compare what a router told with the last audit of the page, if there was one.

        Returns:
            Whether they contradict.
        """
        pod = self._pods[state]
        reads = pod.metrics if isinstance(found, PodMetrics) else pod.models
        own, before = reads.audited, reads.before
        if own is None or before is None:
            return False
        reads.audited = reads.before = None
        if reads.source != name:
            return False
        what, now = contradiction(own, before, found), self._clock()
        is_lost = self._readers.audited(name, now, good=what is None)
        if what is None:
            return False
        self._counts.contradictions += 1
        pod.alone_until = now + ALONE_SECONDS
        if is_lost:
            self._counts.distrusted += 1
            self._limit.log(
                log,
                logging.WARNING,
                "distrusted",
                "peer %s is not believed for a while: what it reports about pods, most recently "
                "the %s of pod %s, differs from what this router reads",
                name,
                what,
                state.pod.name,
            )
        else:
            log.info("peer %s reported a different %s of pod %s", name, what, state.pod.name)
            others = (each for each, pod in self._pods.items() if pod.metrics.source == name)
            for each, _ in zip(others, range(_AT_ONCE), strict=False):
                self._audit(each, self._pods[each].metrics, "metrics")
        return True

    def _audit(self, state: PodState, reads: PageReads, page: Page) -> None:
        # What this router has read itself needs no audit.
        if reads.source is not None and not reads.auditing and reads.audited is None:
            self._counts.audits += 1
            reads.auditing = True
            self._begin(state, page)
