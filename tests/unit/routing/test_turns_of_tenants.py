"""Fair turns of tenants, across base models, priorities and filters."""

from dataclasses import replace

import pytest

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.lora_spec import LoraSpec
from lora_router.routing.outcome import Routed
from lora_router.routing.overload import Overload
from lora_router.routing.turns_of_tenants import MOST_TENANTS, LineRounds, Turns
from tests.fleet import make_metrics, make_pod
from tests.unit.routing.router import Router

BURST, OTHER = 7, 8
"""Two tenants."""
A = [f"a{number}" for number in range(60)]
B = [f"b{number}" for number in range(60)]


class OneSlotEach(Router):
    """Two pods with one slot each. A burst of 20 adapters waits for the first."""

    def __init__(self, *, bases: tuple[str, str] = ("base", "base"), **query: object) -> None:
        fleet = Fleet()
        fleet.replace(
            make_pod(number, labels={"zone": zone}, lora=LoraSpec(host_memory=99))
            for number, zone in ((1, "a"), (2, "b"))
        )
        for pod, base in zip(fleet, bases, strict=True):
            names = A if base == bases[0] else B
            fleet.put_models(pod, [ServedModel(base), *(ServedModel(n, base) for n in names)])
            fleet.put_metrics(pod, replace(make_metrics(max_lora=1, scraped_at=100.0), running=0.0))
        super().__init__(fleet, overload=Overload())
        self.director.priorities.put({"chat": 1})
        self.running = self.routed("a0", **query)
        for name in A[1:21]:
            self.held(name, "burst", tenant=BURST, **query)

    def serve_one(self) -> str:
        """The request in the first slot ends. Return who gets it."""
        self.late.clear()
        self.running.reservation.release()
        self.clock.advance(0.1)
        [(name, outcome)] = self.late
        assert isinstance(outcome, Routed)
        self.running = outcome
        return name

    def served_before(self, name: str) -> int:
        """Return how many are served before a request that waits."""
        return next(number for number in range(40) if self.serve_one() == name)


class TestABurstDelaysAnotherTenantByOneTurn:
    """Whatever else its tenant is served."""

    def test_after_it_was_served_on_another_base_model(self) -> None:
        router = OneSlotEach(bases=("base-a", "base-b"))
        running = router.routed("b0")
        router.held("b1", tenant=BURST)
        running.reservation.release()

        router.held("a40", "other", tenant=OTHER)

        assert router.served_before("other") <= 1

    def test_after_it_was_served_with_a_higher_priority(self) -> None:
        router = OneSlotEach(pod_filter="zone=a")
        router.held("a30", "chat", tenant=BURST, objective="chat", pod_filter="zone=a")
        assert router.serve_one() == "chat"

        router.held("a40", "other", tenant=OTHER, pod_filter="zone=a")

        assert router.served_before("other") <= 1

    @pytest.mark.parametrize("first", [BURST, OTHER])
    def test_after_one_was_served_on_pods_of_another_filter(self, first: int) -> None:
        router = OneSlotEach(pod_filter="zone=a")
        running = router.routed("a50", pod_filter="zone=b")
        router.held("a51", "there", tenant=BURST, pod_filter="zone=b")
        if first == OTHER:
            router.held("a52", "there", tenant=OTHER, pod_filter="zone=b")
        running.reservation.release()
        assert router.late_names == ["there"]

        router.held("a40", "other", tenant=OTHER, pod_filter="zone=a")

        assert router.served_before("other") <= 2

    def test_where_its_request_is_the_first_that_waits(self) -> None:
        router = OneSlotEach(pod_filter="zone=a")
        router.routed("a50", pod_filter="zone=b")
        router.held("a51", tenant=BURST, pod_filter="zone in (a, b)")

        router.held("a40", "other", tenant=OTHER, pod_filter="zone in (a, b)")

        assert router.served_before("other") <= 2


def test_a_tenant_that_writes_many_filters_gets_one_turn_in_a_round() -> None:
    router = OneSlotEach(pod_filter="zone=a")
    router.running.reservation.release()
    for number in range(10):
        router.held(A[30 + number], "filters", tenant=9, pod_filter=f"zone=a,!other-{number}")
    router.held("a50", "other", tenant=OTHER, pod_filter="zone=a")
    router.running = router.late[-1][1]  # type: ignore[assignment]

    order = [router.serve_one() for _ in range(9)]

    assert order.count("filters") <= 4, order
    assert "other" in order[:4]


def test_a_tenant_that_comes_again_and_again_leaves_turns_to_others() -> None:
    router = OneSlotEach(pod_filter="zone=a")
    for number in range(8):
        router.held(A[30 + number], "other", tenant=OTHER, pod_filter="zone=a")
        router.served_before("other")
        assert router.serve_one() == "burst"


def test_requests_without_a_tenant_are_not_before_all_others() -> None:
    router = OneSlotEach(pod_filter="zone=a")
    for _ in range(5):
        assert router.serve_one() == "burst"
    router.held("a40", "other", tenant=OTHER, pod_filter="zone=a")

    for name in A[41:50]:
        router.held(name, "nobody's", pod_filter="zone=a")

    assert router.served_before("other") <= 1


def test_a_line_that_begins_is_not_before_those_that_were_served_for_long() -> None:
    turns = Turns().enter(frozenset({"base"}), 0)
    old, new = LineRounds(), LineRounds()
    old.enter(turns)
    for _ in range(30):
        old.served(turns, turns.next(BURST, old.current(turns)))
        turns.leave(BURST)
    new.enter(turns)

    assert turns.next(OTHER, new.current(turns)) >= old.current(turns)


def test_what_is_remembered_is_bounded_for_all_base_models_and_priorities_together() -> None:
    turns = Turns()
    for number in range(100):
        of = turns.enter(frozenset({f"base-{number}"}), number)
        for tenant in range(1, 101):
            of.next(tenant)
    assert len(of) == MOST_TENANTS

    for number in range(100):
        of = turns.of(frozenset({f"base-{number}"}), number)
        for tenant in range(1, 101):
            of.leave(tenant)
        turns.leave(frozenset({f"base-{number}"}), number)
    assert len(turns) == 0


def test_nothing_is_remembered_of_a_room_that_is_empty() -> None:
    router = OneSlotEach(pod_filter="zone=a")
    router.clock.advance(700.0)
    assert router.director.held == 0
    assert len(router.director.reception.room._turns) == 0
