"""Decides from evidence which pods get no new requests (``health`` has the states).

Rules:

- Evidence comes in as plain calls: a request was sent, answered, or ended without an answer; a
  scrape or a probe succeeded or failed. ``tick`` finds what only time shows: a pod that is silent,
  and a pod that is due for a probe.
- ``unwell_pods`` has the transitions that follow, and the pods that they exclude.
- If the gateway sends no response headers, requests are no evidence, and neither is silence.
"""

from collections.abc import Callable, Collection
from itertools import islice
from typing import Protocol

from lora_router.fleet.answer import Answer
from lora_router.fleet.first_bytes import FirstBytes
from lora_router.fleet.health import (
    EJECTED,
    GOOD_AFTER,
    HEALTHY,
    SLOW_AFTER,
    SUSPECT,
    TRYING,
    HealthRules,
    Sent,
)
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.unwell_pods import (
    BY_SCRAPES,
    NO_FIRST_BYTE,
    SLOW_FIRST_BYTES,
    TRIAL_SECONDS,
    UNREACHABLE,
    UnwellPods,
    by_status,
)

TICK_SECONDS = 0.1
"""How often ``tick`` is to be called."""
_PODS_PER_TICK = 2000
"""How many pods one tick inspects. More pods are inspected over several ticks."""
_PROBE_SECONDS = 2.0
"""The shortest timeout of a probe."""
_RESET = "upstream_reset_before_response_started"
"""How Envoy's response code details begin if the connection failed before the answer."""
_NOT_THE_PODS_FAULT = ("overflow", "local_reset")
"""Resets that Envoy caused itself: its circuit breaker, or the end of its client."""
CLIENTS_FAULT = frozenset({501, 505})
"""5xx that say that the request was wrong."""


class SentToPod(Sent, Protocol):
    """A request and its pod. ``ledger.Reservation`` is one."""

    state: PodState


class Outliers:
    """The health of all pods of a fleet."""

    def __init__(self, rules: HealthRules, now: Callable[[], float]) -> None:
        self.rules = rules
        self.now = now
        self.answers_seen = False
        """Whether the gateway has ever sent response headers."""
        self.unwell = UnwellPods(rules)
        self.on_probe: Callable[[PodState], None] | None = None
        """Called to probe a pod. ``None``: the next request of a client is the probe."""
        self._first_bytes = FirstBytes(rules)
        self._position = 0

    def probe_timeout(self, state: PodState) -> float:
        """Return how long a probe of a pod may take, in seconds: a busy pod answers late."""
        return max(_PROBE_SECONDS, self._first_bytes.limit(state.base_models, None, streamed=False))

    # Evidence from requests

    def sent(self, request: SentToPod) -> None:
        """Record that a request was sent to its pod."""
        state = request.state
        health = state.health
        if request.path is None:
            health.untimed += 1
        else:
            health.unanswered[request] = self.now()
        if health.state is TRYING and health.full:
            self.unwell.changed(state)

    def answered(self, request: SentToPod, answer: Answer) -> None:
        """Record that the answer of a request began."""
        self.answers_seen = True
        state = request.state
        sent_at = self._no_longer_waits(request, state)
        if sent_at is None:
            return
        now = self.now()
        if answer.from_the_pod:
            health = state.health
            health.sign_at = now
            if answer.status < 500 or answer.status in CLIENTS_FAULT:
                late = sent_at > 0 and self._first_bytes.add(
                    now - sent_at, state.base_models, request.adapter, streamed=request.streamed
                )
                self._good(state, now, late=late)
                return
            # A path that the router does not know may fail on every pod.
            if request.path is not None:
                health.failed_path = request.path
                self._bad(state, by_status(answer.status), now)
                return
        elif answer.details.startswith(_RESET) and not any(
            cause in answer.details for cause in _NOT_THE_PODS_FAULT
        ):
            self._bad(state, UNREACHABLE, now)
            return
        if state.health.state is TRYING:
            self.unwell.changed(state)

    def moved(self, request: SentToPod, before: PodState) -> None:
        """Record that Envoy could not reach a pod and sent the request to another."""
        sent_at = self._no_longer_waits(request, before)
        if sent_at is None:
            return
        health = request.state.health
        if request.path is None:
            health.untimed += 1
        else:
            health.unanswered[request] = sent_at
        self._bad(before, UNREACHABLE, self.now())

    def ended(self, request: SentToPod) -> None:
        """Record that a request ended. Does nothing if it was answered."""
        state = request.state
        sent_at = self._no_longer_waits(request, state)
        if sent_at is None:
            return
        health = state.health
        if self.answers_seen and sent_at > 0:
            now = self.now()
            # Its client gave up. That says something only if the pod was silent for too long.
            bases = state.base_models
            limit = self._first_bytes.limit(bases, request.adapter, streamed=request.streamed)
            if health.sign_at < sent_at and now - sent_at > limit:
                self._bad(state, NO_FIRST_BYTE, now)
                return
        if health.state is TRYING:
            self.unwell.changed(state)

    @staticmethod
    def _no_longer_waits(request: SentToPod, state: PodState) -> float | None:
        """Remove a request from those without a first byte.

        Returns:
            When it was sent; 0 if its time says nothing; ``None`` if it was not waiting.
        """
        health = state.health
        if request.path is not None:
            return health.unanswered.pop(request, None)
        if not health.untimed:
            return None
        health.untimed -= 1
        return 0.0

    # Evidence from scrapes and probes

    def scraped(self, state: PodState, metrics: PodMetrics, *, is_first: bool = False) -> None:
        """Record a good scrape, which may be the first. ``state`` has the failures before it."""
        health = state.health
        if health.shows_life(metrics):
            health.sign_at = self.now()
            if health.state is SUSPECT and health.cause == NO_FIRST_BYTE:
                self.unwell.heal(state, self.now())
        if not state.unreachable_scrapes or health.state not in (SUSPECT, EJECTED):
            return
        if health.cause != BY_SCRAPES:
            health.retry_at = self.now()
        elif health.state is EJECTED and not is_first:
            self.unwell.try_again(state, self.now())
        else:
            # No request failed, and it has just started, or too few pods were left without it.
            self.unwell.heal(state, self.now())

    def scrape_failed(self, state: PodState) -> None:
        """Record a scrape that could not reach the pod."""
        health = state.health
        # Metrics may have a port of their own: a pod that answers requests is well.
        silent = self.now() - health.sign_at
        if (
            state.unreachable_scrapes >= self.rules.consecutive_failures
            and health.state is not EJECTED
            and silent > self.rules.first_byte_seconds
        ):
            self.unwell.eject(state, BY_SCRAPES, self.now())

    def probed(self, state: PodState, *, good: bool | None) -> None:
        """Record the result of a probe; ``None``: it says nothing about the engine."""
        health = state.health
        health.probing = False
        now = self.now()
        if health.state is HEALTHY:
            return
        if good:
            health.sign_at = now
        if good is False or (good is None and health.state is SUSPECT):
            self.unwell.eject(state, health.cause, now)
        elif health.state is SUSPECT:
            health.failures = health.slow = 0
            self.unwell.heal(state, now)
        elif health.state is EJECTED:
            # If the probe says nothing, the next request of a client is the probe.
            self.unwell.try_again(state, now)
        elif good:
            self._tried(state, now)
        else:
            health.retry_at = float("inf")

    # Evidence from time

    def tick(self, states: Collection[PodState]) -> None:
        """Find silent pods, and start the probes that are due.

        Args:
            states: All pods of the fleet. Of many, each call inspects some.
        """
        now = self.now()
        if self._position >= len(states):
            self._position = 0
        start, self._position = self._position, self._position + _PODS_PER_TICK
        with self.unwell.together():
            for state in islice(states, start, self._position):
                health = state.health
                if health.unanswered:
                    self._check_silence(state, now)
                if health.state is not HEALTHY and now >= health.retry_at:
                    self._retry(state)

    def _check_silence(self, state: PodState, now: float) -> None:
        health = state.health
        if not self.answers_seen or health.state is EJECTED:
            return
        request, sent_at = next(iter(health.unanswered.items()))
        limit = self._first_bytes.limit(
            state.base_models,
            request.adapter,
            streamed=request.streamed,
            waiting=len(health.unanswered),
        )
        if now - max(sent_at, health.sign_at) <= limit:
            return
        health.failed_path = request.path or ""
        if health.state is HEALTHY:
            self.unwell.suspect(state, NO_FIRST_BYTE, now)
        elif health.state is TRYING:
            self.unwell.eject(state, NO_FIRST_BYTE, now)

    def _retry(self, state: PodState) -> None:
        health = state.health
        if health.probing:
            return
        if health.state is TRYING and (
            self.on_probe is None or health.unanswered or health.untimed
        ):
            return  # A request of a client is the next trial.
        if self.on_probe is None:
            self.unwell.try_again(state, self.now())
            return
        health.probing = True
        self.on_probe(state)

    # Transitions

    def _good(self, state: PodState, now: float, *, late: bool) -> None:
        health = state.health
        health.failures = 0
        health.count(now, failed=False)
        if not late:
            health.slow = 0
        else:
            health.slow += 1
            if health.state is HEALTHY and health.slow >= SLOW_AFTER:
                self.unwell.suspect(state, SLOW_FIRST_BYTES, now)
            elif health.state is TRYING:
                # It waits for one request less, so that it may get another.
                self.unwell.changed(state)
            return
        if health.state is HEALTHY:
            return
        if health.state is SUSPECT:
            self.unwell.heal(state, now)
        elif health.state is EJECTED:
            # An answer to an earlier request. The next probe finds out more.
            health.retry_at = min(health.retry_at, now)
        else:
            self._tried(state, now)

    def _tried(self, state: PodState, now: float) -> None:
        """Record a good answer of a pod that is being tried."""
        health = state.health
        health.successes += 1
        health.allowance *= 2
        health.retry_at = now + TRIAL_SECONDS
        if health.successes >= GOOD_AFTER:
            self.unwell.heal(state, now)
        else:
            self.unwell.changed(state)

    def _bad(self, state: PodState, cause: str, now: float) -> None:
        health, rules = state.health, self.rules
        health.failures += 1
        health.count(now, failed=True)
        if health.state is EJECTED:
            return
        if (
            health.state is TRYING
            or health.failures >= rules.consecutive_failures
            or health.fails_too_often(rules.failure_share)
        ):
            self.unwell.eject(state, cause, now)
        elif health.state is HEALTHY and health.failures >= rules.consecutive_failures - 1 > 0:
            # One failure before the ejection a probe decides, so that no further client has to.
            self.unwell.suspect(state, cause, now)
