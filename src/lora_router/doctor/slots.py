"""Adapter slots: how many pods have, and whether they suffice."""

from collections.abc import Iterator

from lora_router.counted import counted
from lora_router.doctor.facts import Facts
from lora_router.doctor.findings import Finding, Severity, named

_AWARE = (
    "lora-placement", "lora-affinity", "four-tier", "lora-residency", "shuffle-shard",
    "weighted-scores",
)  # fmt: skip
"""Algorithms that know where adapters are, or keep an adapter on few pods."""
_BLIND = ("least-request", "random", "power-of-two", "prefix-cache")


def one_slot(facts: Facts) -> Iterator[Finding]:
    """Find pods that can run one adapter at a time although they list several."""
    pods = [pod.name for pod in facts.pods if pod.ready and pod.slots == 1 and pod.listed > 1]
    if pods:
        yield Finding(
            "one-slot",
            Severity.WARNING,
            f"{counted(len(pods), 'pod')} can have one adapter in a batch: {named(pods)}.",
            "A slot becomes free when the last request of its adapter has ended; until then all "
            "others wait. In a simulated fleet with 64 equally popular adapters, even pods with 2 "
            "slots served only 6 % of what their compute allows, at a p99 of 5 s to the first "
            "token.",
            "Set --max-loras of vLLM to 4 or more. Each slot takes GPU memory of max_lora_rank.",
        )


def lacking(facts: Facts) -> Iterator[Finding]:
    """Find base models whose adapters lack slots now."""
    for labels, value in facts.metrics.get("lora_router_slots_lacking", ()):
        if value > 0:
            base_model = labels.get("base_model") or "an unknown base model"
            yield Finding(
                "slots-lacking",
                Severity.WARNING,
                f"Adapters of {base_model} lack {counted(int(value), 'slot')} now.",
                "Their requests are held for longer than a load takes, or are refused.",
                "Add pods, or raise --max-loras. docs/autoscaling.md lets an autoscaler do it.",
            )


def unknown_slots(facts: Facts) -> Iterator[Finding]:
    """Find pods that list adapters and do not say how many slots they have."""
    pods = [
        pod.name
        for pod in facts.pods
        if pod.ready and pod.listed and pod.slots is None and pod.age_seconds is not None
    ]
    if pods:
        yield Finding(
            "slots-unknown",
            Severity.HINT,
            f"The adapter slots of {counted(len(pods), 'pod')} are unknown: {named(pods)}.",
            "Algorithms cannot tell whether an adapter fits, so requests may wait on the pod. vLLM "
            "reports slots in vllm:lora_requests_info after its first request for an adapter.",
            "Send each adapter one request, or check that the metrics page is that of the server.",
        )


def blind_algorithm(facts: Facts) -> Iterator[Finding]:
    """Find a default algorithm that does not know of adapters, where there are more than slots."""
    algorithm = facts.router.algorithm
    slots = min((pod.slots for pod in facts.pods if pod.slots is not None), default=None)
    listed = max((pod.listed for pod in facts.pods), default=0)
    if algorithm in _BLIND and slots is not None and listed > slots:
        yield Finding(
            "blind-algorithm",
            Severity.WARNING,
            f"The default algorithm is {algorithm}, and pods list {listed} adapters for "
            f"{counted(slots, 'slot')}.",
            "It does not know where adapters are. In a simulated fleet of 8 pods with 4 slots and "
            "64 adapters, p99 of the time to first token was 126 s with least-request and 3.8 s "
            "with lora-placement.",
            "Set algorithm: lora-placement.",
        )


CHECKS = (one_slot, lacking, unknown_slots, blind_algorithm)
