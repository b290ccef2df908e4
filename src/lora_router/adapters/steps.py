"""What to do next on one pod: load, withdraw, unload, restore, or wait. No state, no I/O."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain, islice

from lora_router.adapters.adapter_place import Place
from lora_router.adapters.backoff import Failures
from lora_router.adapters.pod_loads import Leaving, PodLoads
from lora_router.adapters.proofs import Proofs
from lora_router.adapters.retirement import Retirement
from lora_router.adapters.step_kinds import Load, PutOff, Restore, Step, Unload, Wait, Withdraw
from lora_router.adapters.wanted_adapter import may_be_on
from lora_router.fleet.adapter_beliefs import AWAY
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState

URGENT = 3.0
"""A load that saves so many times the seconds of waiting that it costs is done at once."""
IDLE_SECONDS = 30.0
"""While a version has been outdated for less than this, its last copy makes way only in a moment
without requests. With a higher value, fewer requests wait, and a new version comes later."""
DRAIN_SECONDS = 15.0
"""How long an older version may take to end its requests while others wait. After that it serves
again."""
HELD_SECONDS = 60.0
"""How long an adapter that was removed stays for requests that wait for a slot. With a lower value,
some of them fail. With a higher value, it stays while clients go on to ask for it."""
AT_ONCE = 4
"""Of so many copies of an older version, one is replaced at a time."""
SERVING = 0.1
"""Requests in flight on a pod from which on it serves, if it has none at the moment."""
_LOOKS = 64
"""Missing adapters that are looked at for one step."""
_PODS = 16
"""Pods with an older version that are looked at for one step."""
_AGAIN_SECONDS = 1.0
"""When to look again for what no event reports."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the steps of all pods depend on."""

    fleet: Fleet
    failures: Failures
    retirement: Retirement
    proofs: Proofs
    loads: Mapping[str, float]
    """Mean number of requests in flight of adapters."""
    may_leave: Callable[[str], bool]
    """Returns whether routing sends no new requests to an older version."""
    pod_load: float
    """Mean number of requests in flight on a pod. One without requests will have so many soon."""
    is_held: Callable[[str], bool]
    """Returns whether requests for an adapter wait in a router."""
    places: Mapping[str, Sequence[PodState]]
    """The pods on which adapters belong, by served name."""


def next_step(pod: PodLoads, now: float, around: Surroundings) -> Step:
    """Return what to do next on a pod that has no call under way."""
    if pod.blocked_until > now:
        return Wait(pod.blocked_until, "cannot-load")
    if pod.unread:
        return Wait(now + _AGAIN_SECONDS, "unread")
    if pod.leaving is not None:
        return _step_of_leaving(pod, now, around)
    waits: list[Wait] = []
    for step in _steps_in_order(pod, now, around):
        if not isinstance(step, Wait):
            return step
        waits.append(step)
    if not waits:
        return None
    reason: PutOff = next((wait.reason for wait in waits if wait.reason), "")
    return Wait(min(wait.until for wait in waits), reason)


def _steps_in_order(
    pod: PodLoads, now: float, around: Surroundings
) -> Iterator[Load | Withdraw | Wait]:
    """Yield the next steps on a pod, the most urgent first.

    The first one that is no ``Wait`` is to be done.
    """
    for name in pod.retiring:
        if _may_retire(name, around) and not _is_waited_for(pod, name, now, around):
            yield _pause(pod, name, now, around) or Withdraw(name, "outdated")
    missing = _step_of_missing(pod, now, around)
    if missing is not None:
        yield missing
    for name, since in pod.retiring.items():
        if _may_be_replaced(pod, name, since, now, around):
            yield _pause(pod, name, now, around) or Withdraw(name, "replaced")
    for name in pod.misplaced:
        # What is missing is not delayed until the last request of another adapter has ended.
        if not (pod.missing and in_use(pod.state, name)) and _may_leave(pod, name, around):
            yield _pause(pod, name, now, around) or Withdraw(name, "misplaced")
    if pod.retiring or pod.misplaced:
        yield Wait(now + _AGAIN_SECONDS, "")


def _pause(pod: PodLoads, name: str, now: float, around: Surroundings) -> Wait | None:
    """Return until when an adapter is not tried again that failed on a pod."""
    failure = around.failures.get(pod.state, name)
    return None if failure is None or failure.next_at <= now else Wait(failure.next_at, "failing")


def _turn(pod: PodLoads, place: Place, now: float, around: Surroundings) -> Wait | None:
    """Return until when an adapter is not tried that no pod has: others try it, or failed."""
    until = around.proofs.waits_until(pod, place.adapter, now)
    return None if until is None else Wait(until, "failing")


def is_serving(pod: PodLoads, around: Surroundings) -> bool:
    """Return whether a load on a pod makes requests wait, of now or of soon."""
    return pod.requests > 0 or around.pod_load > SERVING


def in_use(state: PodState, name: str) -> bool:
    """Return whether an adapter has requests on a pod, of this router or of others."""
    beliefs = state.beliefs
    return name in state.in_flight_adapters or name in beliefs.foreign_adapters


def _step_of_leaving(pod: PodLoads, now: float, around: Surroundings) -> Step:
    leaving = pod.leaving
    assert leaving is not None  # noqa: S101 -- the caller has checked it
    name, why = leaving.name, leaving.why
    if why == "outdated" and not around.retirement.is_outdated(name):
        return Restore(name)  # It is declared again.
    if why == "misplaced" and not _may_leave(pod, name, around):
        return Restore(name)
    if why == "replaced" and not _is_replaced(pod, name, around):
        return Restore(name)
    if now < leaving.due:
        return Wait(leaving.due, "")
    if in_use(pod.state, name):
        waits = (
            why == "outdated"
            or (why == "misplaced" and not pod.missing)
            or (why == "replaced" and _may_drain(pod, leaving, now, around))
        )
        return Wait(now + _AGAIN_SECONDS, "in-use") if waits else Restore(name)
    if why == "makes-room" and around.is_held(name):
        return Restore(name)
    if why == "outdated" and around.retirement.successor(name) and around.is_held(name):
        return Restore(name)
    return Unload(name)


def _step_of_missing(
    pod: PodLoads, now: float, around: Surroundings
) -> Load | Withdraw | Wait | None:
    wait: Wait | None = None
    ready_at = pod.budget.ready_at(now) if is_serving(pod, around) else now
    for name in islice(chain(_first_uses(pod), pod.missing), _LOOKS):
        place = _as_declared(pod.missing[name], around)
        if place is None:
            continue
        is_first_use = name in pod.first
        pause = _pause(pod, name, now, around) or _turn(pod, place, now, around)
        if pause is not None:
            wait = _sooner(wait, pause)
            continue
        if ready_at > now and not is_first_use and not _is_urgent(pod, place, around):
            return _sooner(wait, Wait(min(ready_at, now + _AGAIN_SECONDS), "stall"))
        if pod.free > 0 or name in pod.state.adapters:
            return Load(place, is_first_use)
        evicts_at = now if is_first_use else around.proofs.evicts_at(name)
        if evicts_at > now:
            wait = _sooner(wait, Wait(evicts_at, "failing"))
            continue
        victim = _least_useful(pod, now, around)
        if victim is None:
            return _sooner(wait, Wait(now + _AGAIN_SECONDS, "memory"))
        return Withdraw(victim, "makes-room")
    return wait


def _as_declared(place: Place, around: Surroundings) -> Place | None:
    """Return a place with the adapter as it is declared now; ``None``: it is no place for it.

    The declaration may have changed or gone since the plan was made.
    """
    adapter = around.retirement.declared.get(place.adapter.served_name)
    if adapter is place.adapter:
        return place
    if adapter is None or not may_be_on(adapter, place.state):
        return None
    return replace(place, adapter=adapter)


def _first_uses(pod: PodLoads) -> Sequence[str]:
    """Return the adapters for which requests wait, in the order in which they are loaded.

    Names that clients chose come last: they may not exist.
    """
    missing = pod.missing
    return sorted(
        (name for name in pod.first if name in missing),
        key=lambda name: (missing[name].adapter.is_templated, pod.first[name]),
    )


def _is_urgent(pod: PodLoads, place: Place, around: Surroundings) -> bool:
    """Return whether a load saves so much more waiting than it costs that it cannot wait."""
    stall = pod.state.beliefs.load_seconds[AWAY] * max(pod.requests, around.pod_load)
    return place.saves > URGENT * stall


def _sooner(one: Wait | None, other: Wait) -> Wait:
    return other if one is None or other.until < one.until else one


def _least_useful(pod: PodLoads, now: float, around: Surroundings) -> str | None:
    """Return the adapter whose place another one may take, or ``None``."""
    state = pod.state
    uses = state.beliefs.last_uses
    found: tuple[tuple[bool, float, float], str] | None = None
    for name in state.adapters:
        if name in pod.wanted:
            continue
        if not around.retirement.may_make_room(name) and not _is_spare(pod, name, around):
            continue
        is_older = around.retirement.is_outdated(name) and not _may_retire(name, around)
        if is_older and not pod.first:
            continue  # It serves until the new version does, if nobody waits for another adapter.
        if in_use(state, name) or around.is_held(name):
            continue
        if _pause(pod, name, now, around) is not None:
            continue
        is_last = len(around.fleet.serving(name).pods) < 2
        key = is_last, around.loads.get(name, 0.0), uses.get(name, float("-inf"))
        if found is None or key < found[0]:
            found = key, name
    return None if found is None else found[1]


def _may_leave(pod: PodLoads, name: str, around: Surroundings) -> bool:
    """Return whether an adapter must not stay on a pod, and is not needed there."""
    return around.retirement.is_bound_elsewhere(name, pod.state) and _is_spare(pod, name, around)


def _is_spare(pod: PodLoads, name: str, around: Surroundings) -> bool:
    """Return whether an adapter is not needed on a pod, because it is loaded where it belongs."""
    places = around.places.get(name, ())
    return (
        bool(places)
        and pod.state not in places
        and not around.is_held(name)
        and all(name in state.adapters for state in places)
    )


def _may_retire(name: str, around: Surroundings) -> bool:
    """Return whether pods may unload a name that is declared no longer."""
    successor = around.retirement.successor(name)
    if successor is None:
        return True
    kept, serving = around.retirement.kept(successor.name), around.fleet.serving
    if kept is None and successor.share < 100:
        return False  # It may be the one that gets the other requests.
    is_served = serving(successor.served_name).pods or (kept and serving(kept.served_name).pods)
    return bool(is_served) and around.may_leave(name)


def _is_waited_for(pod: PodLoads, name: str, now: float, around: Surroundings) -> bool:
    """Return whether requests wait for a name that pods should serve no longer.

    They came before it was removed, or moved to another version. But while nobody has told the
    clients, new requests for a removed name come too, so it does not stay for ever.
    """
    if not around.is_held(name):
        return False
    is_moved = around.retirement.successor(name) is not None
    return is_moved or now < pod.retiring.get(name, now) + HELD_SECONDS


def _may_be_replaced(
    pod: PodLoads, name: str, since: float, now: float, around: Surroundings
) -> bool:
    """Return whether an older version makes way for the new one, although it gets requests.

    It does where the new one belongs and has no other room, on some pods at a time. The last copy
    of all older versions does only if the new version belongs nowhere else.
    """
    successor = around.retirement.successor(name)
    if successor is None or successor.share < 100 or pod.free > 0:
        return False
    new = successor.served_name
    planned = pod.missing.get(new)
    place = None if planned is None else _as_declared(planned, around)
    if place is None or around.failures.of_adapter(new):
        return False
    is_due = pod.budget.ready_at(now) <= now or not is_serving(pod, around)
    if not (is_due or new in pod.first or _is_urgent(pod, place, around)):
        return False
    fleet, places = around.fleet, around.places.get(new, ())
    if _is_last_for_those_who_wait(name, len(fleet.serving(name).pods) - 1, around):
        return False
    older = _older_versions(name, new, around)
    copies = sum(len(fleet.serving(each).pods) for each in older)
    if copies > 1:
        if not around.may_leave(name) and _has_unused(older - {name}, new, places, around):
            return False
        most = max(1, copies // AT_ONCE)
        changing = (each for each in places if _has_neither(each, older, new))
        return next(islice(changing, most - 1, None), None) is None
    if fleet.serving(new).pods:
        return False
    if any(each is not pod.state for each in places):
        return False
    return now >= since + IDLE_SECONDS or not in_use(pod.state, name)


def _older_versions(name: str, new: str, around: Surroundings) -> Set[str]:
    """Return the older versions of an adapter: requests may go from each of them to the others."""
    return {name, *around.retirement.older_than(new)}


def _has_unused(
    names: Iterable[str], new: str, places: Collection[PodState], around: Surroundings
) -> bool:
    """Return whether others of several older versions make way first.

    Requests go to only one of them, so that it is the last one to leave.
    """
    return any(
        new not in state.adapters and not in_use(state, name) and state in places
        for name in names
        for state in islice(around.fleet.serving(name).pods, _PODS)
    )


def _has_neither(state: PodState, older: Iterable[str], new: str) -> bool:
    listed = state.adapters
    return new not in listed and not any(name in listed for name in older)


def _is_replaced(pod: PodLoads, name: str, around: Surroundings) -> bool:
    """Return whether an older version that was withdrawn is still to make way for the new one."""
    successor = around.retirement.successor(name)
    others = len(around.fleet.serving(name).pods)
    if successor is None or _is_last_for_those_who_wait(name, others, around):
        return False
    return successor.served_name in pod.missing


def _is_last_for_those_who_wait(name: str, others: int, around: Surroundings) -> bool:
    """Return whether requests wait for an older version, and no other copy of it is left."""
    return others <= 0 and around.is_held(name)


def _may_drain(pod: PodLoads, leaving: Leaving, now: float, around: Surroundings) -> bool:
    """Return whether an older version may go on to end its requests before it is unloaded."""
    name, serving = leaving.name, around.fleet.serving
    successor = around.retirement.successor(name)
    older = {name} if successor is None else _older_versions(name, successor.served_name, around)
    if not pod.first and any(serving(each).pods for each in older):
        return True
    return now < leaving.due + DRAIN_SECONDS
