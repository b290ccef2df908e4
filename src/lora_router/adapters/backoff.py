"""Which adapters pods failed to load, why, and when each is tried again.

Rules:

- The pause of a pod and an adapter doubles with each failure in a row, up to ``LONGEST_SECONDS``.
  Jitter keeps pods that failed together from trying together.
- A failure of one adapter delays no other adapter, and a failure on one pod delays no other pod.
- But if ``FEW_PODS`` pods or more say that they cannot load an adapter, or do not answer in time,
  its source is at fault. It is then tried on one more pod at a time, with pauses that double.
- A call that is not answered in time takes minutes of a pod, so the pauses after it are longer.
- At most ``MAX_FAILURES`` pairs are kept. Those that failed longest ago are forgotten first, and so
  are tried again sooner.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lora_router.fleet.pod_state import PodState

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 300.0
FIRST_SILENT_SECONDS = 30.0
LONGEST_SILENT_SECONDS = 600.0
"""The same after a call that was not answered in time, and for a pod that takes no calls."""
MAX_FAILURES = 16_384
FEW_PODS = 3
"""A higher value loads adapters sooner that few pods can reach. A lower one costs fewer calls for
names that do not exist."""
_JITTER = 0.25
"""Share of a pause by which it is shortened or prolonged."""
_NO_PODS: Mapping[PodState, "Failure"] = MappingProxyType({})
_NO_ADAPTERS: Mapping[str, "Failure"] = MappingProxyType({})


@dataclass(slots=True)
class Failure:
    """An adapter that a pod failed to load or to unload, once or several times in a row."""

    action: str
    """``load`` or ``unload``."""
    reason: str
    """What the pod said last."""
    since: float
    """When it failed first."""
    count: int = 0
    at: float = 0.0
    """When it failed last."""
    next_at: float = 0.0
    """When it is tried again."""
    refused_at: float | None = None
    """When the pod said that it cannot load this adapter, or did not answer in time; ``None``: it
    failed in another way."""
    is_silent: bool = False
    """Whether the pod did not answer in time."""
    is_told: bool = False
    """Whether the log has named it, with this reason."""


def pause(failures: int, rng: random.Random, first: float, longest: float) -> float:
    """Return the seconds until the next attempt after so many failures in a row."""
    return doubled(failures - 1, first, longest) * rng.uniform(1 - _JITTER, 1 + _JITTER)


def doubled(times: int, first: float, longest: float) -> float:
    """Return a pause that is doubled so many times, up to the longest one."""
    return min(longest, first * 2.0 ** min(times, 30))


def refused_until(failures: Iterable[Failure]) -> float:
    """Return until when an adapter is tried on no further pod, because many refused it.

    Args:
        failures: All failures of the adapter.
    """
    refused = [(each.refused_at, each) for each in failures if each.refused_at is not None]
    if len(refused) < FEW_PODS:
        return float("-inf")
    at, last = max(refused, key=lambda each: each[0])
    first, longest = _pauses(is_silent=last.is_silent)
    return at + doubled(len(refused) - FEW_PODS, first, longest)


def _pauses(*, is_silent: bool) -> tuple[float, float]:
    """Return the first pause and the longest one."""
    if is_silent:
        return FIRST_SILENT_SECONDS, LONGEST_SILENT_SECONDS
    return FIRST_SECONDS, LONGEST_SECONDS


class Failures:
    """The failures of one fleet."""

    def __init__(self, now: Callable[[], float], rng: random.Random) -> None:
        """Create it without failures.

        Args:
            now: Returns seconds, monotonic.
            rng: Source of the jitter.
        """
        self._now = now
        self._rng = rng
        self._of_pods: dict[PodState, dict[str, Failure]] = {}
        self._of_adapters: dict[str, dict[PodState, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, state: PodState, name: str) -> Failure | None:
        """Return the failure of an adapter on a pod, or ``None`` if it does not fail there."""
        found = self._of_pods.get(state)
        return None if found is None else found.get(name)

    def of_adapter(self, name: str) -> Mapping[PodState, Failure]:
        """Return the failures of an adapter, by pod."""
        pods = self._of_adapters.get(name)
        return {state: self._of_pods[state][name] for state in pods} if pods else _NO_PODS

    def of_pod(self, state: PodState) -> Mapping[str, Failure]:
        """Return the failures on a pod, by adapter."""
        return self._of_pods.get(state, _NO_ADAPTERS)

    def failed(
        self,
        state: PodState,
        name: str,
        action: str,
        reason: str,
        *,
        is_refused: bool = False,
        is_silent: bool = False,
    ) -> Failure:
        """Record a failure, and return it.

        Args:
            state: The pod.
            name: The adapter.
            action: ``load`` or ``unload``.
            reason: What the pod said.
            is_refused: Whether it said that it cannot load this adapter.
            is_silent: Whether it did not answer in time.
        """
        now = self._now()
        of_pod = self._of_pods.setdefault(state, {})
        failure = of_pod.get(name)
        if failure is None:
            if self._count >= MAX_FAILURES:
                self._forget_oldest()
                of_pod = self._of_pods.setdefault(state, {})
            failure = of_pod[name] = Failure(action, reason, now)
            self._of_adapters.setdefault(name, {})[state] = None
            self._count += 1
        if (failure.action, failure.reason) != (action, reason):
            failure.action, failure.reason, failure.is_told = action, reason, False
        failure.at, failure.is_silent = now, is_silent
        failure.refused_at = now if is_refused or is_silent else None
        failure.count += 1
        first, longest = _pauses(is_silent=is_silent)
        failure.next_at = now + pause(failure.count, self._rng, first, longest)
        return failure

    def succeeded(self, state: PodState, name: str) -> bool:
        """Forget the failures of an adapter on a pod; return whether there were any."""
        of_pod = self._of_pods.get(state)
        if of_pod is None or of_pod.pop(name, None) is None:
            return False
        if not of_pod:
            del self._of_pods[state]
        pods = self._of_adapters[name]
        del pods[state]
        if not pods:
            del self._of_adapters[name]
        self._count -= 1
        return True

    def forget_pod(self, state: PodState) -> None:
        """Forget the failures of a pod that left or was restarted."""
        for name in tuple(self._of_pods.get(state, ())):
            self.succeeded(state, name)

    def forget_adapter(self, name: str) -> None:
        """Forget the failures of an adapter whose declaration changed."""
        for state in tuple(self._of_adapters.get(name, ())):
            self.succeeded(state, name)

    def _forget_oldest(self) -> None:
        state, of_pod = next(iter(self._of_pods.items()))
        self.succeeded(state, next(iter(of_pod)))
