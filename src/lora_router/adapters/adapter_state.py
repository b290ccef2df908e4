"""How far one declared adapter is as declared: which pods have it, should have it, or fail."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.fit_counts import NO_PODS, FitCount, FitCounts
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import RANK_NAME, Pod, rank_name
from lora_router.fleet.pod_state import PodState

MAX_NAMED_PODS = 100
"""Pods of one adapter that are named. The others are only counted."""
MAX_NAMED_FAILURES = 3


class PodFailure(Protocol):
    """A pod that failed with an adapter."""

    @property
    def action(self) -> str:
        """What it failed to do: ``load`` or ``unload``."""

    @property
    def reason(self) -> str:
        """What the pod said."""


@dataclass(frozen=True, slots=True)
class AdapterState:
    """One adapter in the fleet. Pods are named as in the fleet."""

    pods: FitCount = NO_PODS
    """The pods on which it may be loaded."""
    placed: int = 0
    """Pods on which it belongs now."""
    loaded: int = 0
    """Pods that list it."""
    instances: tuple[str, ...] = ()
    """Some pods that list it, at most ``MAX_NAMED_PODS``, in order. A pod with several servers is
    named once."""
    failing: int = 0
    """Pods that failed to load it."""
    failures: tuple[tuple[str, str], ...] = ()
    """Some of them, at most ``MAX_NAMED_FAILURES``, each with the reason."""


class AdapterStates:
    """Reads the state of adapters."""

    def __init__(
        self,
        fleet: Fleet,
        placed: Callable[[str], Sequence[PodState]],
        failing: Callable[[str], Mapping[PodState, PodFailure]],
        blocked: Callable[[PodState], str] = lambda _: "",
    ) -> None:
        """Create it.

        Args:
            fleet: The pods.
            placed: Returns the pods on which an adapter belongs, by its served name.
            failing: Returns the pods that fail with an adapter, by its served name.
            blocked: Returns why a pod takes no loads; empty: it does.
        """
        self._fleet = fleet
        self._placed = placed
        self._failing = failing
        self._counts = FitCounts(fleet, blocked)

    def forget(self) -> None:
        """Count pods anew from now on. Between two calls, the number of fit pods may be old."""
        self._counts.forget()

    def read(self, adapter: DeclaredAdapter) -> AdapterState:
        """Return the state of an adapter."""
        served = adapter.served_name
        loaded = self._fleet.serving(served).pods
        failures = {
            state.pod.name: failure.reason
            for state, failure in self._failing(served).items()
            if failure.action == "load"
        }
        return AdapterState(
            pods=self._counts.of(adapter),
            placed=len(self._placed(served)),
            loaded=len(loaded),
            instances=self._instances(loaded),
            failing=len(failures),
            failures=tuple(sorted(failures.items())[:MAX_NAMED_FAILURES]),
        )

    def _instances(self, states: Iterable[PodState]) -> tuple[str, ...]:
        names = {self._without_rank(state.pod) for state in states}
        return tuple(sorted(names)[:MAX_NAMED_PODS])

    def _without_rank(self, pod: Pod) -> str:
        """Return the name of the Kubernetes pod of which a server is one of several."""
        found = RANK_NAME.fullmatch(pod.name)
        if found is None:
            return pod.name
        if found[2] == ":":
            return found[1]
        first, second = (self._fleet.get(rank_name(found[1], rank)) for rank in (0, 1))
        if first is None or second is None or not first.pod.uid == second.pod.uid == pod.uid:
            return pod.name  # A pod may have such a name itself.
        return found[1]
