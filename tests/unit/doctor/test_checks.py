"""What the doctor finds, and where it finds nothing."""

from dataclasses import replace

import pytest

from lora_router.counted import counted
from lora_router.doctor.examination import examine, exit_status
from lora_router.doctor.facts import Adapter, Facts
from lora_router.doctor.findings import Finding, Severity, named
from lora_router.extproc.gateway_faults import EARLY_IN_A_ROW, GatewayFaults
from lora_router.fleet.ambiguous_names import TWO_PARENTS
from tests.pages import DOCS
from tests.unit.doctor.fleets import (
    HEALTHY,
    POD,
    ROUTER,
    with_adapter,
    with_metric,
    with_pod,
    with_pods,
    with_readiness,
    with_router,
)


def test_adapters_that_nobody_declares_are_named_where_others_have_no_place() -> None:
    adapters = (Adapter("new", "llama", state="unplaced"), Adapter("old", "llama", listed=2))
    found = {each.check: each for each in examine(replace(HEALTHY, adapters=adapters))}
    fix = found["adapters-unplaced"].fix
    assert "1 adapter that nobody declares" in fix
    assert "old" in fix
    assert "lora-router adapters unload NAME" in fix
    (alone,) = examine(replace(HEALTHY, adapters=adapters[:1]))
    assert "nobody declares" not in alone.fix


def test_nothing_is_wrong_in_a_healthy_fleet() -> None:
    assert examine(HEALTHY) == []


EXPIRY = "lora_router_tls_certificate_expiry_timestamp_seconds"
DAY = 86400.0
FLEETS: dict[str, tuple[Severity, Facts]] = {
    "host-memory-evictions": (Severity.WARNING, with_pod(used=40, evicted=32)),
    "slow-adapter-loads": (Severity.WARNING, with_pod(load_seconds=1.5)),
    "host-memory-unknown": (
        Severity.HINT,
        with_pod(used=20, in_memory=None, evicted=None, load_seconds=None),
    ),
    "one-slot": (Severity.WARNING, with_pods(replace(POD, slots=1))),
    "slots-lacking": (
        Severity.WARNING,
        with_metric("lora_router_slots_lacking", 3, base_model="llama"),
    ),
    "slots-unknown": (Severity.HINT, with_pod(slots=None)),
    "blind-algorithm": (Severity.WARNING, with_router(algorithm="least-request")),
    "ambiguous-names": (
        Severity.ERROR,
        with_readiness(ambiguous_models=1, ambiguous={"sql": TWO_PARENTS}),
    ),
    "one-pod-only": (
        Severity.WARNING,
        replace(HEALTHY, adapters=[Adapter("sql", "llama", listed=1, requests=2)]),
    ),
    "adapter-loads-fail": (
        Severity.ERROR,
        with_adapter(state="failing", wanted=2, failing=(("vllm-0", "no such file"),)),
    ),
    "adapters-without-base-model": (
        Severity.WARNING,
        with_adapter(state="unplaced", base_model="lama"),
    ),
    "adapters-unplaced": (Severity.WARNING, with_adapter(state="unplaced")),
    "one-copy": (Severity.HINT, with_adapter(state="loaded", wanted=1, listed=1)),
    "different-slots": (Severity.HINT, with_pod(slots=8)),
    "different-engines": (Severity.HINT, with_pod(engine=None)),
    "different-models": (Severity.WARNING, with_pod(fingerprint="b", listed=9)),
    "no-ready-pod": (Severity.ERROR, with_pods(replace(POD, ready=False))),
    "ejected-pods": (
        Severity.ERROR,
        with_pod(health="ejected", why="5 failures in a row"),
    ),
    "stale-pods": (Severity.WARNING, with_pod(age_seconds=60.0)),
    "scrape-errors": (Severity.HINT, with_pod(scrape_failures=2)),
    "pods-without-load": (Severity.WARNING, with_pod(shows_load=False)),
    "clock-differences": (Severity.WARNING, with_pod(clock_seconds=-120.0)),
    "gateway-timeouts": (
        Severity.WARNING,
        replace(HEALTHY, details={"upstream_response_timeout": 3}),
    ),
    "gateway-holds": (Severity.WARNING, replace(HEALTHY, given_up=[5.06, 5.02, 17.0, 5.11])),
    "gateway-limits": (
        Severity.WARNING,
        replace(HEALTHY, details={"upstream_reset_before_response_started{overflow}": 2}),
    ),
    "gateway-connections": (
        Severity.WARNING,
        replace(
            HEALTHY, details={"upstream_reset_before_response_started{connection_termination}": 1}
        ),
    ),
    "limits-reached": (Severity.WARNING, with_metric("lora_router_refused_streams_total", 12)),
    "not-ready": (Severity.ERROR, with_readiness(ready=False, reason="shutting down")),
    "discovery-error": (Severity.ERROR, with_readiness(discovery_error="403: forbidden")),
    "pod-access-error": (Severity.ERROR, with_readiness(pod_access_error="key: empty; for 9 s")),
    "certificate-refused": (Severity.ERROR, with_readiness(tls_error="cert.pem: no PEM")),
    "no-peering": (
        Severity.WARNING,
        replace(with_pod(strangers=6), routers=[replace(ROUTER, has_peers=False, peers=())]),
    ),
    "no-peer-heard": (
        Severity.WARNING,
        replace(with_pod(strangers=6), routers=[replace(ROUTER, peers=())]),
    ),
    "unknown-senders": (Severity.HINT, with_pod(strangers=6)),
    "unreachable-routers": (Severity.WARNING, replace(HEALTHY, unreachable=["router-c"])),
    "silent-peers": (
        Severity.WARNING,
        with_metric("lora_router_peer_report_age_seconds", 7.0),
    ),
    "different-releases": (
        Severity.WARNING,
        replace(HEALTHY, routers=[ROUTER, replace(ROUTER, version="0.9")]),
    ),
    "different-default-algorithms": (
        Severity.WARNING,
        replace(HEALTHY, routers=[ROUTER, replace(ROUTER, algorithm="shuffle-shard")]),
    ),
    "failing-tasks": (Severity.ERROR, with_readiness(failing_tasks={"pods-file": 1})),
    "task-failures": (
        Severity.HINT,
        with_metric("lora_router_task_failures_total", 2, task="pods-file"),
    ),
    "loop-lag": (Severity.WARNING, with_router(loop_lag_seconds=0.9)),
    "loop-stalls": (Severity.HINT, with_metric("lora_router_loop_stalls_total", 1)),
    "log-lines-dropped": (Severity.WARNING, with_metric("lora_router_log_lines_dropped_total", 5)),
    "certificate-expires": (Severity.WARNING, with_metric(EXPIRY, HEALTHY.now + 5 * DAY)),
    "pod-tls-unverified": (Severity.HINT, with_readiness(pod_tls_warning="not verified")),
    "decisions-off": (Severity.HINT, with_router(decisions=0)),
}


def only(facts: Facts) -> Finding:
    [finding] = examine(facts)
    return finding


@pytest.mark.parametrize("check", FLEETS)
def test_each_fault_has_its_finding_and_no_other(check: str) -> None:
    severity, facts = FLEETS[check]
    finding = only(facts)
    assert (finding.check, finding.severity) == (check, severity)
    for text in (finding.what, finding.why, finding.fix):
        assert text.endswith(".")
        assert "  " not in text


@pytest.mark.parametrize(
    "given_up",
    [
        [],
        [5.0, 5.1],
        [0.01, 0.02, 0.05, 0.1],  # Clients that leave at once.
        [3.0, 9.0, 15.0, 21.0],
        [30.0, 30.01, 30.02],  # The router's own time is up.
    ],
)
def test_clients_that_give_up_a_hold_are_no_fault_of_the_gateway(given_up: list[float]) -> None:
    assert examine(replace(HEALTHY, given_up=given_up)) == []


def test_gateway_faults_are_told_as_the_router_tells_them() -> None:
    faults = GatewayFaults(lambda: 0.0)
    for _ in range(EARLY_IN_A_ROW):
        faults.stream_ended(2, 0.0, is_reset=True)
    finding = only(with_readiness(**faults.status()))
    assert (finding.check, finding.severity) == ("gateway-faults", Severity.ERROR)
    assert finding.what.startswith("The gateway closes ext_proc streams before the answers end")
    assert finding.why == "Requests count as in flight for too short a time."
    assert finding.fix.startswith("Set response_trailer_mode: SEND")


def test_the_page_lists_every_check() -> None:
    page = (DOCS / "doctor.md").read_text()
    for check in (*FLEETS, "gateway-faults"):
        assert f"| `{check}` |" in page


def test_the_worst_comes_first() -> None:
    facts = replace(with_pod(slots=8), readiness={"ready": False, "reason": "shutting down"})
    assert [finding.severity for finding in examine(facts)] == [Severity.ERROR, Severity.HINT]


@pytest.mark.parametrize(
    ("severity", "plain", "strict"),
    [(Severity.ERROR, 1, 1), (Severity.WARNING, 0, 1), (Severity.HINT, 0, 0)],
)
def test_the_exit_status_depends_on_the_worst_finding(
    severity: Severity, plain: int, strict: int
) -> None:
    findings = [Finding("x", severity, "", "", "")]
    assert exit_status(findings, strict=False) == plain
    assert exit_status(findings, strict=True) == strict
    assert exit_status([], strict=True) == 0


# Where there is nothing to find


def test_evictions_name_the_size_that_is_known_and_where_from() -> None:
    found = only(with_pod(used=40, evicted=8, host_memory=32, host_memory_source="label"))
    assert "8 of 40 were evicted. It holds 32 adapters (label)." in found.what


def test_a_pod_whose_size_is_known_needs_no_report() -> None:
    known = {"host_memory": 64, "host_memory_source": "command-line"}
    assert examine(with_pod(used=20, in_memory=None, evicted=0, load_seconds=None, **known)) == []


def test_one_slot_is_enough_for_one_adapter() -> None:
    assert examine(with_pods(replace(POD, slots=1, listed=1, used=1))) == []


def test_a_standby_is_well() -> None:
    reason = "another router leads: router-b"
    assert examine(with_readiness(ready=False, reason=reason)) == []


def test_a_few_requests_of_others_are_chance() -> None:
    assert examine(with_pod(strangers=1)) == []
    assert examine(with_pods(replace(POD, strangers=3, in_flight=100))) == []


def test_an_adapter_on_the_only_pod_is_well_placed() -> None:
    facts = replace(with_pods(POD), adapters=[Adapter("sql", "llama", listed=1, requests=2)])
    assert examine(facts) == []


def test_pods_whose_adapters_a_router_loads_may_list_different_ones() -> None:
    declared = with_adapter(state="loaded", wanted=2, listed=2)
    pods = (POD, replace(POD, name="models/vllm-1", fingerprint="b"))
    assert examine(replace(declared, pods=pods)) == []


def test_an_adapter_that_some_pods_fail_to_load_is_a_warning() -> None:
    failing = (("models/vllm-1", "no such file"),)
    finding = only(with_adapter(state="partly", wanted=2, listed=1, failing=failing))
    assert (finding.check, finding.severity) == ("adapter-loads-fail", Severity.WARNING)
    assert "sql on models/vllm-1: no such file." in finding.what


def test_pods_of_different_base_models_may_differ() -> None:
    other = replace(
        POD, name="models/qwen-0", base_models=("qwen",), slots=8, fingerprint="q", engine="sglang"
    )
    assert examine(with_pods(POD, other)) == []


def test_a_failed_task_that_runs_again_is_no_error() -> None:
    assert only(FLEETS["task-failures"][1]).severity is Severity.HINT


# How bad it is


def test_a_certificate_that_ends_soon_is_an_error() -> None:
    finding = only(with_metric(EXPIRY, HEALTHY.now + DAY))
    assert finding.severity is Severity.ERROR
    assert "in 1.0 days" in finding.what


def test_one_ejected_pod_of_many_is_a_warning() -> None:
    pods = [replace(POD, name=f"models/vllm-{number}") for number in range(9)]
    finding = only(with_pods(*pods, replace(POD, name="models/vllm-9", health="ejected", why="x")))
    assert finding.severity is Severity.WARNING
    assert "Excluded because they failed: 1 of 10 pods: models/vllm-9 (x)." in finding.what


def test_a_fleet_that_cannot_be_read_at_all_is_an_error_with_its_causes() -> None:
    facts = replace(
        with_pods(replace(POD, age_seconds=None)),
        metrics={
            "lora_router_scrape_failures_total": [
                ({"kind": "metrics", "pod": "models/vllm-0", "cause": "timeout"}, 4.0),
                ({"kind": "metrics", "pod": "models/gone", "cause": "refused"}, 4.0),
            ]
        },
    )
    finding = only(facts)
    assert (finding.check, finding.severity) == ("stale-pods", Severity.ERROR)
    assert "models/vllm-0 (timeout)" in finding.what


def test_an_unused_adapter_on_one_pod_is_a_hint() -> None:
    facts = replace(HEALTHY, adapters=[Adapter("sql", "llama", listed=1)])
    assert only(facts).severity is Severity.HINT


def test_only_a_few_names_are_listed() -> None:
    assert named([f"pod-{number}" for number in range(8)]) == (
        "pod-0, pod-1, pod-2, pod-3, pod-4 and 3 more"
    )
    assert named(["a"]) == "a"
    assert (counted(1, "pod"), counted(2000, "pod")) == ("1 pod", "2,000 pods")
