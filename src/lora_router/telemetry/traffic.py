"""What became of requests, by base model, pod and adapter: plain numbers, which follow the log.

The number of rows is bounded:

- Base models: the first ``MAX_BASE_MODELS``. The others share the row ``other``.
- Pods: those of the fleet. The row of a pod that leaves is removed, and one that returns begins at
  zero. A pod that dies leaves soon, so its failures count in the row of its base model, too, which
  stays.
- Adapters: the busiest ones. The others share the row ``other``.

Which adapters are the busiest is decided every ``SETTLE_SECONDS``. An adapter gets a row of its
own if its requests, of which older ones weigh less, are ``AHEAD`` times those of one that has a
row. It takes that one's place. At most a tenth of the rows change hands at once.

No counter ever falls, and no request counts twice: what was counted in a row stays there. A row
that is given up disappears with its counts. They do not move to ``other``, where they would look
like a burst of requests. An adapter that returns begins at zero, which Prometheus takes for a
restart of the counter. So the sum of ``rate()`` over all rows stays right, but the sum of the
counters themselves may fall.
"""

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.telemetry.decisions import FAILED, Decision, DecisionLog
from lora_router.telemetry.frequent import Frequent
from lora_router.telemetry.times import REQUEST_BOUNDS, Exemplar
from lora_router.telemetry.traffic_rows import (
    AdapterTraffic,
    Failures,
    ModelTraffic,
    PodTraffic,
)

OTHER = "other"
"""The row of what has none of its own."""
MAX_BASE_MODELS = 64
SETTLE_SECONDS = 30.0
AHEAD = 2.0
"""How many times busier an adapter must be to take the place of another."""
_AHEAD_AT_LEAST = 10.0
"""And by how many requests, so that rows do not change hands by chance."""
_DECAY = 0.9
"""The weight of a request after each ``SETTLE_SECONDS``. It halves in 200 s."""
_WATCHED = 4
"""Adapters without a row that are counted, for each row."""
_WATCHED_AT_LEAST = 1000


class Traffic:
    """Follows a log of decisions."""

    def __init__(self, log: DecisionLog, most: int, fleet: Fleet | None = None) -> None:
        """Create it without requests, and follow the log.

        Args:
            log: The log.
            most: How many adapters have rows of their own.
            fleet: The pods. ``None``: pods never leave.
        """
        self.models: dict[str, ModelTraffic] = {}
        """By base model; one row more than ``MAX_BASE_MODELS``, which is ``other``, at most."""
        self.pods: dict[str, PodTraffic] = {}
        self.traces = False
        """Whether requests are traced, so that histograms have exemplars."""
        self._other = AdapterTraffic(OTHER)
        self._adapters = {OTHER: self._other}
        self._most = most
        self._watched = Frequent(max(_WATCHED * most, _WATCHED_AT_LEAST))
        self._settle_at = 0.0
        self._fleet = fleet
        self._gone = PodTraffic()
        """For requests whose pod has left. Nobody reads it."""
        self._wall: Callable[[float], float] = log.wall
        log.on_decided.append(self.decided)
        log.on_ended.append(self.ended)
        if fleet is not None:
            fleet.changes.pods.subscribe(self._pods_changed)

    @property
    def adapters(self) -> Mapping[str, AdapterTraffic]:
        """The busiest adapters, and ``other``."""
        return self._adapters

    def decided(self, decision: Decision) -> None:
        """Count a decision."""
        adapter = decision.adapter
        held = decision.held_for
        if not adapter:
            if held:
                self._held_without_pod(decision)
            return
        row = self._adapters.get(adapter) or self._without_row(adapter, decision.decided_at)
        row.requests += 1
        if decision.place:  # Empty: no pod was picked.
            row.found[decision.place] += 1
        if held:
            self._held(decision, decision.base_model, row)
        if decision.spilled:
            row.spilled += 1
            self._model(decision.base_model).spilled += 1
        if decision.replicated:
            row.replicated += 1
            self._model(decision.base_model).replicated += 1

    def ended(self, decision: Decision) -> None:
        """Count what became of a request that was sent to a pod."""
        if decision.outcome != "routed":
            return
        arrived = decision.arrived_at
        model = self.models.get(decision.base_model) or self._model(decision.base_model)
        pod = self.pods.get(decision.pod) or self._pod(decision.pod, decision.base_model)
        name = decision.adapter
        adapter = self._adapters.get(name, self._other) if name else None
        answered = decision.answered_at
        if answered:
            seconds = answered - arrived
            place = bisect_left(REQUEST_BOUNDS, seconds)
            times = model.first_byte
            times.counts[place] += 1
            times.seconds += seconds
            times = pod.first_byte
            times.counts[place] += 1
            times.seconds += seconds
            if adapter is not None:
                times = adapter.first_byte
                times.counts[place] += 1
                times.seconds += seconds
        seconds = decision.ended_at - arrived
        place = bisect_left(REQUEST_BOUNDS, seconds)
        times = model.duration
        times.counts[place] += 1
        times.seconds += seconds
        times = pod.duration
        times.counts[place] += 1
        times.seconds += seconds
        if adapter is not None:
            times = adapter.duration
            times.counts[place] += 1
            times.seconds += seconds
        if decision.unanswered or decision.status >= FAILED:
            self._failed(decision, model, pod, adapter)
        if decision.prompt_tokens is not None or decision.completion_tokens is not None:
            _count_tokens(decision, model, adapter)
        if decision.estimated_prompt_tokens is not None:
            model.estimated += decision.estimated_prompt_tokens
            model.expected_cached += decision.expected_cached_tokens or 0
        if self.traces and decision.trace_id:
            self._exemplify(decision, model, pod, adapter)

    # The rest happens seldom

    def _failed(
        self,
        decision: Decision,
        model: ModelTraffic,
        pod: PodTraffic,
        adapter: AdapterTraffic | None,
    ) -> None:
        base_model = self._model_name(decision.base_model)
        rows = [model.failed, pod.failed.setdefault(base_model, Failures())]
        if adapter is not None:
            rows.append(adapter.failed)
        for row in rows:
            if decision.status >= FAILED:
                row.status += 1
            else:
                row.unanswered += 1

    def _held(self, decision: Decision, base_model: str, adapter: AdapterTraffic | None) -> None:
        seconds = decision.held_seconds
        self._model(base_model).hold.observe(seconds)
        if adapter is not None:
            adapter.held += 1
            adapter.hold.observe(seconds)

    def _held_without_pod(self, decision: Decision) -> None:
        """Count a request that was held, and is for a base model or was sent to no pod."""
        looks = decision.held_looks
        adapter, base_model = looks.adapter, decision.base_model
        row = None
        if adapter is not None:
            row = self._adapters.get(adapter) or self._without_row(adapter, decision.decided_at)
            row.requests += 1
            if looks.rows:
                base_model = looks.rows[0][0].adapters.get(adapter) or ""
        elif looks.rows:
            base_model = base_model or decision.model
        self._held(decision, base_model, row)

    def _model_name(self, name: str) -> str:
        """Return the name under which a base model is counted."""
        return name if name in self.models else OTHER

    def _model(self, name: str) -> ModelTraffic:
        """Return the row of a base model."""
        row = self.models.get(name)
        if row is None:
            if len(self.models) >= MAX_BASE_MODELS:
                name = OTHER
            row = self.models.setdefault(name, ModelTraffic())
        return row

    def _pod(self, name: str, base_model: str) -> PodTraffic:
        """Return the row of a pod that has none yet."""
        if self._fleet is not None and self._fleet.get(name) is None:
            return self._gone
        row = self.pods[name] = PodTraffic()
        # It exists from the start, so that a query sees the increase of the first failure.
        row.failed[self._model_name(base_model)] = Failures()
        return row

    def _without_row(self, name: str, now: float) -> AdapterTraffic:
        """Return the row of an adapter that has none of its own yet."""
        rows = self._adapters
        if len(rows) <= self._most:
            row = rows[name] = AdapterTraffic(name)
            return row
        if not self._most:
            return self._other
        self._watched.count(name)
        if now < self._settle_at:
            return self._other
        self._settle_at = now + SETTLE_SECONDS
        self._settle()
        return rows.get(name, self._other)

    def _settle(self) -> None:
        """Let the busiest adapters have the rows."""
        rows, watched = self._adapters, self._watched
        for row in rows.values():
            row.score = row.score * _DECAY + row.requests - row.counted
            row.counted = row.requests
        moves = max(1, self._most // 10)
        rising = heapq.nlargest(moves, watched.counts.items(), key=lambda each: each[1])
        falling = heapq.nsmallest(
            moves,
            (each for each in rows.items() if each[0] != OTHER),
            key=lambda each: each[1].score,
        )
        for (name, count), (idle, row) in zip(rising, falling, strict=False):
            if count <= AHEAD * row.score + _AHEAD_AT_LEAST:
                break
            del rows[idle]
            watched.remove(name)
            watched.set(idle, row.score)
            rows[name] = AdapterTraffic(name)
            rows[name].score = count
        watched.decay(_DECAY)

    def _exemplify(
        self,
        decision: Decision,
        model: ModelTraffic,
        pod: PodTraffic,
        adapter: AdapterTraffic | None,
    ) -> None:
        trace_id = decision.trace_id
        rows: tuple[ModelTraffic | PodTraffic | AdapterTraffic, ...] = (
            (model, pod) if adapter is None else (model, pod, adapter)
        )
        arrived, wall = decision.arrived_at, self._wall
        ended, answered = decision.ended_at, decision.answered_at
        whole = Exemplar(trace_id, ended - arrived, wall(ended))
        for row in rows:
            row.duration.exemplify(whole)
        if answered:
            begin = Exemplar(trace_id, answered - arrived, wall(answered))
            for row in rows:
                row.first_byte.exemplify(begin)
        if decision.held_for:
            hold = Exemplar(trace_id, decision.held_seconds, wall(decision.decided_at))
            model.hold.exemplify(hold)
            if adapter is not None:
                adapter.hold.exemplify(hold)

    def _pods_changed(self, changed: Iterable[PodState]) -> None:
        """Forget pods that left, and let the rows of the others exist before their first request.

        A query sees no increase in a series that begins with a pod's first failures, and a pod may
        be ejected after these.
        """
        for state in changed:
            name = state.pod.name
            if self._fleet is None or self._fleet.get(name) is None:
                self.pods.pop(name, None)
                continue
            for base_model in state.base_models:
                self._model(base_model)
                pod = self.pods.get(name) or self._pod(name, base_model)
                pod.failed.setdefault(self._model_name(base_model), Failures())


def _count_tokens(decision: Decision, model: ModelTraffic, adapter: AdapterTraffic | None) -> None:
    prompt, completion = decision.prompt_tokens or 0, decision.completion_tokens or 0
    model.prompt_tokens += prompt
    model.completion_tokens += completion
    if decision.cached_tokens is not None:
        model.stated += prompt
        model.stated_cached += decision.cached_tokens
    if adapter is not None:
        adapter.prompt_tokens += prompt
        adapter.completion_tokens += completion
