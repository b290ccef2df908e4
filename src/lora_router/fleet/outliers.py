"""Decides from evidence which pods get no new requests (``health`` has the states).

Rules:

- Evidence comes in as plain calls: a request was sent, answered, or ended without an answer; a
  scrape or a probe succeeded or failed. ``tick`` finds what only time shows: a pod that is silent,
  and a pod that is due for a probe.
- At most a share of the ready pods is ejected, and at most that share is excluded. One pod may
  always be, because a fleet that is not empty without it can serve.
- A gateway that sends no response headers gives no evidence of requests, and then nobody is blamed
  for silence.
"""

import logging
import random
from collections.abc import Callable, Collection, Iterable
from itertools import islice

from lora_router.fleet.answer import Answer
from lora_router.fleet.first_bytes import FirstBytes
from lora_router.fleet.health import (
    EJECTED,
    GOOD_AFTER,
    HEALTHY,
    NAMES,
    SLOW_AFTER,
    SUSPECT,
    TRYING,
    Health,
    HealthRules,
    PodHealth,
)
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.fleet")

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
CAUSES = (
    "status-5xx",
    "unreachable",
    "no-first-byte",
    "slow-first-bytes",
    "unreachable-by-scrapes",
)
"""Why pods are ejected, as labels of a metric."""
_CLIENTS_FAULT = frozenset({501, 505})
"""5xx that say that the request was wrong."""


class Outliers:
    """The health of all pods of a fleet."""

    def __init__(self, rules: HealthRules, now: Callable[[], float]) -> None:
        self.rules = rules
        self.now = now
        self.answers_seen = False
        """Whether the gateway has ever sent response headers."""
        self.unwell: dict[PodState, None] = {}
        """The pods that are not healthy, in the order in which they became so."""
        self.ejections: dict[str, int] = {}
        """How many ejections each cause had since the start."""
        self.on_change: Callable[[PodState], None] = _ignore
        """Called when a pod may have become excluded or included."""
        self.on_probe: Callable[[PodState], None] | None = None
        """Called to probe a pod. ``None``: the next request of a client is the probe."""
        self.ready_pods = 0
        """The number of ready pods, which bounds how many may be ejected. The fleet sets it."""
        self._first_bytes = FirstBytes(rules)
        self._position = 0
        self._random = random.Random()
        self._limit = LogLimit(1.0)

    # Which pods get no new requests

    def excluded(self) -> Collection[PodState]:
        """Return the ready pods that get no new requests while another pod is well."""
        if not self.unwell:
            return ()
        out = [state for state in self.unwell if state.pod.ready and _is_out(state.health)]
        # Of more than may be excluded, those with the most evidence against them are.
        out.sort(key=lambda state: state.health.state is not EJECTED)
        return frozenset(out[: self._most()])

    def _most(self) -> int:
        share = self.rules.max_ejected_share
        return max(1, int(share * self.ready_pods)) if share else 0

    def probe_timeout(self) -> float:
        """Return how long a probe may take, in seconds: a busy pod answers late."""
        return max(_PROBE_SECONDS, self._first_bytes.limit(None, streamed=False))

    # Evidence from requests

    def sent(self, request: object, state: PodState) -> None:
        """Record that a request was sent to a pod."""
        health = state.health
        health.unanswered[request] = self.now()
        if health.state is TRYING and health.full:
            self.on_change(state)

    def answered(
        self,
        request: object,
        state: PodState,
        answer: Answer,
        adapter: str | None,
        *,
        streamed: bool,
    ) -> None:
        """Record that the answer of a request began."""
        self.answers_seen = True
        health = state.health
        sent_at = health.unanswered.pop(request, None)
        if sent_at is None:
            return
        details, status = answer.details, answer.status
        if answer.from_the_pod:
            now = self.now()
            health.sign_at = now
            if status < 500 or status in _CLIENTS_FAULT:
                slow = self._first_bytes.add(now - sent_at, adapter, streamed=streamed)
                self._good(state, now, slow=slow)
            else:
                self._bad(state, f"status {status}", now)
        elif details.startswith(_RESET):
            if not any(cause in details for cause in _NOT_THE_PODS_FAULT):
                self._bad(state, "unreachable", self.now())
        elif health.state is TRYING:
            self.on_change(state)

    def moved(self, request: object, before: PodState, after: PodState) -> None:
        """Record that Envoy could not reach a pod and sent the request to another."""
        sent_at = before.health.unanswered.pop(request, None)
        if sent_at is not None:
            after.health.unanswered[request] = sent_at
            self._bad(before, "unreachable", self.now())

    def ended(
        self, request: object, state: PodState, adapter: str | None, *, streamed: bool
    ) -> None:
        """Record that a request ended. Does nothing if it was answered."""
        health = state.health
        sent_at = health.unanswered.pop(request, None)
        if sent_at is None:
            return
        if self.answers_seen:
            now = self.now()
            # Its client gave up. That says something only if the pod was silent for too long.
            limit = self._first_bytes.limit(adapter, streamed=streamed)
            if health.sign_at < sent_at and now - sent_at > limit:
                self._bad(state, "no first byte", now)
                return
        if health.state is TRYING:
            self.on_change(state)

    # Evidence from scrapes and probes

    def scraped(self, state: PodState, metrics: PodMetrics) -> None:
        """Record a good scrape. ``state`` still has the failures before it."""
        health = state.health
        if health.shows_life(metrics):
            health.sign_at = self.now()
            if health.state is SUSPECT and health.cause == "no first byte":
                self._become(state, HEALTHY, "")
        if state.unreachable_scrapes and health.state is EJECTED:
            if health.cause == "unreachable by scrapes":
                self._try(state)
            else:
                health.retry_at = self.now()

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
            self._eject(state, "unreachable by scrapes", self.now())

    def probed(self, state: PodState, *, good: bool) -> None:
        """Record the result of a probe."""
        health = state.health
        health.probing = False
        now = self.now()
        if health.state not in (SUSPECT, EJECTED):
            return
        if not good:
            self._eject(state, health.cause, now)
            return
        health.sign_at = now
        if health.state is SUSPECT:
            health.failures = health.slow = 0
            self._become(state, HEALTHY, "")
        else:
            self._try(state)

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
        for state in islice(states, start, self._position):
            health = state.health
            if health.unanswered:
                self._check_silence(state, now)
            if health.state is not HEALTHY and now >= health.retry_at:
                self._retry(state)

    def forget(self, states: Iterable[PodState]) -> None:
        """Forget pods that have left."""
        for state in states:
            self.unwell.pop(state, None)

    def _check_silence(self, state: PodState, now: float) -> None:
        health = state.health
        if not self.answers_seen:
            return
        request, sent_at = next(iter(health.unanswered.items()))
        silent = now - max(sent_at, health.sign_at)
        rules = self.rules
        if health.state is EJECTED or silent <= rules.first_byte_seconds:
            return
        adapter = getattr(request, "adapter", None)
        streamed = getattr(request, "streamed", False)
        if silent <= self._first_bytes.limit(adapter, streamed=streamed):
            return
        if health.state is HEALTHY:
            self._become(state, SUSPECT, "no first byte")
            health.retry_at = now
        elif health.state is TRYING:
            self._eject(state, "no first byte", now)

    def _retry(self, state: PodState) -> None:
        health = state.health
        if health.state is TRYING or health.probing:
            return
        if self.on_probe is None:
            self._try(state)
            return
        health.probing = True
        self.on_probe(state)

    # Transitions

    def _good(self, state: PodState, now: float, *, slow: bool) -> None:
        health = state.health
        health.failures = 0
        health.count(now, failed=False)
        if not slow:
            health.slow = 0
        else:
            health.slow += 1
            if health.state is HEALTHY and health.slow >= SLOW_AFTER:
                self._become(state, SUSPECT, "slow first bytes")
                health.retry_at = now
            return
        if health.state is HEALTHY:
            return
        if health.state is SUSPECT:
            self._become(state, HEALTHY, "")
        elif health.state is EJECTED:
            # An answer to an earlier request. The next probe finds out more.
            health.retry_at = min(health.retry_at, now)
        else:
            health.successes += 1
            health.allowance *= 2
            if health.successes >= GOOD_AFTER:
                health.healthy_since = now
                self._become(state, HEALTHY, "")
            else:
                self.on_change(state)

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
            self._eject(state, cause, now)
        elif health.state is HEALTHY and health.failures >= rules.consecutive_failures - 1 > 0:
            # One failure before the ejection a probe decides, so that no further client has to.
            self._become(state, SUSPECT, cause)
            health.retry_at = now

    def _eject(self, state: PodState, cause: str, now: float) -> None:
        health, rules = state.health, self.rules
        if now - health.healthy_since > rules.max_ejection_seconds and health.state is HEALTHY:
            health.ejections = 0
        backoff = min(
            rules.min_ejection_seconds * 2 ** min(health.ejections, 30), rules.max_ejection_seconds
        )
        health.ejections += 1
        # Jitter, so that routers do not all probe a pod at the same moment.
        health.retry_at = now + backoff * self._random.uniform(0.75, 1.0)
        if health.state is EJECTED:
            return
        others = sum(each.health.state in (EJECTED, TRYING) for each in self.unwell)
        if health.state is not TRYING and others >= self._most():
            self._become(state, SUSPECT, cause)
            return
        self.ejections[_label(cause)] = self.ejections.get(_label(cause), 0) + 1
        self._become(state, EJECTED, cause)

    def _try(self, state: PodState) -> None:
        health = state.health
        health.successes, health.allowance = 0, 1
        health.failures = health.slow = 0
        health.window_total = health.window_failed = 0
        self._become(state, TRYING, health.cause)

    def _become(self, state: PodState, now: Health, cause: str) -> None:
        health = state.health
        before, health.state = health.state, now
        health.cause = cause
        if now is HEALTHY:
            self.unwell.pop(state, None)
        else:
            self.unwell[state] = None
        if before is not now:
            self._log(state, before, now)
        self.on_change(state)

    def _log(self, state: PodState, before: Health, now: Health) -> None:
        if now is EJECTED:
            self._limit.log(
                log,
                logging.WARNING,
                "ejected",
                "pod %s at %s ejected: %s; it gets no new requests until it answers again",
                state.pod.name,
                state.pod.address,
                state.health.cause,
            )
        elif now is HEALTHY and before is TRYING:
            self._limit.log(
                log, logging.INFO, "back", "pod %s answers again and is healthy", state.pod.name
            )
        else:
            log.debug("pod %s was %s and is %s", state.pod.name, NAMES[before], NAMES[now])


def _is_out(health: PodHealth) -> bool:
    return health.state is not TRYING or health.full


def _label(cause: str) -> str:
    """Return the cause as one of ``CAUSES``."""
    return "status-5xx" if cause.startswith("status ") else cause.replace(" ", "-")


def _ignore(_state: PodState) -> None:
    """Do nothing."""
