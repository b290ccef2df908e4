"""Decides when pods' lists of models are read out of turn. No I/O.

Two events call for it:

- A pod answered 404 for a model that it is believed to serve. Its list is read again *soon*.
- A client asked for a model that no pod is believed to serve. The router *looks again*: one round
  reads the lists of all pods, and all who ask in the meantime share it.

The cost is bounded, whatever clients ask for. A pod's list is read out of turn at most once in
``RECENT_SECONDS``, and all of these reads together are limited to ``READS_PER_SECOND``, after a
burst of ``BURST``.
"""

import math
from collections.abc import Callable, Iterable

from lora_router.fleet.pod_state import PodState

RECENT_SECONDS = 1.0
"""A list that was read within this time is recent. Nobody needs it again."""
ROUND_SECONDS = 5.0
"""A round that takes longer is over, even if some pods have not responded."""
READS_PER_SECOND = 100
BURST = 64


class _Reads:
    """The reads of one pod's list."""

    __slots__ = ("due", "running", "started_at")

    def __init__(self) -> None:
        self.started_at = -math.inf
        self.running = False
        self.due: float | None = None


class ModelsPlan:
    """The reads that are due out of turn, and the round that is under way."""

    def __init__(
        self,
        pods: Callable[[], Iterable[PodState]],
        *,
        wake: Callable[[PodState], None],
        on_round_end: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """Create a plan without pods.

        Args:
            pods: Returns the pods that take part in a round. Called once for each round.
            wake: Called with a pod whose list became due.
            on_round_end: Called when a round has ended.
            clock: Returns seconds, monotonic.
        """
        self._candidates = pods
        self._wake = wake
        self._on_round_end = on_round_end
        self._clock = clock
        self._pods: dict[PodState, _Reads] = {}
        self._round_started = -math.inf
        self._pending: set[PodState] = set()
        """Pods of the current round whose lists have not been read. Empty: no round."""
        self._next_slot = -math.inf

    # The pods and their reads

    def add(self, pod: PodState) -> None:
        """Add a pod whose list is read periodically."""
        self._pods[pod] = _Reads()

    def remove(self, pod: PodState) -> None:
        """Remove a pod."""
        self._pods.pop(pod, None)
        self._done(pod)

    def due(self, pod: PodState) -> float:
        """Return when a pod's list is to be read out of turn; infinity: never."""
        reads = self._pods.get(pod)
        return math.inf if reads is None or reads.due is None else reads.due

    def started(self, pod: PodState) -> None:
        """Record that a read of a pod's list starts."""
        reads = self._pods.get(pod)
        if reads is not None:
            reads.started_at, reads.running, reads.due = self._clock(), True, None

    def ended(self, pod: PodState) -> None:
        """Record that a read of a pod's list ended, with or without success."""
        reads = self._pods.get(pod)
        if reads is not None:
            reads.running = False
        self._done(pod)

    # What calls for a read

    def read_soon(self, pod: PodState) -> None:
        """Read a pod's list soon.

        A list that is already due is read once. One that is being read is read once more, since
        the pod may have composed the response before the event.
        """
        reads = self._pods.get(pod)
        if reads is not None and reads.due is None:
            self._set_due(pod, reads, reads.started_at + RECENT_SECONDS)

    def look_again(self) -> bool:
        """Read all lists that are not recent, once for all who ask.

        Returns:
            Whether a round is under way. If none is, all lists are recent, and there is nothing to
            wait for.
        """
        now = self._clock()
        age = now - self._round_started
        if self._pending:
            if age <= ROUND_SECONDS:
                return True
            self._end_round()
        if age >= RECENT_SECONDS:
            self._start_round(now)
        return bool(self._pending)

    def _start_round(self, now: float) -> None:
        found = [(reads.started_at, pod, reads) for pod, reads in self._of(self._candidates())]
        found.sort(key=lambda each: each[0])  # The oldest lists are read first.
        for started_at, pod, reads in found:
            if reads.running:
                self._pending.add(pod)
            elif now - started_at > RECENT_SECONDS:
                self._pending.add(pod)
                if reads.due is None:
                    self._set_due(pod, reads, now)
        self._round_started = now

    def _of(self, pods: Iterable[PodState]) -> Iterable[tuple[PodState, _Reads]]:
        return [(pod, reads) for pod in pods if (reads := self._pods.get(pod)) is not None]

    def _done(self, pod: PodState) -> None:
        if pod in self._pending:
            self._pending.discard(pod)
            if not self._pending:
                self._end_round()

    def _end_round(self) -> None:
        self._pending.clear()
        self._on_round_end()

    def _set_due(self, pod: PodState, reads: _Reads, earliest: float) -> None:
        """Take the next of the slots in which a list may be read."""
        now, period = self._clock(), 1 / READS_PER_SECOND
        slot = max(self._next_slot, now - (BURST - 1) * period)
        self._next_slot = slot + period
        reads.due = max(now, slot, earliest)
        self._wake(pod)
