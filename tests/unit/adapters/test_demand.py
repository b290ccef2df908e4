from lora_router.adapters.demand import MOST, SAMPLE_SECONDS, DemandMeter
from tests.fleet import ManualClock, make_fleet, state_of


def test_the_load_of_an_adapter_is_its_mean_number_of_requests_in_flight() -> None:
    clock = ManualClock()
    fleet = make_fleet(2, adapters=("hot", "cold"))
    meter = DemandMeter(fleet, clock)
    meter.start()
    for number in (1, 2, 2):
        fleet.ledger.reserve(state_of(fleet, number), "hot")
    clock.advance(120.0)
    demand = meter.demand()
    assert 2.9 < demand.loads["hot"] <= 3.0
    assert "cold" not in demand.loads


def test_a_load_is_halved_in_each_minute_without_requests_and_forgotten_in_the_end() -> None:
    clock = ManualClock()
    fleet = make_fleet(1)
    meter = DemandMeter(fleet, clock)
    meter.start()
    reservation = fleet.ledger.reserve(state_of(fleet, 1), "sql-lora")
    clock.advance(300.0)
    reservation.release()
    before = meter.demand().loads["sql-lora"]
    clock.advance(60.0)
    assert meter.demand().loads["sql-lora"] < 0.55 * before
    clock.advance(1200.0)
    assert len(meter) == 0


def test_requests_that_wait_count_too() -> None:
    clock = ManualClock()
    meter = DemandMeter(make_fleet(1), clock, lambda: frozenset({"new"}), lambda: ("held",))
    meter.start()
    clock.advance(30.0)
    demand = meter.demand()
    assert demand.loads["new"] > 0.5
    assert demand.loads["held"] > 0.5
    assert demand.waiting == {"new"}


def test_the_number_of_adapters_is_bounded() -> None:
    clock = ManualClock()
    names = tuple(f"a{number}" for number in range(MOST + 10))
    meter = DemandMeter(make_fleet(1), clock, held=lambda: names)
    clock.advance(SAMPLE_SECONDS)
    for _ in meter.sample():
        pass
    assert len(meter) == MOST
