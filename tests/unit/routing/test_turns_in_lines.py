"""Tenants whose requests wait in different lines, of which some share pods."""

from dataclasses import replace
from itertools import count

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.lora_spec import LoraSpec
from lora_router.routing.outcome import Routed
from lora_router.routing.overload import Overload
from tests.fleet import make_metrics, make_pod
from tests.unit.routing.router import Router

ADAPTERS = [f"a{number}" for number in range(600)]
MEMORY = LoraSpec(host_memory=len(ADAPTERS))


class TwoZones(Router):
    """Two pods with one slot each, in zones ``a`` and ``b``. The first one is labelled ``gold``.

    Each request has its own adapter.
    """

    def __init__(self) -> None:
        fleet = Fleet()
        fleet.replace(
            make_pod(number, labels=labels, lora=MEMORY)
            for number, labels in ((1, {"zone": "a", "gold": ""}), (2, {"zone": "b"}))
        )
        models = [ServedModel("base"), *(ServedModel(name, "base") for name in ADAPTERS)]
        for state in fleet:
            fleet.put_models(state, models)
            metrics = make_metrics(max_lora=1, scraped_at=100.0)
            fleet.put_metrics(state, replace(metrics, running=0.0))
        super().__init__(fleet, overload=Overload(closed_slots_share=0.0))
        self._number = count()

    def next(self) -> str:
        return ADAPTERS[next(self._number)]

    def waits(self, name: str, tenant: int, zone: str | None = None) -> None:
        self.held(self.next(), name, tenant=tenant, pod_filter=zone and f"zone={zone}")

    def starts(self, zone: str) -> Routed:
        return self.routed(self.next(), pod_filter=f"zone={zone}", tenant=5)

    def after(self, running: Routed) -> tuple[str, Routed]:
        """End a request; return which one gets its slot."""
        self.late.clear()
        running.reservation.release()
        self.clock.advance(0.01)
        [(name, outcome)] = self.late
        assert isinstance(outcome, Routed)
        return name, outcome


def test_a_line_that_was_served_often_does_not_wait_behind_another_one_on_a_shared_pod() -> None:
    router = TwoZones()
    running, other = router.starts("a"), router.starts("b")
    for tenant in (11, 12):
        router.waits("of zone b", tenant, "b")
    for _ in range(2):
        router.waits("of any zone", 5)
    for _ in range(60):
        name, running = router.after(running)
        assert name == "of any zone"
        router.waits("of any zone", 5)
    router.waits("the only one of its tenant", 8)

    # From now on, only the pod of zone b has free slots.
    served = []
    for turn in range(8):
        name, other = router.after(other)
        served.append(name)
        if name == "of zone b":
            router.waits(name, 11 + turn % 2, "b")
    assert "the only one of its tenant" in served


def test_a_queue_that_comes_to_another_line_has_a_round_of_that() -> None:
    router = TwoZones()
    running, _ = router.starts("a"), router.starts("b")
    for _ in range(20):
        router.waits("burst", 7, "b")
    for _ in range(40):
        router.waits("of zone a", 5, "a")
    for _ in range(38):
        _, running = router.after(running)
    held = router.held(router.next(), "comes", tenant=8, pod_filter="zone=a")
    assert held.queue is not None
    assert held.queue.turn == 37

    reception = router.director.reception
    in_b = reception.candidates_for(held.question._replace(pod_filter="zone=b"))
    reception.room.lines.place(held.queue, in_b)
    assert held.queue.turn <= 1
