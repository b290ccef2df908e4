"""The router's own metrics."""

import pytest

from lora_router.telemetry.metrics import Telemetry
from tests.fleet import make_fleet, make_metrics, make_pod, state_of


def lines(telemetry: Telemetry) -> list[str]:
    return telemetry.page().decode().splitlines()


def test_requests_are_counted_by_algorithm_outcome_and_reason() -> None:
    telemetry = Telemetry(make_fleet(1))
    telemetry.counts.decided("random", "routed", "random", 2e-5)
    telemetry.counts.decided("random", "routed", "random", 2e-5)
    telemetry.counts.decided("none", "refused", "bad-body", 0.0)

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


def test_a_read_that_succeeds_ends_a_row_of_failures_of_the_same_page() -> None:
    fleet = make_fleet(2)
    telemetry = Telemetry(fleet)
    for _ in range(3):
        telemetry.failed("models", "pod-1", "status")
    telemetry.failed("models", "pod-2", "timeout")

    telemetry.scraped("metrics", "pod-1", 0.003)
    telemetry.scraped("models", "pod-2", 0.003)

    row = "lora_router_scrape_failures_in_a_row"
    assert f'{row}{{kind="models",pod="pod-1"}} 3.0' in lines(telemetry)
    assert f'{row}{{kind="models",pod="pod-2"}} 0.0' in lines(telemetry)


def test_a_gauge_is_read_when_the_page_is() -> None:
    telemetry = Telemetry(make_fleet(1))
    values = iter([1.0, 2.0])
    telemetry.add_gauge("lora_router_x", "Something.", lambda: next(values))

    assert "lora_router_x 1.0" in lines(telemetry)
    assert "lora_router_x 2.0" in lines(telemetry)


def test_a_count_kept_elsewhere_is_a_counter() -> None:
    telemetry = Telemetry(make_fleet(1))
    telemetry.add_counter("lora_router_x_total", "Something.", lambda: 7)

    assert "# TYPE lora_router_x_total counter" in lines(telemetry)
    assert "lora_router_x_total 7.0" in lines(telemetry)


def test_a_collector_that_fails_is_left_out_of_the_page(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry(make_fleet(1))

    def broken() -> float:
        raise ZeroDivisionError

    telemetry.add_gauge("lora_router_x", "Something.", broken)
    telemetry.add_gauge("lora_router_y", "Something.", lambda: None)  # type: ignore[arg-type,return-value]
    telemetry.add_gauge("lora_router_z", "Something.", lambda: 1.0)

    for _ in range(3):
        page = lines(telemetry)

    assert "lora_router_z 1.0" in page
    assert any(line.startswith("lora_router_build_info") for line in page)
    assert not any("lora_router_x" in line for line in page)
    assert caplog.messages == [
        "lora_router_x cannot be read, /metrics omits it: ZeroDivisionError",
        "lora_router_y cannot be read, /metrics omits it: TypeError",
    ]


def test_a_reason_that_is_no_string_leaves_the_page_whole() -> None:
    telemetry = Telemetry(make_fleet(1))
    telemetry.counts.decided("plugin", "routed", None, 1e-5)  # type: ignore[arg-type]

    labels = 'algorithm="plugin",outcome="routed",reason="None"'
    assert f"lora_router_requests_total{{{labels}}} 1.0" in lines(telemetry)


def test_failures_of_tasks_are_counted_by_task() -> None:
    telemetry = Telemetry(make_fleet(1))
    assert 'lora_router_task_failures_total{task="pods-file"} 0.0' in lines(telemetry)
    telemetry.task_failed("pods-file")
    telemetry.task_failed("pods-file")

    assert 'lora_router_task_failures_total{task="pods-file"} 2.0' in lines(telemetry)
