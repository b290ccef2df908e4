"""Host memory for adapters: ``--max-cpu-loras``, which costs more than anything else."""

from collections.abc import Iterator

from lora_router.counted import counted
from lora_router.doctor.facts import Facts, Pod
from lora_router.doctor.findings import Finding, Severity, named
from lora_router.fleet.load_seconds import SLOW_SECONDS
from lora_router.fleet.lora_spec import ASSUMED

_PRICE = (
    "An adapter that is not in host memory is loaded from disk or a remote store, and stalls the "
    "whole batch of the pod. In a simulated fleet of 8 pods with 4 slots and 64 adapters, p99 of "
    "the time to first token fell from 6.8 s to 0.22 s with all adapters in host memory."
)
_FIX = (
    "Set --max-cpu-loras of vLLM to at least the number of adapters that a pod is asked for. "
    "Without the flag it equals --max-loras. Load the adapters before the pod becomes ready."
)
_FIX_UNKNOWN = (
    f"{_FIX} The router reads the flag in the specification of a pod. If it is elsewhere, set the "
    "label lora-router/max-cpu-loras of the pods to its value."
)


def evicted(facts: Facts) -> Iterator[Finding]:
    """Find pods on which adapters in use did not stay in host memory."""
    pods = [pod for pod in facts.pods if pod.evicted]
    if pods:
        worst = max(pods, key=lambda pod: pod.evicted or 0)
        size = ""
        if worst.host_memory is not None and worst.host_memory_source != ASSUMED:
            size = (
                f" It holds {counted(worst.host_memory, 'adapter')} ({worst.host_memory_source})."
            )
        yield Finding(
            "host-memory-evictions",
            Severity.WARNING,
            f"Adapters in use did not stay in host memory on {named([pod.name for pod in pods])}: "
            f"on {worst.name}, {worst.evicted} of {worst.used} were evicted.{size}",
            _PRICE,
            _FIX,
        )


def slow_loads(facts: Facts) -> Iterator[Finding]:
    """Find pods that load adapters slowly."""
    pods = [pod for pod in facts.pods if not pod.evicted and (pod.load_seconds or 0) > SLOW_SECONDS]
    if pods:
        worst = max(pods, key=lambda pod: pod.load_seconds or 0)
        yield Finding(
            "slow-adapter-loads",
            Severity.WARNING,
            f"Loading an adapter takes {worst.load_seconds:.1f} s on average on {worst.name} "
            f"({counted(len(pods), 'pod')} above {SLOW_SECONDS:g} s), so adapters come from "
            "disk or from a remote store.",
            _PRICE,
            _FIX,
        )


def unknown_size(facts: Facts) -> Iterator[Finding]:
    """Find pods of unknown size that were asked for more adapters than they have slots."""
    pods = [pod for pod in facts.pods if _may_lack(pod)]
    if pods:
        worst = max(pods, key=lambda pod: pod.used)
        yield Finding(
            "host-memory-unknown",
            Severity.HINT,
            f"{worst.name} was asked for {worst.used} adapters and has "
            f"{counted(worst.slots or 0, 'slot')}; nothing says how many fit in its host memory, "
            f"so as many as slots are assumed ({counted(len(pods), 'pod')} like this).",
            _PRICE,
            _FIX_UNKNOWN,
        )


def _may_lack(pod: Pod) -> bool:
    return (
        pod.slots is not None
        and pod.used > pod.slots
        and pod.in_memory is None
        and pod.host_memory_source == ASSUMED
        and not (pod.load_seconds or 0) > SLOW_SECONDS
    )


CHECKS = (evicted, slow_loads, unknown_size)
