"""The in-flight ledger: the requests that this router has sent and that have not ended.

Rules:

- A request is counted in the same synchronous step that picks its pod, so that the next request
  already sees it.
- ``Reservation.release`` decrements the count exactly once, however often it is called.
- A request counts where it runs. If Envoy had to send it to another pod, it moves there with the
  headers of the answer.
- Prompt tokens on their way to a pod count there (``pod_work``) and leave with the reservation.
- A load of an adapter counts there until the streamed answer to the request that began it begins,
  or until that request leaves the pod.
- A reservation refers to the pod's state, not to its name. A pod that leaves and returns under the
  same name has a new state, so neither count can become wrong.
"""

import time
from collections.abc import Callable

from lora_router.fleet.answer import Answer
from lora_router.fleet.by_bases import ByBases
from lora_router.fleet.changes import Changes, Signal
from lora_router.fleet.index import FleetIndex
from lora_router.fleet.load_times import LoadTimes
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.pod_prefixes import PrefixUse
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.pod_work import FleetSpeed, Prefill

NOT_FOUND = 404
"""vLLM's answer to a request for a model that it does not serve."""
ERRORS = 400
"""From this status on, an answer says nothing about how fast a pod is."""


class Reservation:
    """One request that counts as in flight on a pod until it is released."""

    __slots__ = (
        "_answered_at",
        "_joined",
        "_ledger",
        "adapter",
        "answer",
        "path",
        "place",
        "prefill",
        "prefixes",
        "sent_at",
        "state",
        "streamed",
    )

    def __init__(
        self,
        ledger: "Ledger",
        state: PodState,
        adapter: str | None,
        path: str | None,
        *,
        streamed: bool,
        place: int | None = None,
    ) -> None:
        self._ledger: Ledger | None = ledger
        self.state = state
        self.adapter = adapter
        self.path = path
        """The path of the request. ``None``: it names no model, and its body may still arrive."""
        self.streamed = streamed
        """Whether the client asked for a streamed answer."""
        self.answer: Answer | None = None
        self.prefill: Prefill | None = None
        """Its prompt tokens on their way to the pod. ``None``: none, or not known."""
        self.prefixes: PrefixUse | None = None
        """What it uses of the pod's prefix cache. ``None``: nothing, or not known."""
        self._joined = adapter is None or state.in_flight_adapters[adapter] > 1
        """Whether it needs no adapter that was not in flight on the pod before."""
        self.place = place
        """Where the adapter was, if the first byte shows how long a load takes."""
        self.sent_at = ledger.now()
        """When it was sent to the pod, on the ledger's clock."""
        self._answered_at = 0.0

    @property
    def open(self) -> bool:
        """Whether the request still counts as in flight."""
        return self._ledger is not None

    def answered(self, answer: Answer) -> None:
        """Record that the answer to the request began. Only the first call counts."""
        ledger = self._ledger
        if ledger is None or self.answer is not None:
            return
        self.answer = answer
        served_by = answer.served_by
        if served_by and served_by != self.state.pod.address:
            ledger.served_elsewhere(self, served_by)
        if answer.from_the_pod and answer.status < ERRORS:
            self._answered_at = now = ledger.now()
            if self.place is not None:
                self._learn_load(ledger, self.place, now)
            if self.streamed and self.prefill is not None:
                self._processed(self.prefill, now, ledger.speeds.of(self.state.base_models))
        outliers = ledger.outliers
        if outliers is not None:
            outliers.answered(self, answer)
        if answer.status == NOT_FOUND and self.adapter is not None and answer.from_the_pod:
            ledger.on_not_found(self.state, self.adapter)

    def has_no_adapter(self) -> None:
        """Count the request without an adapter, because the pod has none of that name."""
        ledger, adapter = self._ledger, self.adapter
        if ledger is None or adapter is None:
            return
        self.end_load(self.state)
        ledger.leave(self.state, adapter)
        self.state.beliefs.never_used(adapter)
        ledger.join(self.state, None)
        self.adapter = None
        ledger.released.send((self.state,))

    def _learn_load(self, ledger: "Ledger", place: int, now: float) -> None:
        state, prefill = self.state, self.prefill
        prompts = 0.0 if prefill is None else prefill.ahead / state.work.tokens_a_second
        ledger.load_times.first_byte(state, place, now - self.sent_at - prompts)
        self.end_load(state)

    def end_load(self, state: PodState) -> None:
        """End the load that it began on a pod, if it began one.

        Requests that follow for the same adapter show how long first bytes take. A request without
        a ``place`` may wait for a load that another one began, and must not end that.
        """
        if self.place is None:
            return
        self.place = None
        if self.adapter is not None:
            _end_load(state, self.adapter)

    def _processed(self, prefill: Prefill, now: float, pace: FleetSpeed) -> None:
        """Record that the prompt is processed, because a streamed answer began."""
        work = self.state.work
        work.first_byte(prefill, now)
        if self._joined:
            work.learn_prefill(prefill, now - self.sent_at, pace)

    def release(self) -> bool:
        """End the reservation. Return whether this call was the one that ended it."""
        ledger = self._ledger
        if ledger is None:
            return False
        self._ledger = None
        state, adapter = self.state, self.adapter
        if ledger.outliers is not None and self.answer is None:
            ledger.outliers.ended(self)
        if self.place is not None:
            self.end_load(state)
        if self.prefill is not None or self._answered_at:
            self._leave_work(ledger, state)
        if self.prefixes is not None and self.answer is not None:
            self.prefixes.ended()
        ledger.leave(state, adapter)
        ledger.total -= 1
        ledger.released.send((state,))
        return True

    def _leave_work(self, ledger: "Ledger", state: PodState) -> None:
        now = ledger.now()
        if self.prefill is not None:
            state.work.end(self.prefill, now)
            self.prefill = None
        if self._answered_at:
            since = self._answered_at if self.streamed else self.sent_at
            pace = ledger.speeds.of(state.base_models)
            state.work.learn_duration(now - since, pace, streamed=self.streamed)


class Ledger:
    """Counts requests in flight by pod and by adapter.

    The counts are stored in each ``PodState``.
    """

    __slots__ = (
        "adapters",
        "find",
        "index",
        "load_times",
        "moved",
        "now",
        "on_not_found",
        "outliers",
        "released",
        "speeds",
        "total",
    )

    def __init__(
        self,
        index: FleetIndex | None = None,
        released: Signal | None = None,
        outliers: Outliers | None = None,
    ) -> None:
        self.total = 0
        self.moved = 0
        """Requests that Envoy sent to another pod than the picked one, since the start."""
        self.index = index if index is not None else FleetIndex()
        self.released = released if released is not None else Changes().released
        """The signal sent after each release, with the record of the pod."""
        self.outliers = outliers
        """Receives what became of each request; ``None``: nobody does."""
        self.now: Callable[[], float] = time.monotonic
        """Returns the time in seconds, on the clock of ``PodWork.empty_at``."""
        self.load_times = LoadTimes()
        """How long loads of adapters take."""
        self.adapters: dict[str, int] | None = None
        """The requests for each adapter on all pods; ``None``: nobody wants to know."""
        self.speeds = ByBases(FleetSpeed)
        """How fast pods usually are."""
        self.find: Callable[[str], PodState | None] = _find_nobody
        """Returns the pod at an endpoint."""
        self.on_not_found: Callable[[PodState, str], None] = _ignore
        """Called when a pod answers 404 to a request for an adapter that it was believed to
        serve."""

    def reserve(
        self,
        state: PodState,
        adapter: str | None,
        path: str | None = "",
        *,
        streamed: bool = False,
        tokens: float = 0.0,
        where: int | None = None,
    ) -> Reservation:
        """Count one more request on a pod.

        Args:
            state: The pod.
            adapter: The adapter; ``None``: the base model, or no model.
            path: The path of the request; ``None``: it names no model.
            streamed: Whether the client asked for a streamed answer.
            tokens: Prompt tokens that the pod has to process for it, as far as is known.
            where: ``AdapterBeliefs.where`` of the adapter. ``None``: it has not been asked for.
        """
        place = None
        if streamed:
            place = self.load_times.place_of(state, adapter, where)
            if adapter is not None and place:  # Not in a slot.
                state.work.begin_load(state.beliefs.seconds_to_load(adapter), self.now())
        self.join(state, adapter)
        self.total += 1
        reservation = Reservation(self, state, adapter, path, streamed=streamed, place=place)
        if tokens > 0.0:
            pace = self.speeds.of(state.base_models)
            reservation.prefill = state.work.begin(tokens, reservation.sent_at, pace)
        if self.outliers is not None:
            self.outliers.sent(reservation)
        return reservation

    def begin_stall(self, state: PodState, seconds: float) -> Prefill:
        """Count a call that stalls a pod as work that it has to do, so that requests go elsewhere.

        Args:
            state: The pod.
            seconds: How long it is expected to stall.
        """
        tokens = seconds * state.work.tokens_a_second
        return state.work.begin(tokens, self.now(), self.speeds.of(state.base_models))

    def end_stall(self, state: PodState, stall: Prefill) -> None:
        """Take out such a call, because it has ended."""
        state.work.end(stall, self.now())

    def served_elsewhere(self, reservation: Reservation, endpoint: str) -> None:
        """Move a request to the pod that really answers it, if that pod is known."""
        state, before = self.find(endpoint), reservation.state
        if state is None or state is before:
            return
        self.leave(before, reservation.adapter)
        self.join(state, reservation.adapter)
        reservation.state = state
        reservation.end_load(before)
        if reservation.prefill is not None:
            now = self.now()
            before.work.end(reservation.prefill, now)
            # What this pod has of the prompt is not known. Its first byte comes now.
            reservation.prefill = None
        reservation.prefixes = None
        self.moved += 1
        if self.outliers is not None:
            self.outliers.moved(reservation, before)
        self.released.send((before,))

    def leave(self, state: PodState, adapter: str | None) -> None:
        """Count one request less on a pod."""
        state.in_flight -= 1
        if adapter is not None:
            left = state.in_flight_adapters[adapter] - 1
            if left:
                state.in_flight_adapters[adapter] = left
            else:
                del state.in_flight_adapters[adapter]
            state.beliefs.used(adapter)
            if (adapters := self.adapters) is not None:
                left = adapters[adapter] - 1
                if left:
                    adapters[adapter] = left
                else:
                    del adapters[adapter]
        self.index.changed(state, adapter)

    def join(self, state: PodState, adapter: str | None) -> None:
        """Count one request more on a pod."""
        state.in_flight += 1
        if adapter is not None:
            counts = state.in_flight_adapters
            counts[adapter] = counts.get(adapter, 0) + 1
            state.beliefs.used(adapter)
            if (adapters := self.adapters) is not None:
                adapters[adapter] = adapters.get(adapter, 0) + 1
        self.index.changed(state, adapter)


def _end_load(state: PodState, adapter: str) -> None:
    """Record that an adapter is loaded, or that nobody knows when it will be."""
    loading = state.loading
    if adapter in loading:
        loading.remove(adapter)
        if not loading:
            state.work.end_loads()


def _find_nobody(_endpoint: str) -> PodState | None:
    return None


def _ignore(_state: PodState, _adapter: str) -> None:
    """Do nothing."""
