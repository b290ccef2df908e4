"""A large plan is renewed where something changed, and made as a whole now and then."""

import random
from dataclasses import replace

import pytest

from lora_router.adapters.declared import DeclaredAdapter, WantedPods
from lora_router.adapters.demand import Demand
from lora_router.adapters.lasting_places import LastingPlaces
from lora_router.adapters.planner import WHOLE_SECONDS, Planner
from lora_router.adapters.planning import Plan
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.lora_spec import LoraSpec
from lora_router.fleet.pod_state import PodState
from tests.fleet import make_metrics, make_pod, state_of
from tests.unit.adapters.loading import adapter, adapters

PODS, ADAPTERS, MEMORY = 8, 60, 8


class Planning:
    """A fleet that loads at once what is planned."""

    def __init__(self, pods: int = PODS, count: int = ADAPTERS, memory: int = MEMORY) -> None:
        self.fleet = Fleet()
        spec = LoraSpec(host_memory=memory)
        self.fleet.replace(
            make_pod(number, models=None, lora=spec) for number in range(1, pods + 1)
        )
        for state in self.fleet:
            self.fleet.put_metrics(state, make_metrics(max_lora=4))
            self.lists(state)
        self.declared = {each.served_name: each for each in adapters(count)}
        self.loads = {f"a{number}": 2.0 / (number + 1) for number in range(count)}
        self.waiting: set[str] = set()
        self.planner = Planner(few_steps=0)
        self.now = 0.0
        self.steps = 0

    def lists(self, state: PodState, *names: str) -> None:
        self.fleet.put_models(
            state, [ServedModel("base"), *(ServedModel(n, "base") for n in names)]
        )

    def declare(self, *more: DeclaredAdapter) -> None:
        self.declared |= {each.served_name: each for each in more}

    def plan(self) -> Plan:
        self.now += 1.0
        demand = Demand(dict(self.loads), frozenset(self.waiting), sum(self.loads.values()))
        work = self.planner.plan(self.declared, tuple(self.fleet), demand, self.now)
        self.steps = 0
        while True:
            try:
                next(work)
                self.steps += 1
            except StopIteration as end:
                plan: Plan = end.value
                self.check(plan)
                return plan

    def load(self, plan: Plan) -> None:
        for state, wanted in plan.by_pod.items():
            self.lists(state, *wanted)

    def settled(self) -> Plan:
        self.load(self.plan())
        return self.plan()

    def check(self, plan: Plan) -> None:
        """Both sides of a plan say the same, and no pod has more than fits."""
        pairs = {(name, state) for name, states in plan.by_name.items() for state in states}
        assert pairs == {(name, state) for state, each in plan.by_pod.items() for name in each}
        for state, wanted in plan.by_pod.items():
            assert len(wanted) <= MEMORY
            assert all(self.declared[name] is place.adapter for name, place in wanted.items())
            missing = [name not in state.adapters for name in wanted]
            assert missing == sorted(missing, reverse=True), "what is missing comes first"


def test_nothing_changes_if_nothing_changed() -> None:
    planning = Planning()
    plan = planning.settled()
    assert plan.changed == []

    planning.loads = {name: 1.01 * load for name, load in planning.loads.items()}
    assert planning.plan().changed == []


def test_an_adapter_that_is_new_gets_a_place_and_others_stay() -> None:
    planning = Planning()
    before = planning.settled()
    planning.declare(adapter("new"))
    planning.loads["new"] = 1.0

    plan = planning.plan()

    [state] = plan.by_name["new"]
    assert plan.changed == [state]
    assert next(iter(plan.by_pod[state])) == "new"
    assert sum(before.by_pod[each] != plan.by_pod[each] for each in planning.fleet) == 1


def test_an_adapter_that_is_removed_leaves_its_pods() -> None:
    planning = Planning()
    pods = planning.settled().by_name["a0"]
    del planning.declared["a0"]

    plan = planning.plan()

    assert "a0" not in plan.by_name
    assert set(pods) <= set(plan.changed or ())


def test_a_changed_declaration_counts_at_once() -> None:
    planning = Planning()
    planning.settled()
    planning.declare(adapter("a5", pods=WantedPods(copies=4)), adapter("a6", source="/new"))

    plan = planning.plan()

    assert len(plan.by_name["a5"]) == 4
    [state, *_] = plan.by_name["a6"]
    assert plan.by_pod[state]["a6"].adapter.source == "/new"


def test_what_a_pod_lost_is_placed_again() -> None:
    planning = Planning()
    plan = planning.settled()
    state = state_of(planning.fleet, 3)
    lost = [name for name in plan.by_pod[state] if len(plan.by_name[name]) == 1]
    planning.lists(state)

    plan = planning.plan()

    assert lost
    assert all(plan.by_name[name] for name in lost)


def test_an_adapter_for_which_requests_wait_is_first() -> None:
    planning = Planning(count=PODS * MEMORY + 8)
    plan = planning.settled()
    nowhere = next(name for name in planning.declared if not plan.by_name.get(name))
    planning.waiting = {nowhere}

    plan = planning.plan()

    [state] = plan.by_name[nowhere]
    assert plan.by_pod[state][nowhere].reason == "first-use"


def test_an_adapter_with_more_requests_gets_a_further_copy() -> None:
    planning = Planning()
    copies = len(planning.settled().by_name["a50"])
    planning.loads["a50"] = 6.0

    assert len(planning.plan().by_name["a50"]) > copies


def test_pods_that_come_make_it_a_whole_plan() -> None:
    planning = Planning()
    planning.settled()
    planning.fleet.upsert(replace(state_of(planning.fleet, 1).pod, labels={"a": "b"}))
    assert planning.plan().changed is None
    assert planning.plan().changed == []

    planning.now += WHOLE_SECONDS
    assert planning.plan().changed is None


def test_steps_that_are_not_all_done_make_the_next_one_a_whole_plan() -> None:
    planning = Planning()
    planning.settled()
    work = planning.planner.plan(planning.declared, tuple(planning.fleet), Demand(), planning.now)
    work.close()
    next(work, None)
    assert planning.plan().changed == []

    work = planning.planner.plan(planning.declared, tuple(planning.fleet), Demand(), planning.now)
    next(work)
    work.close()
    assert planning.plan().changed is None


def test_small_plans_are_always_whole() -> None:
    planning = Planning()
    planning.planner = Planner()
    assert planning.settled().changed is None


@pytest.mark.parametrize("seed", range(5))
def test_any_changes_leave_it_consistent(seed: int) -> None:
    rng = random.Random(seed)
    planning = Planning()
    planning.settled()
    for round_ in range(40):
        name = f"a{rng.randrange(ADAPTERS + 10)}"
        match rng.randrange(5):
            case 0:
                planning.loads[name] = rng.uniform(0.0, 4.0)
            case 1:
                planning.declare(adapter(name, source=f"/{round_}"))
            case 2:
                planning.declared.pop(name, None)
            case 3:
                state = state_of(planning.fleet, rng.randint(1, PODS))
                planning.lists(state, *rng.sample(list(planning.declared), MEMORY - 2), "by-hand")
            case 4:
                planning.load(planning.plan())
        planning.plan()


def test_a_change_of_some_adapters_costs_a_fraction_of_the_whole() -> None:
    planning = Planning(pods=40, count=280)
    planning.plan()
    whole = planning.steps
    planning.load(planning.plan())
    planning.plan()
    for number in range(10):
        planning.loads[f"a{100 + number}"] = 1.0

    planning.plan()

    assert planning.steps < whole / 4
    last = planning.planner._last
    assert last is not None
    assert isinstance(last[0], LastingPlaces)
    assert last[0].looked_at == 10
