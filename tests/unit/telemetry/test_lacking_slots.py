"""How many adapter slots a fleet has, uses, wants and lacks."""

import asyncio
from collections.abc import Iterable

import pytest

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare, PodShare
from lora_router.routing.roll import Limits
from lora_router.telemetry.lacking_slots import (
    HELD_SECONDS,
    MAX_BASE_MODELS,
    MAX_REFUSED,
    OTHER,
    REFUSED_SECONDS,
    REQUESTS_OF_A_COPY,
    LackingSlots,
    Slots,
)
from tests.fleet import make_fleet, make_metrics, make_pod, state_of
from tests.unit.routing.router import Router

ADAPTERS = tuple(f"adapter-{number}" for number in range(12))


class Case:
    """Pods with two slots each, a router before them, and the count of their slots."""

    def __init__(self, pods: int = 2, *, slots: int | None = 2, **router: object) -> None:
        self.fleet = make_fleet(pods, adapters=ADAPTERS)
        for state in self.fleet:
            self.fleet.put_metrics(state, make_metrics(max_lora=slots))
        self.router = Router(self.fleet, **router)  # type: ignore[arg-type]
        self.lacking = LackingSlots(self.fleet, self.router.director, self.router.clock.now)

    def count(self) -> Slots:
        return self.lacking.count()["base"]

    def fill(self) -> None:
        """Use all four slots."""
        for adapter in ADAPTERS[:4]:
            self.router.routed(adapter)


def test_an_idle_fleet_wants_no_slot() -> None:
    assert Case().count() == Slots(used=0, free=4, wanted=0, lacking=0)


def test_each_adapter_in_flight_wants_a_slot() -> None:
    case = Case()
    first = case.router.routed("adapter-0")
    case.router.routed("adapter-1")
    case.router.routed("base")
    assert case.count() == Slots(used=2, free=2, wanted=2, lacking=0)

    first.reservation.release()
    assert case.count() == Slots(used=1, free=3, wanted=1, lacking=0)


def test_an_adapter_lacks_a_slot_when_it_is_held_for_longer_than_a_load_takes() -> None:
    case = Case()
    case.fill()
    case.router.held("adapter-4")
    case.router.held("adapter-4")
    case.router.held("adapter-5")
    assert case.count() == Slots(used=4, free=0, wanted=4, lacking=0)

    case.router.clock.advance(HELD_SECONDS + 0.1)
    assert case.count() == Slots(used=4, free=0, wanted=6, lacking=2)


def test_an_adapter_that_got_its_slot_lacks_none() -> None:
    case = Case()
    case.fill()
    case.router.held("adapter-4")
    case.router.clock.advance(HELD_SECONDS + 0.1)
    assert case.count().lacking == 1

    for each in case.fleet:
        case.fleet.put_metrics(each, make_metrics(max_lora=8))
    case.router.clock.advance(1.0)
    assert case.router.late_names == ["adapter-4"]
    assert case.count().lacking == 0


def test_a_slot_closed_for_an_adapter_counts_once() -> None:
    case = Case()
    case.fill()
    case.router.held("adapter-4")
    case.router.clock.advance(7.0)
    assert case.router.director.reception.room.closed_slots == 1
    assert case.count() == Slots(used=4, free=0, wanted=5, lacking=1)


def test_an_adapter_lacks_a_slot_for_a_minute_after_a_refusal() -> None:
    case = Case(limits=Limits(requests=0))
    case.fill()
    case.router.send("adapter-4")
    case.router.send("adapter-4")
    assert case.count() == Slots(used=4, free=0, wanted=5, lacking=1)

    case.router.clock.advance(REFUSED_SECONDS + 1)
    assert case.count() == Slots(used=4, free=0, wanted=4, lacking=0)


def test_other_refusals_say_nothing_about_slots() -> None:
    case = Case()
    case.router.send("no-such-model")
    case.router.send("adapter-0", strategy="no-such-algorithm")
    assert case.count() == Slots(free=4)


@pytest.mark.slow
def test_the_number_of_remembered_refusals_is_bounded() -> None:
    fleet = Fleet()
    names = [ServedModel(f"a{number}", "base") for number in range(MAX_REFUSED + 10)]
    fleet.replace([make_pod(1)])
    fleet.put_models(state_of(fleet, 1), [ServedModel("base"), *names])
    fleet.put_metrics(state_of(fleet, 1), make_metrics(max_lora=1))
    router = Router(fleet, limits=Limits(requests=0))
    lacking = LackingSlots(fleet, router.director, router.clock.now)
    router.routed("a0")
    for each in names[1:]:
        router.send(each.name)
    assert lacking.count()["base"].lacking == MAX_REFUSED


def test_further_copies_count_only_where_the_load_needs_them() -> None:
    case = Case(pods=3)
    ledger = case.fleet.ledger
    for state in case.fleet:
        ledger.reserve(state, "adapter-0", None)
    assert case.count() == Slots(used=3, free=3, wanted=1, lacking=0)

    for state in case.fleet:
        for _ in range(REQUESTS_OF_A_COPY):
            ledger.reserve(state, "adapter-0", None)
    # 27 requests: as many as three pods have on average.
    assert case.count() == Slots(used=3, free=3, wanted=3, lacking=0)


@pytest.mark.slow
def test_a_larger_fleet_with_the_same_load_wants_no_more() -> None:
    def wanted(pods: int) -> int:
        """Spread 16 requests for each of 8 adapters over all pods."""
        case = Case(pods, slots=8)
        for adapter in ADAPTERS[:8]:
            for number in range(16):
                case.fleet.ledger.reserve(state_of(case.fleet, number % pods + 1), adapter, None)
        return case.count().wanted

    assert [wanted(pods) for pods in (1, 2, 4, 8, 12)] == [8, 8, 8, 8, 16]
    assert wanted(12) == wanted(16), "it depends on the requests, two copies of 8 each"


def test_adapters_that_wait_on_pods_want_slots_too() -> None:
    case = Case(pods=1)
    state = state_of(case.fleet, 1)
    for adapter in ADAPTERS[:5]:
        case.fleet.ledger.reserve(state, adapter, None)
    assert case.count() == Slots(used=2, free=0, wanted=5, lacking=3)


def test_pods_of_unknown_slots_have_none_and_still_want_some() -> None:
    case = Case(slots=None)
    case.router.routed("adapter-0")
    assert case.count() == Slots(used=0, free=0, wanted=1, lacking=0)


def test_pods_that_are_not_ready_do_not_count() -> None:
    case = Case()
    case.router.routed("adapter-0")
    case.fleet.replace([make_pod(1, ready=False), make_pod(2)])
    assert case.count().total == 2


def share(number: int, held: dict[str, HeldShare], adapters: Iterable[str]) -> LedgerShare:
    in_flight = dict.fromkeys(adapters, 1)
    pod = PodShare(("10.0.0.1:8000", ""), len(in_flight), in_flight)
    return LedgerShare("peer", number, 0.25, {"pod-1": pod}, held, {})


def test_what_peers_hold_and_have_in_flight_counts_as_well() -> None:
    case = Case()
    case.router.routed("adapter-0")
    held = {"adapter-6": HeldShare(HELD_SECONDS + 1), "adapter-7": HeldShare(0.5)}
    case.fleet.put_peer(share(1, held, ["adapter-5"]), 0.0)
    assert case.count() == Slots(used=2, free=2, wanted=3, lacking=1)


def test_adapters_may_come_and_go_while_they_are_counted() -> None:
    names = tuple(f"adapter-{number}" for number in range(400))
    fleet = make_fleet(1, adapters=names)
    fleet.put_metrics(state_of(fleet, 1), make_metrics(max_lora=1))
    router = Router(fleet)
    router.routed(names[0])
    held = [router.held(name) for name in names[1:300]]
    router.clock.advance(HELD_SECONDS + 1)
    lacking = LackingSlots(fleet, router.director, router.clock.now)

    slices = 0
    for slices, _ in enumerate(lacking._steps(), start=1):
        held.pop().cancel()
        router.held(names[300 + slices])

    assert slices > 4
    assert 250 < lacking.slots["base"].lacking <= 300


def test_each_base_model_has_its_own_slots() -> None:
    fleet = make_fleet(2, adapters=())
    fleet.put_models(state_of(fleet, 1), [ServedModel("llama"), ServedModel("sql", "llama")])
    fleet.put_models(state_of(fleet, 2), [ServedModel("qwen"), ServedModel("chat", "qwen")])
    for number in (1, 2):
        fleet.put_metrics(state_of(fleet, number), make_metrics(max_lora=number))
    router = Router(fleet)
    lacking = LackingSlots(fleet, router.director, router.clock.now)
    router.routed("chat")

    assert lacking.count() == {"llama": Slots(free=1), "qwen": Slots(used=1, free=1, wanted=1)}


def test_the_number_of_base_models_with_a_series_is_bounded() -> None:
    fleet = Fleet()
    fleet.replace(make_pod(number) for number in range(MAX_BASE_MODELS + 20))
    for number, state in enumerate(fleet):
        fleet.put_models(state, [ServedModel(f"base-{number}")])
        fleet.put_metrics(state, make_metrics(max_lora=1))
    router = Router(fleet)
    found = LackingSlots(fleet, router.director).count()
    assert len(found) == MAX_BASE_MODELS + 1
    assert found[OTHER].free == 20


def test_the_metrics_are_those_of_the_last_count() -> None:
    case = Case()
    assert [metric.samples for metric in case.lacking.collect()] == [[], [], []]
    case.fill()
    case.router.held("adapter-4")
    case.router.clock.advance(HELD_SECONDS + 0.1)
    case.lacking.count()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in case.lacking.collect()
        for sample in metric.samples
    }
    assert found == {
        ("lora_router_slots", "base", "used"): 4,
        ("lora_router_slots", "base", "free"): 0,
        ("lora_router_slots_wanted", "base"): 5,
        ("lora_router_slots_lacking", "base"): 1,
    }


@pytest.mark.asyncio
async def test_a_large_fleet_is_counted_in_slices() -> None:
    case = Case(pods=300)
    turns = 0
    counting = asyncio.create_task(case.lacking.keep_counting())
    async with asyncio.timeout(60):
        while not case.lacking.slots:
            await asyncio.sleep(0)
            turns += 1
    counting.cancel()
    assert case.lacking.slots == {"base": Slots(free=600)}
    assert turns > 300 // 64
