"""Audits: reads of pods that others read too, to find out whether they can be believed. No I/O.

Rules:

- What this router reads is compared with what the other router told before and afterwards.
- If that differs, this router reads the page once or twice more. Only if the other router's
  readings before, between and after these reads differ from all of them, they contradict. Otherwise
  the pod has changed, and the audit counts for nothing.
- Readings that lie too far apart are not compared: one of the two routers was late, or stalled. The
  limit is the time after which this router reads the page for itself, so that a router whose
  readings are never compared is not relied upon either.
"""

import logging
import random
from collections import deque
from collections.abc import Callable, Mapping

from lora_router.fleet.pod_state import PodState
from lora_router.fleet.reading import Page, ReadFailure, Reading
from lora_router.log_limit import LogLimit
from lora_router.scrape.contradictions import contradiction
from lora_router.scrape.readers import Readers
from lora_router.scrape.reads import Audit, PageReads, PodReads, SharingCounts

log = logging.getLogger("lora_router.scrape")

AUDIT_SECONDS, LONGEST_AUDIT_SECONDS = 10.0, 60.0
"""Time between two audits of a pod: the former for each other router, but at most the latter."""
_LISTS_FACTOR = 6
"""Lists of models change rarely, and are audited less often by this factor."""
_AT_ONCE = 8
"""Pods of a router that are audited at once after it told something wrong."""
_READS: dict[Page, int] = {"metrics": 3, "models": 2}
"""Reads of this router that must differ from what it was told. Load that comes in bursts, as short
as the intervals, looks like a contradiction in at most 2 % of the audits."""
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

    def note_own(self, reads: PageReads, reading: Reading) -> None:
        """Note what this router read for an audit. It is compared with what is told next."""
        told = reads.told
        if reads.source is None or told is None:
            return
        audit = reads.audit
        if audit is None or audit.source != reads.source:
            audit = reads.audit = Audit(reads.source)
        audit.told.append(told)
        audit.own.append(reading)

    def compare(self, name: str, reading: Reading, longest: float) -> bool:
        """Compare what a router told with the audit of the page, if there is one.

        Args:
            name: The router.
            reading: What it told.
            longest: How many seconds may lie between two readings that are compared.

        Returns:
            Whether they contradict.
        """
        state = reading.state
        pod = self._pods[state]
        reads = pod.page(reading.page)
        audit = reads.audit
        if audit is None or reads.auditing:
            return False
        reads.audit = None
        if reads.source != name:
            return False
        audit.told.append(reading)
        if not _is_fair(audit, longest):
            self._counts.unfair += 1
            return False
        what = contradiction(
            [each.found for each in audit.own if not isinstance(each.found, ReadFailure)],
            [each.found for each in audit.told if not isinstance(each.found, ReadFailure)],
        )
        if what is not None and len(audit.own) < _READS[reading.page]:
            reads.audit, reads.auditing = audit, True
            self._begin(state, reading.page)
            return False
        if what is None and len(audit.own) > 1:
            return False  # The pod has changed, or the router lies now and then.
        now = self._clock()
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
        if reads.source is not None and not reads.auditing and reads.audit is None:
            self._counts.audits += 1
            reads.auditing = True
            self._begin(state, page)


def _is_fair(audit: Audit, longest: float) -> bool:
    """Return whether what was told lies close enough to each read of this router."""
    around = zip(audit.told[::2], audit.own, audit.told[1::2], strict=True)
    return all(
        own.read_at - before.read_at <= longest and after.read_at - own.read_at <= longest
        for before, own, after in around
    )
