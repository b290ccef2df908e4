"""Declared adapters: whether the pods have them as declared. They need a router that loads them."""

from collections.abc import Iterator, Sequence

from lora_router.counted import counted
from lora_router.doctor.facts import Facts
from lora_router.doctor.findings import Finding, Severity, named


def failing(facts: Facts) -> Iterator[Finding]:
    """Find adapters that pods fail to load or to unload."""
    found = [adapter for adapter in facts.adapters if adapter.failing]
    if found:
        first = found[0]
        pod, reason = first.failing[0]
        nowhere = [adapter for adapter in found if adapter.state == "failing"]
        yield Finding(
            "adapter-loads-fail",
            Severity.ERROR if nowhere else Severity.WARNING,
            f"Pods fail to load or to unload {counted(len(found), 'declared adapter')}: "
            f"{named([adapter.name for adapter in found])}. "
            f"{first.name} on {pod}: {reason.rstrip('.')}.",
            f"Requests for {len(nowhere)} of them are refused, because no pod has them."
            if nowhere
            else "Other pods have them, but not as many as declared.",
            "Check the source, and that pods can read it and allow its rank (--max-lora-rank). "
            "lora-router adapters shows each pod that fails, and when it is tried again.",
        )


def without_base_model(facts: Facts) -> Iterator[Finding]:
    """Find adapters of base models that no ready pod serves."""
    served = _served_base_models(facts)
    found = [
        adapter
        for adapter in facts.adapters
        if adapter.state == "unplaced" and adapter.base_model not in served
    ]
    if found:
        models = sorted({adapter.base_model for adapter in found})
        yield Finding(
            "adapters-without-base-model",
            Severity.WARNING,
            f"{counted(len(found), 'declared adapter')} of a base model that no ready pod serves: "
            f"{named([adapter.name for adapter in found])}. "
            f"Declared: {named(models)}. Served: {named(sorted(served)) or 'none'}.",
            "Requests for them are refused.",
            "Correct base_model in the declarations, or start pods that serve it.",
        )


def unplaced(facts: Facts) -> Iterator[Finding]:
    """Find adapters for which no pod has room, or is fit."""
    served = _served_base_models(facts)
    found = [
        adapter
        for adapter in facts.adapters
        if adapter.state == "unplaced" and adapter.base_model in served
    ]
    if found:
        first = found[0]
        others = [each.name for each in facts.adapters if each.listed and not each.is_declared]
        yield Finding(
            "adapters-unplaced",
            Severity.WARNING,
            f"{counted(len(found), 'declared adapter')} without a place on any pod: "
            f"{named([adapter.name for adapter in found])}. "
            f"{first.name}: {first.unplaced_because or 'the router does not say why'}.",
            "Their first requests wait while a pod loads them in place of another adapter, or are "
            "refused if no pod may have them.",
            _without_undeclared(others)
            + "Add host memory (--max-cpu-loras) or pods. Check the selectors of the declarations.",
        )


def one_copy(facts: Facts) -> Iterator[Finding]:
    """Find adapters that belong on one pod, of several that could have them."""
    several = facts.with_several_pods()
    found = [
        adapter.name
        for adapter in facts.adapters
        if adapter.wanted == 1 and adapter.base_model in several
    ]
    if found:
        yield Finding(
            "one-copy",
            Severity.HINT,
            f"{counted(len(found), 'declared adapter')} with a place on one pod only: "
            f"{named(found)}.",
            "While that pod is gone or its slots are taken, their requests wait.",
            "If host memory is full, add some (--max-cpu-loras) or pods. Else raise "
            "adapter_min_copies, or pods in the declaration.",
        )


def _without_undeclared(names: Sequence[str]) -> str:
    """Return what to do about adapters that nobody declares, and that count all the same."""
    if not names:
        return ""
    return (
        f"Pods list {counted(len(names), 'adapter')} that nobody declares, which the router leaves "
        f"in host memory: {named(names)}. Declare them, or remove those that were declared before "
        "the router started: lora-router adapters unload NAME. "
    )


def _served_base_models(facts: Facts) -> set[str]:
    return {model for pod in facts.pods if pod.ready for model in pod.base_models}


CHECKS = (failing, without_base_model, unplaced, one_copy)
