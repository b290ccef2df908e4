"""What the status of a ModelAdapter should be, without I/O.

Clients of AIBrix read ``phase`` and the condition ``Ready``, and tools wait for them
(``kubectl wait --for=condition=Ready``). The values of ``phase``, the types of the conditions and
the reasons ``ValidationFailed``, ``ModelAdapterLoadingError``, ``ModelAdapterAvailable`` and
``ModelAdapterUnavailable`` are AIBrix's.
"""

import re

import msgspec

from lora_router.adapters.adapter_state import AdapterState
from lora_router.discovery.model_adapter_object import Condition, ModelAdapterStatus
from lora_router.discovery.model_adapter_record import ModelAdapter

MAX_MESSAGE = 1024
"""Characters of the message of a condition."""
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]+")


def wanted_status(
    record: ModelAdapter, state: AdapterState, conflict: str = ""
) -> ModelAdapterStatus:
    """Return the status of a resource, in which no condition has the time of its last change.

    Args:
        record: The resource.
        state: The adapter in the fleet.
        conflict: Why its declaration is not in use although it is valid.
    """
    if record.is_deleted:
        return _deleted(record, state)
    adapter, invalid = record.translation.adapter, record.translation.problem
    problem = conflict if adapter is not None else invalid
    if problem:
        return ModelAdapterStatus(
            "Failed",
            conditions=[
                _condition(record, "Initialized", "ValidationFailed", problem, holds=False),
                _condition(record, "Ready", "ValidationFailed", problem, holds=False),
            ],
        )
    if invalid:
        accepted = f"{invalid}; the last valid spec stays in use"
    else:
        accepted = "" if adapter is None else f"adapter {adapter.name} of {adapter.base_model}"
        if record.translation.note:
            accepted = f"{accepted}; {record.translation.note}"
    phase, ready = _phase(state), state.loaded > 0
    return ModelAdapterStatus(
        phase,
        candidates=state.pods.fit,
        desired_replicas=state.placed,
        ready_replicas=state.loaded,
        instances=list(map(_pod_name, state.instances)),
        conditions=[
            _condition(
                record,
                "Initialized",
                "ValidationFailed" if invalid else "Accepted",
                accepted,
                holds=not invalid,
            ),
            _scheduled(record, state),
            _bound(record, state),
            _condition(
                record,
                "Ready",
                "ModelAdapterAvailable" if ready else "ModelAdapterUnavailable",
                f"{state.loaded} of {max(state.placed, state.loaded)} pods serve it"
                if ready
                else _why_not(state),
                holds=ready,
            ),
        ],
    )


def is_same(one: ModelAdapterStatus, other: ModelAdapterStatus) -> bool:
    """Return whether two statuses say the same, whenever their conditions changed last."""
    return _timeless(one) == _timeless(other)


def timed(status: ModelAdapterStatus, last: ModelAdapterStatus, now: str) -> ModelAdapterStatus:
    """Return a status in which each condition has the time of its last change.

    Args:
        status: The status.
        last: The last one, which has such times.
        now: The present time, RFC 3339.
    """
    known = {each.type: each for each in last.conditions}
    return msgspec.structs.replace(
        status,
        conditions=[
            msgspec.structs.replace(
                each,
                last_transition_time=known[each.type].last_transition_time or now
                if each.type in known and known[each.type].status == each.status
                else now,
            )
            for each in status.conditions
        ],
    )


def _timeless(status: ModelAdapterStatus) -> ModelAdapterStatus:
    return msgspec.structs.replace(
        status,
        conditions=[
            msgspec.structs.replace(each, last_transition_time="") for each in status.conditions
        ],
    )


def _phase(state: AdapterState) -> str:
    if state.loaded:
        return "Running"
    if state.failing:
        return "Failed"
    return "Scheduled" if state.placed else "Pending"


def _scheduled(record: ModelAdapter, state: AdapterState) -> Condition:
    if state.placed:
        text = f"it belongs on {state.placed} of {state.pods.fit} pods that match"
        return _condition(record, "Scheduled", "Scheduled", text, holds=True)
    reason = "NotPlaced" if state.pods.fit else "NoPods"
    return _condition(record, "Scheduled", reason, _why_not(state), holds=False)


def _bound(record: ModelAdapter, state: AdapterState) -> Condition:
    if state.failing:
        text = f"{state.failing} pods cannot load it: " + "; ".join(
            f"{_pod_name(pod)}: {reason}" for pod, reason in state.failures
        )
        return _condition(record, "Bound", "ModelAdapterLoadingError", text, holds=False)
    if state.loaded and state.loaded >= state.placed:
        text = f"{state.loaded} pods have loaded it"
        return _condition(record, "Bound", "Loaded", text, holds=True)
    text = f"{state.loaded} of {state.placed} pods have loaded it"
    reason = "Loading" if state.placed else "NotPlaced"
    return _condition(record, "Bound", reason, text, holds=False)


def _why_not(state: AdapterState) -> str:
    """Return why no pod serves it."""
    if not state.pods.fit:
        return (
            "the router knows no ready pod of this namespace that serves the base model and "
            "matches spec.podSelector"
        )
    if state.failing:
        return "no pod could load it: see the condition Bound"
    if state.placed:
        return "it is being loaded"
    if state.pods.blocked == state.pods.fit:
        return state.pods.why_nowhere()
    return f"{state.pods.why_nowhere()}; it is loaded when requests ask for it"


def _deleted(record: ModelAdapter, state: AdapterState) -> ModelAdapterStatus:
    text = "it is being deleted, and pods unload it"
    if record.finalizers:
        text += f"; it stays until others remove its finalizers: {', '.join(record.finalizers[:5])}"
    return ModelAdapterStatus(
        "Unknown",
        ready_replicas=state.loaded,
        instances=list(map(_pod_name, state.instances)),
        conditions=[_condition(record, "Ready", "Deleting", text, holds=False)],
    )


def _condition(
    record: ModelAdapter, kind: str, reason: str, message: str, *, holds: bool
) -> Condition:
    # Messages contain what pods say.
    text = _UNPRINTABLE.sub(" ", message)
    return Condition(
        kind, "True" if holds else "False", reason, text[:MAX_MESSAGE], record.generation
    )


def _pod_name(name: str) -> str:
    return name.rpartition("/")[2]
