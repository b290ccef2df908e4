"""Our own metrics."""

from lora_router.telemetry.metrics import Telemetry
from tests.fleet import make_fleet, make_metrics, make_pod, state_of


def lines(telemetry: Telemetry) -> list[str]:
    return telemetry.page().decode().splitlines()


def test_requests_are_counted_by_algorithm_outcome_and_reason() -> None:
    telemetry = Telemetry(make_fleet(1))
    telemetry.decisions.decided("random", "routed", "random", 2e-5)
    telemetry.decisions.decided("random", "routed", "random", 2e-5)
    telemetry.decisions.decided("none", "refused", "bad-body", 0.0)

    page = lines(telemetry)

    labels = 'algorithm="random",outcome="routed",reason="random"'
    assert f"lora_router_requests_total{{{labels}}} 2.0" in page
    labels = 'algorithm="none",outcome="refused",reason="bad-body"'
    assert f"lora_router_requests_total{{{labels}}} 1.0" in page
    assert 'lora_router_decision_seconds_count{algorithm="random"} 2.0' in page
    assert not any('decision_seconds_count{algorithm="none"}' in line for line in page)


def test_the_fleet_is_shown_as_it_is_when_the_page_is_read() -> None:
    fleet = make_fleet(2)
    telemetry = Telemetry(fleet, clock=lambda: 107.5)
    fleet.put_metrics(state_of(fleet, 1), make_metrics(scraped_at=100.0))
    fleet.ledger.reserve(state_of(fleet, 1), "sql-lora")
    fleet.ledger.reserve(state_of(fleet, 1), None)
    fleet.upsert(make_pod(2, ready=False))

    page = lines(telemetry)

    assert 'lora_router_in_flight_requests{pod="pod-1"} 2.0' in page
    assert 'lora_router_in_flight_adapters{pod="pod-1"} 1.0' in page
    assert 'lora_router_in_flight_requests{pod="pod-2"} 0.0' in page
    assert 'lora_router_snapshot_age_seconds{pod="pod-1"} 7.5' in page
    assert not any("snapshot_age" in line and "pod-2" in line for line in page)
    assert 'lora_router_pods{state="ready"} 1.0' in page
    assert 'lora_router_pods{state="not-ready"} 1.0' in page
    assert "lora_router_reservations 2.0" in page


def test_scrapes_are_counted_and_pods_that_left_are_forgotten() -> None:
    fleet = make_fleet(2)
    telemetry = Telemetry(fleet)
    telemetry.scraped("metrics", "pod-1", 0.003)
    telemetry.failed("metrics", "pod-1", "timeout")
    telemetry.failed("models", "pod-2", "status")
    labels = 'cause="timeout",kind="metrics",pod="pod-1"'
    assert f"lora_router_scrape_failures_total{{{labels}}} 1.0" in lines(telemetry)
    assert 'lora_router_scrape_seconds_count{kind="metrics"} 1.0' in lines(telemetry)

    fleet.remove("pod-1")

    assert not any('pod="pod-1"' in line for line in lines(telemetry))
    assert any('pod="pod-2"' in line and "failures" in line for line in lines(telemetry))


def test_a_gauge_is_read_when_the_page_is() -> None:
    telemetry = Telemetry(make_fleet(1))
    values = iter([1.0, 2.0])
    telemetry.add_gauge("lora_router_x", "Something.", lambda: next(values))

    assert "lora_router_x 1.0" in lines(telemetry)
    assert "lora_router_x 2.0" in lines(telemetry)
