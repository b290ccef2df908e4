"""How many adapters a pod may list, so that its host memory holds all of them.

vLLM lists more adapters than host memory holds, and then reads those that it has evicted from disk
again while a request waits. So the loader keeps lists as short as host memory is.
"""

from collections.abc import Container

from lora_router.fleet.lora_spec import UNLIMITED
from lora_router.fleet.pod_state import PodState

LEAST = 1
"""Adapters that host memory of vLLM holds if nothing is known: ``--max-loras`` is 1 unless it is
set, and host memory has at least as many (``vllm/config/lora.py``)."""
LOADING_ENGINES = frozenset({None, "vllm", "sglang"})
"""Engines with calls that load adapters. ``None``: unknown, and so most likely vLLM."""


def may_take_loads(state: PodState) -> bool:
    """Return whether a pod could be loaded: its list can be read, and its engine has the calls."""
    pod = state.pod
    is_known = pod.ready and state.models_known and pod.models is None
    return is_known and pod.engine in LOADING_ENGINES


def capacity_of(state: PodState) -> int:
    """Return how many adapters a pod may list; ``UNLIMITED``: any number."""
    memory = state.beliefs.memory
    if memory.limit is not None:
        return memory.limit
    if memory.spec.host_memory is None and state.pod.engine in {None, "vllm"}:
        return LEAST
    return UNLIMITED


def room_of(state: PodState, declared: Container[str]) -> int:
    """Return how many declared adapters a pod may list beside those that are not declared.

    Args:
        state: The pod.
        declared: The served names of the declared adapters, older versions included.
    """
    capacity = capacity_of(state)
    if capacity >= UNLIMITED:
        return UNLIMITED
    return max(0, capacity - sum(name not in declared for name in state.adapters))
