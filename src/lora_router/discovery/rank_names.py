"""Tells the servers of one Kubernetes pod apart from other pods with such names.

The servers of the pod ``a`` are named ``a-rank-0`` and so on, as in other endpoint pickers. A pod
may have such a name itself. While there is one, the servers of ``a`` are named ``a:rank-0`` and so
on: no name of a pod contains a colon. The names depend on which pods there are, and not on which
came first, so all routers use the same ones.
"""

from collections.abc import Mapping
from dataclasses import replace

from lora_router.fleet.pod import RANK_NAME, Pod, distinct_rank_name, rank_name

Objects = Mapping[str, tuple[Pod, ...]]
"""By the name of a Kubernetes pod: the pods of the fleet that it is."""


def told_apart(changed: Objects, objects: Objects) -> dict[str, tuple[Pod, ...]]:
    """Return what changed with names that no two pods share, and whose names change with it.

    Args:
        changed: What became of some objects.
        objects: What all objects are, after this change.
    """
    # Servers that get other names come first, so that their old names are free.
    owners = {}
    for name in changed:
        owner = RANK_NAME.fullmatch(name)
        if owner is not None and owner[1] in objects:
            owners[owner[1]] = objects[owner[1]]
    return {name: _distinct(name, pods, objects) for name, pods in {**owners, **changed}.items()}


def _distinct(name: str, pods: tuple[Pod, ...], objects: Objects) -> tuple[Pod, ...]:
    """Return the pods of an object under names that no other object has."""
    if not any(pod.name != name and _has_one(objects, pod.name) for pod in pods):
        return pods
    prefix = rank_name(name, "")
    return tuple(
        replace(pod, name=distinct_rank_name(name, pod.name.removeprefix(prefix))) for pod in pods
    )


def _has_one(objects: Objects, name: str) -> bool:
    """Return whether there is an object that is a pod of the fleet under its own name."""
    return any(pod.name == name for pod in objects.get(name, ()))
