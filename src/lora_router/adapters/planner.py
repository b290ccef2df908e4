"""Makes one plan after the other: all of it now and then, and else only what changed.

- A small plan, of at most ``FEW_STEPS`` steps, is always made as a whole.
- A large one is made as a whole every ``WHOLE_SECONDS``, and when pods come, go, or are described
  otherwise. In between, it is renewed (``lasting_places``).
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.demand import Demand
from lora_router.adapters.lasting_places import LastingPlaces
from lora_router.adapters.planning import Plan, plan_in_steps
from lora_router.fleet.pod_state import PodState
from lora_router.steps import Steps

FEW_STEPS = 200
"""Steps of a plan that is made as a whole each time: 0.2 s of CPU at most."""
_NAMES_AT_ONCE = 512
WHOLE_SECONDS = 300.0
"""A higher value leaves spare memory unused for longer. A lower one takes more CPU."""


class MakesPlans(Protocol):
    """What the loader asks where adapters belong."""

    def plan(
        self,
        declared: Mapping[str, DeclaredAdapter],
        pods: Sequence[PodState],
        demand: Demand,
        now: float,
    ) -> Steps[Plan]:
        """Make a plan in short steps.

        Args:
            declared: The adapters that should be served, by served name.
            pods: The pods that take loads.
            demand: How much each adapter is asked for.
            now: Seconds, monotonic.
        """


class Planner:
    """Makes the plans of one loader."""

    def __init__(self, min_copies: int = 1, few_steps: int = FEW_STEPS) -> None:
        """Create it.

        Args:
            min_copies: How many copies adapters get at least whose declaration does not say it, if
                there is room.
            few_steps: Steps of a plan that is made as a whole each time.
        """
        self._min_copies = min_copies
        self._few_steps = few_steps
        self._last: tuple[LastingPlaces, Plan] | None = None
        """The places as of the last plan, and this plan, if it was a large one."""
        self._whole_at = float("-inf")

    def plan(
        self,
        declared: Mapping[str, DeclaredAdapter],
        pods: Sequence[PodState],
        demand: Demand,
        now: float,
    ) -> Steps[Plan]:
        """Make a plan in short steps: see ``MakesPlans``."""
        # If the steps are not all done, the places are of no more use.
        last, self._last = self._last, None
        if last is not None and now < self._whole_at + WHOLE_SECONDS and last[0].knows(pods):
            places, plan = last
            yield from places.renew(declared, demand)
            plan = yield from _renewed(plan, places, demand)
            self._last = places, plan
            return plan
        places = LastingPlaces(tuple(declared.values()), pods, demand, self._min_copies)
        steps = 0
        for _ in places.steps():
            steps += 1
            yield
        plan = yield from plan_in_steps(places.places, pods, demand)
        self._whole_at = now
        if steps > self._few_steps:
            self._last = places, plan
        return plan


def _renewed(plan: Plan, places: LastingPlaces, demand: Demand) -> Steps[Plan]:
    """Return a plan with what changed in the last renewal of its places."""
    by_pod = dict(plan.by_pod)
    changed: list[PodState] = []
    for state, wanted in places.changed_pods(plan.by_pod):
        by_pod[state] = wanted
        changed.append(state)
        yield
    by_name = dict(plan.by_name)
    for number, (name, states) in enumerate(places.moved(), 1):
        if states:
            by_name[name] = states
        else:
            by_name.pop(name, None)
        if number % _NAMES_AT_ONCE == 0:
            yield
    return Plan(by_pod, by_name, demand, changed)
