"""What peers say of pods that they ejected.

A report is a reason to probe a pod, and nothing more: the pod is suspect until the probe answers.
Rules, because a peer can be wrong or hostile:

- A pod is probed for this reason at most once in ``max_ejection_seconds``.
- Of the ready pods of each base model, at most a tenth, and at least one, are suspect for this
  reason at the same time.
"""

from collections.abc import Callable, Mapping
from itertools import islice

from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.health import HEALTHY, SUSPECT
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.unwell_pods import BY_A_PEER

_SHARE = 0.1
_PODS_PER_REPORT = 1000
"""Pods of one report that are looked at."""


def suspect_reported(
    ejected: Mapping[str, tuple[str, str]],
    outliers: Outliers,
    find: Callable[[str], PodState | None],
) -> None:
    """Make pods suspect that a peer has ejected.

    Args:
        ejected: For each pod's name, the server's address and uid.
        outliers: Knows the health of the pods.
        find: Returns a pod by its name.
    """
    with outliers.unwell.together():
        _suspect(ejected, outliers, find)


def _suspect(
    ejected: Mapping[str, tuple[str, str]],
    outliers: Outliers,
    find: Callable[[str], PodState | None],
) -> None:
    now, pause = outliers.now(), outliers.rules.max_ejection_seconds
    room: dict[BaseModels, int] = {}
    for name, server in islice(ejected.items(), _PODS_PER_REPORT):
        state = find(name)
        if state is None or (state.pod.address, state.pod.uid) != server or not state.pod.ready:
            continue
        health = state.health
        if health.state is not HEALTHY or now - health.reported_at < pause:
            continue
        bases = state.base_models
        if bases not in room:
            most = max(1, int(_SHARE * outliers.unwell.ready_pods.get(bases, 0)))
            room[bases] = most - _suspects(outliers, bases)
        if room[bases] <= 0:
            continue
        room[bases] -= 1
        health.reported_at = now
        outliers.unwell.suspect(state, BY_A_PEER, now)


def _suspects(outliers: Outliers, bases: BaseModels) -> int:
    return sum(
        state.health.state is SUSPECT
        and state.health.cause == BY_A_PEER
        and state.base_models == bases
        for state in outliers.unwell
    )
