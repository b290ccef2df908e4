"""What pods list: names that mean two things, and pods that differ."""

from collections import Counter
from collections.abc import Iterator, Mapping

from lora_router.counted import counted
from lora_router.doctor.facts import Facts
from lora_router.doctor.findings import Finding, Severity, named


def ambiguous(facts: Facts) -> Iterator[Finding]:
    """Find names of models that mean two things."""
    found = facts.readiness.get("ambiguous")
    if isinstance(found, Mapping) and found:
        number = facts.readiness.get("ambiguous_models", len(found))
        examples = "; ".join(f"{name}: {meaning}" for name, meaning in list(found.items())[:3])
        yield Finding(
            "ambiguous-names",
            Severity.ERROR,
            f"Names of models that mean two things: {number}. {examples}.",
            "Clients may get answers of a model that they did not ask for.",
            "Give each base model and each adapter a name of its own. docs/models.md says which "
            "meaning counts until then.",
        )


def one_pod_only(facts: Facts) -> Iterator[Finding]:
    """Find adapters that one pod lists, of several that could, and that nobody declares."""
    several = facts.with_several_pods()
    alone = [
        adapter
        for adapter in facts.adapters
        if not adapter.is_declared and adapter.listed == 1 and adapter.base_model in several
    ]
    if alone:
        asked = any(adapter.requests or adapter.busy for adapter in alone)
        names = [adapter.name for adapter in alone]
        yield Finding(
            "one-pod-only",
            Severity.WARNING if asked else Severity.HINT,
            f"{counted(len(alone), 'adapter')} on one pod only: {named(names)}.",
            "Their requests fail with that pod, cannot spread when it is busy, and wait there when "
            "its slots are taken.",
            "List the adapters on every pod of the base model (--lora-modules, or load them).",
        )


def different_pods(facts: Facts) -> Iterator[Finding]:
    """Find pods of one base model with different settings.

    Where a router loads the adapters of a base model, its pods have different ones on purpose.
    """
    loaded_by_a_router = {each.base_model for each in facts.adapters if each.is_declared}
    for base_model, pods in facts.by_base_model():
        slots = Counter(pod.slots for pod in pods if pod.slots is not None)
        if len(slots) > 1:
            seen = ", ".join(
                f"{counted(number, 'pod')} with {each}" for each, number in slots.most_common()
            )
            yield Finding(
                "different-slots",
                Severity.HINT,
                f"Pods of {base_model} have different numbers of slots: {seen}.",
                "This works, and a half-finished rollout looks like it.",
                "If it is not intended, give all pods the same --max-loras.",
            )
        engines = Counter(pod.engine or "not named" for pod in pods)
        if len(engines) > 1:
            yield Finding(
                "different-engines",
                Severity.HINT,
                f"Pods of {base_model} have different engines: {named(sorted(engines))}.",
                "Engines name adapters and metrics differently. A missing label lets the router "
                "guess.",
                "Give all pods the label of their engine (docs/engines.md).",
            )
        lists = Counter(pod.fingerprint for pod in pods if pod.fingerprint)
        if len(lists) > 1 and base_model not in loaded_by_a_router:
            usual = lists.most_common(1)[0][0]
            odd = [pod.name for pod in pods if pod.fingerprint not in {"", usual}]
            yield Finding(
                "different-models",
                Severity.WARNING,
                f"Other models than most pods of {base_model} list: "
                f"{counted(len(odd), 'pod')}: {named(odd)}.",
                "Requests for what only some pods list cannot use the others. An adapter that was "
                "loaded at run time is lost when its pod restarts.",
                "Load and unload adapters on all pods alike. docs/paths.md has a path for that.",
            )


CHECKS = (ambiguous, one_pod_only, different_pods)
