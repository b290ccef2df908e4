"""The pods that are not healthy: their transitions, and which of them get no new requests.

Of the ready pods that serve the same base models, at most a share is ejected, and at most that
share is excluded. A share above 0 always allows one pod. So when all pods of one model fail, those
of another one can still be ejected.

A transition costs the same however many pods are not healthy, unless more are out than may be
excluded. When a zone fails, hundreds of pods change within a second.
"""

import logging
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice

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
_BARRED = (EJECTED, TRYING)
"""The states of pods that count as ejected."""
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


class _OfBases:
    """The unwell pods that serve the same base models."""

    __slots__ = ("barred", "excluded", "out")

    def __init__(self) -> None:
        self.barred = 0
        """How many are ejected or being tried."""
        self.out: dict[PodState, None] = {}
        """Those that should get no new requests."""
        self.excluded = self.out
        """Those that get none: all of these, or as many as may be excluded."""


class UnwellPods:
    """The pods of one fleet that are not healthy, in the order in which they became so."""

    def __init__(self, rules: HealthRules) -> None:
        self.ejections: dict[str, int] = {}
        """How many ejections each cause had since the start."""
        self.transitions = dict.fromkeys(Health, 0)
        """How often a pod came into each state since the start."""
        self.on_change: Callable[[Collection[PodState]], None] = _ignore
        """Called with pods that may have become excluded or included."""
        self.ready_pods: Mapping[BaseModels, int] = {}
        """The number of ready pods by the base models that they serve, which bounds how many may be
        ejected."""
        self._rules = rules
        self._pods: dict[PodState, _OfBases] = {}
        self._groups: dict[BaseModels, _OfBases] = {}
        self._collected: dict[PodState, None] | None = None
        """The pods that changed within ``together``. ``None``: each change is reported at once."""
        self._random = random.Random()
        self._limit = LogLimit(1.0)

    def __len__(self) -> int:
        return len(self._pods)

    def __iter__(self) -> Iterator[PodState]:
        return iter(tuple(self._pods))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Report all changes within the context as one, at its end."""
        if self._collected is not None:
            yield
            return
        collected = self._collected = {}
        try:
            yield
        finally:
            self._collected = None
            if collected:
                self.on_change(tuple(collected))

    def changed(self, state: PodState) -> None:
        """Report that a pod may have become excluded or included."""
        if self._collected is None:
            self.on_change((state,))
        else:
            self._collected[state] = None

    # Which pods get no new requests

    @property
    def excluded_pods(self) -> int:
        """The number of pods that ``excluded`` returns."""
        return sum([len(group.excluded) for group in self._groups.values()])

    def excluded(self) -> list[PodState]:
        """Return the ready pods that get no new requests while another pod is well."""
        return [state for group in self._groups.values() for state in group.excluded]

    def count_again(self, ready: Iterable[PodState]) -> None:
        """Count all pods, because some joined, left or changed, or what they serve did.

        Args:
            ready: All ready pods of the fleet.
        """
        self.ready_pods = Counter([state.base_models for state in ready])
        self._groups.clear()
        for state in self._pods:
            group = self._pods[state] = self._group_of(state)
            group.barred += state.health.state in _BARRED
            if _is_out(state):
                group.out[state] = None
        for bases, group in self._groups.items():
            group.excluded = self._first(group.out, self._most(bases))

    def renew(self, states: Collection[PodState]) -> Collection[PodState]:
        """Renew which pods are excluded, because the health of some changed.

        Returns:
            The pods that became excluded or included.
        """
        changed: dict[PodState, None] = {}
        crowded: dict[BaseModels, dict[PodState, None]] = {}
        for state in states:
            bases = state.base_models
            group = self._groups.get(bases)
            if group is None:
                continue
            out, is_out = group.out, _is_out(state)
            if bases not in crowded and len(out) + len(states) > self._most(bases):
                crowded[bases] = dict(group.excluded)
            if is_out is not (state in out):
                if is_out:
                    out[state] = None
                else:
                    del out[state]
                if bases not in crowded:
                    changed[state] = None
        # Here, whether one pod is excluded depends on others.
        for bases, before in crowded.items():
            group = self._groups[bases]
            after = group.excluded = self._first(group.out, self._most(bases))
            changed.update((each, None) for each in before if each not in after)
            changed.update((each, None) for each in after if each not in before)
        return changed

    def _group_of(self, state: PodState) -> _OfBases:
        group = self._groups.get(state.base_models)
        if group is None:
            group = self._groups[state.base_models] = _OfBases()
        return group

    @staticmethod
    def _first(out: dict[PodState, None], most: int) -> dict[PodState, None]:
        """Return as many pods as may be excluded: those with the most evidence against them."""
        if len(out) <= most:
            return out
        return dict.fromkeys(islice(sorted(out, key=_weakness), most))

    def ejected(self) -> Mapping[str, tuple[str, str]]:
        """Return the names of the ejected pods, each with the server's address and uid."""
        return {
            state.pod.name: (state.pod.address, state.pod.uid)
            for state in self._pods
            if state.health.state is EJECTED
        }

    def forget(self, state: PodState) -> None:
        """Forget a pod that has left."""
        group = self._pods.pop(state, None)
        if group is not None:
            group.barred -= state.health.state in _BARRED

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
        others = self._group_of(state).barred
        if health.state is not TRYING and others >= self._most(state.base_models):
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
        group = self._pods.get(state)
        if group is None:
            group = self._group_of(state)
        else:
            group.barred -= before in _BARRED
        if health is HEALTHY:
            self._pods.pop(state, None)
        else:
            self._pods[state] = group
            group.barred += health in _BARRED
        if before is not health:
            self.transitions[health] += 1
            self._log(state, before)
        self.changed(state)

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


def _is_out(state: PodState) -> bool:
    """Return whether a pod should get no new requests while another one is well."""
    health = state.health
    now = health.state
    return now is not HEALTHY and state.pod.ready and (now is not TRYING or health.full)


def _ignore(_states: Collection[PodState]) -> None:
    """Do nothing."""
