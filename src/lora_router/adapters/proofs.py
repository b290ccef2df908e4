"""Which adapters are known to load, because a pod has loaded them as they are declared now.

A source may hang, or have no adapter. So an adapter that no pod has yet is loaded on one pod at a
time, until one has it:

- While a pod loads it, no other pod does. If requests wait for it and the call takes longer than
  loads usually do, a second pod tries it, because the first pod may be at fault. It does so only if
  a further pod has no call, and not for names that clients chose.
- After failures on many pods, there are pauses that double (``backoff``). Others make room for it
  after longer pauses.
- It is known to load as soon as a pod lists it. A new version has a new name. A source that changes
  under the same name is to be loaded once more.
"""

from collections.abc import Callable, Mapping, Sized

from lora_router.adapters.backoff import Failure, Failures, doubled, refused_until
from lora_router.adapters.calls import Call
from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.pod_loads import PodLoads
from lora_router.adapters.trouble import Trouble
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState

FIRST_EVICT_SECONDS = 30.0
LONGEST_EVICT_SECONDS = 600.0
"""How long nothing is evicted for an adapter that no pod has and that failed. With lower values,
more good copies are loaded again in vain."""
LOOK_AGAIN_SECONDS = 1.0
"""After which it is looked again whether another pod still loads an adapter."""
_MOST_AT_ONCE = 2
"""Pods that load an adapter at the same time that no pod has."""
_MAX_CHANGED = 4096
"""Adapters with a changed source that are remembered."""


class Proofs:
    """Knows them for one fleet, and which calls are under way."""

    def __init__(
        self,
        fleet: Fleet,
        failures: Failures,
        pods: Sized,
        now: Callable[[], float],
    ) -> None:
        """Create it.

        Args:
            fleet: The pods, and what they list.
            failures: What fails.
            pods: The pods that take loads.
            now: Returns seconds, monotonic.
        """
        self._fleet = fleet
        self.failures = failures
        self._pods = pods
        self._now = now
        self._under_way = 0
        """Calls."""
        self._loading: dict[str, dict[PodLoads, None]] = {}
        """The pods that load adapters now, by served name."""
        self._changed: dict[str, None] = {}
        """Served names whose source changed, and that no pod has loaded since."""

    def is_proven(self, name: str) -> bool:
        """Return whether an adapter is known to load."""
        return name not in self._changed and bool(self._fleet.serving(name).pods)

    def sources_changed(self, names: Mapping[str, str]) -> None:
        """Note that adapters have other sources under the same served names."""
        for name in names:
            self._changed.pop(name, None)
            self._changed[name] = None
        while len(self._changed) > _MAX_CHANGED:
            del self._changed[next(iter(self._changed))]

    def began(self, pod: PodLoads, call: Call) -> None:
        """Note that a call has begun."""
        self._under_way += 1
        if call.action == "load":
            self._loading.setdefault(call.name, {})[pod] = None

    def ended(self, pod: PodLoads, call: Call) -> None:
        """Note that a call has ended."""
        self._under_way -= 1
        pods = self._loading.get(call.name)
        if call.action == "load" and pods is not None:
            pods.pop(pod, None)
            if not pods:
                del self._loading[call.name]

    def loaded(self, call: Call, adapter: DeclaredAdapter | None) -> bool:
        """Note that a pod has loaded an adapter; return whether that is the first proof.

        Args:
            call: The load.
            adapter: The adapter as it is declared now.
        """
        is_first = len(self._fleet.serving(call.name).pods) <= 1
        if adapter is not None and adapter.source == call.source and call.name in self._changed:
            del self._changed[call.name]
            return True
        return is_first

    def trouble(self, name: str) -> Trouble | None:
        """Return what hinders the loads of an adapter, if something does."""
        failures = self._loads_of(name)
        if not failures:
            return None
        is_nowhere = not self.is_proven(name)
        may_evict = not is_nowhere or self._evicts_at(failures) <= self._now()
        return Trouble(frozenset(failures), is_nowhere, may_evict)

    def begins_to_fail(self, name: str) -> bool:
        """Return whether an adapter that no pod has failed for the first time."""
        failures = self._loads_of(name)
        return sum(each.count for each in failures.values()) == 1 and not self.is_proven(name)

    def waits_until(self, pod: PodLoads, adapter: DeclaredAdapter, now: float) -> float | None:
        """Return from when on a pod may load an adapter; ``None``: it may do so now.

        If requests wait for it, it is tried on other pods at once after a failure
        (``first_places``).
        """
        name = adapter.served_name
        if self.is_proven(name):
            return None
        is_first_use = name in pod.first
        if not self._has_turn(name, now, is_hedged=is_first_use and not adapter.is_templated):
            return now + LOOK_AGAIN_SECONDS
        until = refused_until(self._loads_of(name).values())
        return None if is_first_use or until <= now else until

    def evicts_at(self, name: str) -> float:
        """Return from when on others may make room for an adapter."""
        failures = self._loads_of(name)
        may = not failures or self.is_proven(name)
        return float("-inf") if may else self._evicts_at(failures)

    def may_hedge(self, adapter: DeclaredAdapter) -> bool:
        """Return whether a second pod may try what the first one has loaded for too long."""
        return not adapter.is_templated and self._has_turn(
            adapter.served_name, self._now(), is_hedged=True
        )

    def _has_turn(self, name: str, now: float, *, is_hedged: bool) -> bool:
        loading = self._loading.get(name)
        if loading is None:
            return True
        is_idle = len(self._pods) - self._under_way > 1
        return (
            is_hedged
            and is_idle
            and len(loading) < _MOST_AT_ONCE
            and all(each.is_slow(now) for each in loading)
        )

    def _loads_of(self, name: str) -> Mapping[PodState, Failure]:
        failures = self.failures.of_adapter(name)
        if not failures:
            return failures
        return {state: each for state, each in failures.items() if each.action == "load"}

    @staticmethod
    def _evicts_at(failures: Mapping[PodState, Failure]) -> float:
        count = sum(each.count for each in failures.values())
        last = max(each.at for each in failures.values())
        return last + doubled(count - 1, FIRST_EVICT_SECONDS, LONGEST_EVICT_SECONDS)
