"""Short names of pods for messages: a hash of what identifies a pod's server."""

from collections.abc import Collection
from hashlib import blake2b

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_state import PodState


def pod_key(pod: Pod) -> int:
    """Return the key of a pod. A new server under the same name has another one."""
    text = f"{pod.name}\0{pod.address}\0{pod.uid}\0"
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest)


class PodKeys:
    """The pods of the fleet by their keys, up to date."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._states: dict[int, PodState] = {}
        self._keys: dict[PodState, int] = {}
        fleet.changes.pods.subscribe(self._follow)
        self._follow(tuple(fleet))

    def key(self, state: PodState) -> int | None:
        """Return the key of a pod, or ``None`` if it has left."""
        return self._keys.get(state)

    def find(self, key: int) -> PodState | None:
        """Return the pod with a key, or ``None`` if no pod that is known has it."""
        return self._states.get(key)

    def _follow(self, changed: Collection[PodState]) -> None:
        for state in changed:
            is_there = self._fleet.get(state.pod.name) is state
            before, key = self._keys.get(state), pod_key(state.pod) if is_there else None
            if before == key:
                continue
            if before is not None:
                del self._keys[state]
                if self._states.get(before) is state:
                    del self._states[before]
            if key is not None:
                self._keys[state] = key
                self._states[key] = state
