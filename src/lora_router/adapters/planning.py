"""What belongs where, for the loader: made and applied in steps of about a millisecond."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice

from lora_router.adapters.adapter_place import Place
from lora_router.adapters.changed_lists import LOOKS_AT_ONCE
from lora_router.adapters.demand import Demand
from lora_router.adapters.pod_loads import PodLoads
from lora_router.adapters.retirement import Retirement
from lora_router.adapters.trouble import Troubles
from lora_router.fleet.pod_state import PodState
from lora_router.steps import Steps

_PLACES_AT_ONCE = 1000
_PODS_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """All places."""

    by_pod: Mapping[PodState, Mapping[str, Place]] = field(default_factory=dict)
    """By pod and served name, the most urgent first."""
    by_name: Mapping[str, Sequence[PodState]] = field(default_factory=dict)
    """The pods of each adapter, by served name."""
    demand: Demand = field(default_factory=Demand)
    """The demand that it was made for."""
    changed: Collection[PodState] | None = None
    """The pods whose places are not those of the plan before; ``None``: all."""


def plan_in_steps(places: Iterable[Place], pods: Sequence[PodState], demand: Demand) -> Steps[Plan]:
    """Make a plan of places.

    Args:
        places: All places, the most urgent first.
        pods: The pods that take loads.
        demand: The demand by which the places were found.
    """
    by_pod: dict[PodState, dict[str, Place]] = {state: {} for state in pods}
    by_name: dict[str, list[PodState]] = {}
    left = iter(places)
    while some := tuple(islice(left, _PLACES_AT_ONCE)):
        for place in some:
            name = place.adapter.served_name
            by_pod[place.state][name] = place
            by_name.setdefault(name, []).append(place.state)
        yield
    return Plan(by_pod, by_name, demand)


def apply_plan(
    plan: Plan,
    pods: Mapping[PodState, PodLoads],
    derive: Callable[[PodLoads], None],
    *,
    is_whole: bool,
) -> Steps[None]:
    """Tell pods what belongs there.

    Args:
        plan: The plan.
        pods: The records of all pods.
        derive: Finds out what is missing on a pod.
        is_whole: Whether more than the demand may have changed since the plan before.
    """
    looks = 0
    changed = plan.by_pod if is_whole or plan.changed is None else plan.changed
    left_out = [state for state, pod in pods.items() if pod.wanted and state not in plan.by_pod]
    for state in chain(changed, left_out):
        wanted, pod = plan.by_pod.get(state), pods.get(state)
        if pod is not None:
            if wanted is None:
                pod.left_out()
            else:
                pod.plan(wanted)
            # While only the demand changed, a pod that loads goes on as planned: plans that are
            # made while a fleet fills differ by chance.
            if is_whole or pod.call is None:
                derive(pod)
            looks += len(pod.wanted) + len(state.adapters)
        if looks > LOOKS_AT_ONCE:
            looks = 0
            yield


def look_again(
    plan: Plan,
    name: str,
    pods: Mapping[PodState, PodLoads],
    look_at: Callable[[PodLoads], None],
) -> Steps[None]:
    """Look for the next steps of the pods that are to load an adapter.

    Args:
        plan: The plan.
        name: The served name of the adapter.
        pods: The records of all pods.
        look_at: Looks for the next step of a pod.
    """
    for number, state in enumerate(plan.by_name.get(name, ()), 1):
        pod = pods.get(state)
        if pod is not None and name in pod.missing:
            look_at(pod)
        if number % _PODS_AT_ONCE == 0:
            yield


def demand_to_plan(
    demand: Demand, retirement: Retirement, pods: Iterable[PodLoads], trouble: Troubles
) -> Demand:
    """Return the demand for declared adapters, with what is known of them.

    Args:
        demand: The demand.
        retirement: Knows their older versions.
        pods: The records of all pods.
        trouble: Returns what hinders the loads of an adapter.
    """
    replacing = set()
    for pod in pods:
        leaving, call = pod.leaving, pod.call
        if leaving is not None and leaving.why == "replaced":
            successor = retirement.successor(leaving.name)
            if successor is not None:
                replacing.add(successor.served_name)
        elif call is not None and call.action == "load" and retirement.older_than(call.name):
            replacing.add(call.name)
    loads = retirement.with_older(demand.loads)
    return replace(demand, loads=loads, replacing=replacing, trouble=trouble)
