"""Who gives way if no further request may wait."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from lora_router.routing.outcome import RouteQuery
from lora_router.routing.overload import Overload
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.roll import Limits
from lora_router.routing.waiting_queue import Held
from tests.fleet import make_fleet, make_metrics
from tests.unit.routing.router import Router

BURST, OTHER, THIRD = 7, 8, 9
NAMES = [f"a{number}" for number in range(10)]


class Full(Router):
    """One slot, and ten requests of one tenant that wait for it: as many as may wait."""

    def __init__(self, *, per_model: bool = False, tenant: int = BURST) -> None:
        fleet = make_fleet(1, adapters=NAMES, host_memory=16)
        for state in fleet:
            metrics = replace(make_metrics(max_lora=1, scraped_at=100.0), running=0.0)
            fleet.put_metrics(state, metrics)
        limits = Limits(100, 10) if per_model else Limits(10, 100)
        super().__init__(fleet, overload=Overload(), limits=limits)
        self.director.priorities.put({"chat": 1})
        self.routed("a0")
        for number in range(10):
            self.held(
                "a1" if per_model else NAMES[1 + number % 4], f"burst-{number}", tenant=tenant
            )


@pytest.mark.parametrize("per_model", [True, False])
def test_a_burst_that_fills_the_room_gives_way_to_another_tenant(per_model: bool) -> None:
    router = Full(per_model=per_model)

    router.held("a1", tenant=OTHER)

    [(name, refused)] = router.late
    assert name.startswith("burst")
    assert isinstance(refused, Refused)
    assert refused.refusal is Refusal.TOO_MANY_HELD
    assert isinstance(router.send("a1", tenant=BURST), Refused)
    assert router.director.held == 10


def test_tenants_share_the_room_when_all_send_more_than_fits() -> None:
    router = Full()
    for _ in range(10):
        router.send("a5", tenant=OTHER)
        router.send("a6", tenant=THIRD)
    held = Counter(
        each.question.tenant
        for queue in router.director.reception.room.queues()
        for each in queue.requests
    )
    assert sorted(held.values()) == [3, 3, 4]


def test_the_last_request_of_the_burst_gives_way_first() -> None:
    router = Full(per_model=True)
    for _ in range(3):
        router.held("a1", tenant=OTHER)
    assert [name for name, _ in router.late] == ["burst-9", "burst-8", "burst-7"]


def test_of_a_lower_priority_the_tenant_with_the_most_gives_way() -> None:
    router = Full()
    router.held("a5", "other", tenant=OTHER)
    router.late.clear()

    router.held("a6", tenant=THIRD, objective="chat")

    [(name, _)] = router.late
    assert name.startswith("burst")


def test_a_lower_priority_does_not_displace_a_burst_of_a_higher_one() -> None:
    router = Full()
    router.director.priorities.put({"batch": -1})
    assert isinstance(router.send("a5", tenant=OTHER, objective="batch"), Refused)
    assert router.late == []


def test_without_tenants_nobody_gives_way_to_an_equal_request() -> None:
    router = Full(tenant=0)
    assert isinstance(router.send("a5"), Refused)
    assert router.late == []


def test_what_is_told_of_a_full_room_is_what_happens() -> None:
    router = Full()
    explain = router.director.explainer.explain
    assert explain(RouteQuery("a5", tenant=OTHER)).answer == "hold"
    assert explain(RouteQuery("a5", tenant=BURST)).answer == "refuse"


@pytest.mark.parametrize("seed", range(6))
def test_the_counts_stay_true_whoever_comes_and_leaves(seed: int) -> None:
    choices = random.Random(seed)
    router = Full()
    held: list[Held] = []
    for _ in range(400):
        if choices.random() < 0.6:
            tenant = choices.choice((0, BURST, OTHER, THIRD))
            outcome = router.send(choices.choice(NAMES[1:]), tenant=tenant)
            if isinstance(outcome, Held):
                held.append(outcome)
        elif held:
            held.pop(choices.randrange(len(held))).cancel()
        roll = router.director.reception.room.roll
        waiting = Counter(
            each.question.tenant for queue in roll.queues.values() for each in queue.requests
        )
        tenants = roll._by_priority.get(0)
        assert roll.held <= 10
        assert (tenants.most if tenants else 0) == max(waiting.values(), default=0)
        assert tenants is None or all(tenants.count(t) == n for t, n in waiting.items())
    for each in held:
        each.cancel()
