"""Which adapters are in flight on some pod."""

from lora_router.fleet.adapters_in_flight import AdaptersInFlight
from lora_router.fleet.pod_metrics import LoraActivity, PodMetrics
from tests.fleet import make_fleet


def shows(*adapters: str) -> PodMetrics:
    """Return a scrape that shows requests of others."""
    lora = LoraActivity(4, frozenset(adapters), frozenset(adapters), 1.0)
    return PodMetrics(scraped_at=1.0, running=float(len(adapters)), lora=lora)


def test_an_adapter_is_in_flight_until_its_last_request_on_any_pod_ends() -> None:
    fleet = make_fleet(2)
    in_flight = AdaptersInFlight(fleet)
    first, second = (fleet.ledger.reserve(state, "a") for state in fleet)

    first.release()
    assert "a" in in_flight
    second.release()
    assert "a" not in in_flight


def test_an_adapter_that_only_others_use_is_in_flight_until_no_pod_shows_it() -> None:
    fleet = make_fleet(2)
    in_flight = AdaptersInFlight(fleet)
    one, two = fleet
    for state in (one, two):
        fleet.put_metrics(state, shows("a"))

    fleet.put_metrics(one, shows())
    assert "a" in in_flight
    fleet.put_metrics(two, shows("b"))
    assert ("a" in in_flight, "b" in in_flight) == (False, True)


def test_what_a_pod_showed_that_has_left_is_forgotten() -> None:
    fleet = make_fleet(2)
    in_flight = AdaptersInFlight(fleet)
    fleet.put_metrics(next(iter(fleet)), shows("a"))
    assert "a" in in_flight

    fleet.replace(())

    assert "a" not in in_flight
