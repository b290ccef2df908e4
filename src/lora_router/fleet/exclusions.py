"""Which ready pods get no new requests, because they fail. If no pod is well, all are used."""

from collections.abc import Callable, Collection, Iterable

from lora_router.fleet.pod_state import PodState
from lora_router.fleet.unwell_pods import UnwellPods


class Exclusions:
    """The excluded pods of one fleet."""

    __slots__ = ("_is_known", "_unwell", "pods")

    def __init__(self, unwell: UnwellPods | None, is_known: Callable[[PodState], bool]) -> None:
        """Create it without excluded pods.

        Args:
            unwell: The pods that are not healthy; ``None``: health does not matter.
            is_known: Returns whether a record is that of a pod of the fleet.
        """
        self._unwell = unwell
        self._is_known = is_known
        self.pods: dict[PodState, None] = {}
        """The excluded pods."""

    def count_again(self, ready: Collection[PodState]) -> Collection[PodState]:
        """Find the excluded pods anew, because pods or what they serve changed.

        Returns:
            The pods for which that changed.
        """
        unwell = self._unwell
        if unwell is None:
            return ()
        for state in unwell:
            if not self._is_known(state):
                unwell.forget(state)
        unwell.count_again(ready)
        return self._replace(unwell, len(ready))

    def renew(self, states: Iterable[PodState], ready: int) -> Collection[PodState]:
        """Find the excluded pods after the health of some pods changed.

        Args:
            states: The pods whose health changed.
            ready: The number of ready pods.

        Returns:
            The pods for which that changed.
        """
        unwell = self._unwell
        if unwell is None:
            return ()
        known = []
        for state in states:
            if self._is_known(state):
                known.append(state)
            else:
                unwell.forget(state)  # Its requests end after it has left.
        was_well = bool(self.pods) or not unwell.excluded_pods
        changed = unwell.renew(known)
        if not was_well or unwell.excluded_pods >= ready:
            return self._replace(unwell, ready)
        for state in changed:
            if state in self.pods:
                del self.pods[state]
            else:
                self.pods[state] = None
        return changed

    def _replace(self, unwell: UnwellPods, ready: int) -> Collection[PodState]:
        before, after = self.pods, dict.fromkeys(unwell.excluded())
        if len(after) >= ready:
            after = {}
        self.pods = after
        gone = [state for state in before if state not in after]
        return (*gone, *(state for state in after if state not in before))
