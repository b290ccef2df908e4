"""The pods that are not healthy: their transitions, and which of them get no new requests.

Of the ready pods that serve the same base models, at most a share is ejected, and at most that
share is excluded. A share above 0 always allows one pod. So when all pods of one model fail, those
of another one can still be ejected.
"""

import logging
import random
from collections.abc import Callable, Collection, Iterator, Mapping

from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.health import (
    EJECTED,
    HEALTHY,
    NAMES,
    SUSPECT,
    TRYING,
    Health,
    HealthRules,
)
from lora_router.fleet.pod_state import PodState
from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.fleet")

UNREACHABLE = "unreachable"
NO_FIRST_BYTE = "no first byte"
SLOW_FIRST_BYTES = "slow first bytes"
BY_SCRAPES = "unreachable by scrapes"
"""The weakest cause: no request has failed."""
BY_A_PEER = "ejected by a peer"
_STATUS = "status"
TRIAL_SECONDS = 0.5
"""A pod that is being tried, and that no client asks, is probed this often."""


def by_status(status: int) -> str:
    """Return the cause of a pod that answers with a status."""
    return f"{_STATUS} {status}"


def _label(cause: str) -> str:
    """Return a cause as a label of a metric. All statuses have the same."""
    return "status-5xx" if cause.startswith(_STATUS) else cause.replace(" ", "-")


CAUSES = tuple(
    map(
        _label,
        (_STATUS, UNREACHABLE, NO_FIRST_BYTE, SLOW_FIRST_BYTES, BY_SCRAPES, BY_A_PEER),
    )
)
"""Why pods are ejected, as labels of a metric."""


class UnwellPods:
    """The pods of one fleet that are not healthy, in the order in which they became so."""

    def __init__(self, rules: HealthRules) -> None:
        self.ejections: dict[str, int] = {}
        """How many ejections each cause had since the start."""
        self.transitions = dict.fromkeys(Health, 0)
        """How often a pod came into each state since the start."""
        self.on_change: Callable[[PodState], None] = _ignore
        """Called when a pod may have become excluded or included."""
        self.ready_pods: Mapping[BaseModels, int] = {}
        """The number of ready pods by the base models that they serve, which bounds how many may be
        ejected. The fleet sets it."""
        self._rules = rules
        self._pods: dict[PodState, None] = {}
        self._random = random.Random()
        self._limit = LogLimit(1.0)

    def __len__(self) -> int:
        return len(self._pods)

    def __iter__(self) -> Iterator[PodState]:
        return iter(tuple(self._pods))

    def excluded(self) -> Collection[PodState]:
        """Return the ready pods that get no new requests while another pod is well."""
        if not self._pods:
            return ()
        out = [
            state
            for state in self._pods
            if state.pod.ready and (state.health.state is not TRYING or state.health.full)
        ]
        # Of more than may be excluded, those with the most evidence against them are.
        out.sort(key=_weakness)
        left: dict[BaseModels, int] = {}
        excluded = []
        for state in out:
            bases = state.base_models
            most = left.setdefault(bases, self._most(bases))
            if most:
                left[bases] = most - 1
                excluded.append(state)
        return frozenset(excluded)

    def ejected(self) -> Mapping[str, tuple[str, str]]:
        """Return the names of the ejected pods, each with the server's address and uid."""
        return {
            state.pod.name: (state.pod.address, state.pod.uid)
            for state in self._pods
            if state.health.state is EJECTED
        }

    def forget(self, state: PodState) -> None:
        """Forget a pod that has left."""
        self._pods.pop(state, None)

    # Transitions

    def suspect(self, state: PodState, cause: str, now: float) -> None:
        """Make a healthy pod suspect. Its probe is due at once."""
        state.health.retry_at = now
        self._become(state, SUSPECT, cause)

    def eject(self, state: PodState, cause: str, now: float) -> None:
        """Eject a pod, or, if it is ejected, let it wait longer for its next probe."""
        health, rules = state.health, self._rules
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
        bases = state.base_models
        others = sum(
            each.health.state in (EJECTED, TRYING) and each.base_models == bases
            for each in self._pods
        )
        if health.state is not TRYING and others >= self._most(bases):
            self._become(state, SUSPECT, cause)
            return
        label = _label(cause)
        self.ejections[label] = self.ejections.get(label, 0) + 1
        self._become(state, EJECTED, cause)

    def try_again(self, state: PodState, now: float) -> None:
        """Let one request through to a pod, then more. Where none comes, probes try it."""
        health = state.health
        health.retry_at = now + TRIAL_SECONDS
        health.successes, health.allowance = 0, 1
        health.failures = health.slow = 0
        health.window_total = health.window_failed = 0
        # Requests that were sent before may never be answered. They do not use up the allowance.
        health.unanswered.clear()
        health.untimed = 0
        self._become(state, TRYING, health.cause)

    def heal(self, state: PodState, now: float) -> None:
        """Make a pod healthy."""
        state.health.healthy_since = now
        self._become(state, HEALTHY, "")

    def _most(self, bases: BaseModels) -> int:
        share = self._rules.max_ejected_share
        return max(1, int(share * self.ready_pods.get(bases, 0))) if share else 0

    def _become(self, state: PodState, health: Health, cause: str) -> None:
        before, state.health.state = state.health.state, health
        state.health.cause = cause
        if health is HEALTHY:
            self._pods.pop(state, None)
        else:
            self._pods[state] = None
        if before is not health:
            self.transitions[health] += 1
            self._log(state, before)
        self.on_change(state)

    def _log(self, state: PodState, before: Health) -> None:
        pod, health = state.pod, state.health
        if health.state is EJECTED:
            self._limit.log(
                log,
                logging.WARNING,
                "ejected",
                "pod %s at %s ejected: %s; it gets no new requests until it answers again",
                pod.name,
                pod.address,
                health.cause,
            )
        elif health.state is HEALTHY and before is not SUSPECT:
            self._limit.log(log, logging.INFO, "back", "pod %s is healthy again", pod.name)
        else:
            log.debug("pod %s was %s and is %s", pod.name, NAMES[before], NAMES[health.state])


def _weakness(state: PodState) -> tuple[bool, bool]:
    """Return a key by which the strongest evidence comes first."""
    health = state.health
    return health.cause == BY_SCRAPES, health.state is not EJECTED


def _ignore(_state: PodState) -> None:
    """Do nothing."""
