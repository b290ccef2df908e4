"""Pods whose lists changed: what is missing there is found out in steps.

Lists may have thousands of adapters, and hundreds of pods may change at once.
"""

from collections.abc import Callable, Mapping

from lora_router.adapters.pod_loads import PodLoads
from lora_router.adapters.slices import Slices, Work
from lora_router.fleet.pod_state import PodState

LOOKS_AT_ONCE = 2000
"""Adapters of pods that are looked at in one step."""


class ChangedLists:
    """The pods of one loader whose lists changed since they were looked at."""

    def __init__(
        self,
        slices: Slices,
        pods: Mapping[PodState, PodLoads],
        derive: Callable[[PodLoads], None],
    ) -> None:
        """Create it without pods.

        Args:
            slices: Does the steps.
            pods: The records of all pods. A record that is not in it has left.
            derive: Finds out what is missing on a pod.
        """
        self._slices = slices
        self._pods = pods
        self._derive = derive
        self._changed: dict[PodLoads, None] = {}
        self._is_looking = False

    def add(self, pod: PodLoads) -> None:
        """Look at a pod soon. Until then it gets no calls."""
        pod.is_stale = True
        self._changed[pod] = None
        if not self._is_looking:
            self._is_looking = True
            self._slices.do(self._look())

    def _look(self) -> Work:
        try:
            looks = 0
            while self._changed:
                pod = next(iter(self._changed))
                del self._changed[pod]
                if pod.is_stale and self._pods.get(pod.state) is pod:
                    self._derive(pod)
                    looks += len(pod.wanted) + len(pod.state.adapters)
                if looks > LOOKS_AT_ONCE:
                    looks = 0
                    yield
        finally:
            self._is_looking = False
