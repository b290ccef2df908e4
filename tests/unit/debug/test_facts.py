"""What /debug/facts says for the doctor."""

import json

import pytest

from lora_router.debug.fact_rows import LATE_SECONDS, PODS_AT_ONCE, clock_of, pod_facts
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.lora_spec import COMMAND_LINE, LoraSpec
from lora_router.fleet.pod_metrics import LoraActivity, LoraResidency, PodMetrics
from tests.fleet import make_fleet, make_metrics, make_pod, state_of
from tests.unit.debug.debugged import WALL, Debugged, pages


@pytest.mark.asyncio
async def test_the_page_has_the_processes_and_the_pods() -> None:
    router = Debugged(make_fleet(2 * PODS_AT_ONCE + 1))
    router.routed("sql-lora")
    shown = await pages(router, Debugged(router.fleet, name="router-b")).show("facts", {})

    assert shown.status == 200
    document = json.loads(shown.body)
    assert [each["name"] for each in document["routers"]] == ["router-a", "router-b"]
    assert len(document["pods"]) == 2 * PODS_AT_ONCE + 1
    assert sum(pod.get("in_flight", 0) for pod in document["pods"]) == 1
    assert {pod["listed"] for pod in document["pods"]} == {1}


def test_pods_that_list_the_same_models_have_the_same_fingerprint() -> None:
    fleet = make_fleet(3)
    fleet.put_models(state_of(fleet, 3), [ServedModel("base"), ServedModel("other", "base")])
    one, two, three = (pod_facts(state, 0.0, WALL).fingerprint for state in fleet)
    assert one == two != three


def test_adapters_that_a_server_did_not_keep_are_counted() -> None:
    fleet = make_fleet(1, adapters=("a", "b", "c"))
    state = state_of(fleet, 1)
    for adapter in ("a", "b", "c"):
        fleet.ledger.reserve(state, adapter, None).release()
    facts = pod_facts(state, 1.0, WALL)
    assert (facts.used, facts.in_memory, facts.evicted) == (3, None, None)

    residency = LoraResidency(frozenset({"c"}), frozenset(), 1)
    fleet.put_metrics(state, PodMetrics(0.5, 0.0, 0.0, residency=residency))
    facts = pod_facts(state, 1.0, WALL)
    assert (facts.slots, facts.used, facts.in_memory, facts.evicted) == (1, 3, 1, 2)


def test_adapters_that_do_not_fit_into_host_memory_of_known_size_are_counted() -> None:
    fleet = Fleet()
    fleet.upsert(make_pod(1, lora=LoraSpec(slots=1, host_memory=2, source=COMMAND_LINE)))
    state = state_of(fleet, 1)
    for adapter in ("a", "b", "c"):
        fleet.ledger.reserve(state, adapter).release()

    facts = pod_facts(state, 1.0, WALL)
    assert (facts.used, facts.in_memory, facts.evicted) == (3, None, 1)
    assert (facts.host_memory, facts.host_memory_source) == (2, "command-line")


def test_an_adapter_that_was_unloaded_was_not_evicted() -> None:
    fleet = Fleet()
    fleet.upsert(make_pod(1, lora=LoraSpec(slots=1, host_memory=1, source=COMMAND_LINE)))
    state = state_of(fleet, 1)
    fleet.put_models(state, [ServedModel("base"), ServedModel("a", "base")])
    fleet.ledger.reserve(state, "a").release()
    assert pod_facts(state, 1.0, WALL).used == 1

    fleet.put_models(state, [ServedModel("base"), ServedModel("b", "base")])
    fleet.ledger.reserve(state, "b").release()
    facts = pod_facts(state, 2.0, WALL)
    assert (facts.used, facts.evicted) == (1, 0)


def test_requests_that_the_page_showed_besides_are_those_of_strangers() -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)
    fleet.ledger.reserve(state, None, None)
    metrics = make_metrics()
    fleet.put_metrics(state, PodMetrics(0.0, 3.0, 2.0, lora=metrics.lora))
    facts = pod_facts(state, 1.0, WALL)
    assert (facts.in_flight, facts.strangers, facts.age_seconds) == (1, 4, 1.0)


def activity(at: float, *, active: bool) -> LoraActivity:
    names = frozenset({"sql"}) if active else frozenset()
    return LoraActivity(4, names, names, at)


@pytest.mark.parametrize(
    ("metrics", "clock"),
    [
        (PodMetrics(10.0), None),
        (PodMetrics(10.0, started_at=WALL - 900), None),
        (PodMetrics(10.0, started_at=WALL + 910), 900.0),
        (PodMetrics(10.0, lora=activity(WALL + 70, active=False)), 60.0),
        (PodMetrics(10.0, lora=activity(WALL - 3600, active=False)), None),
        (PodMetrics(10.0, lora=activity(WALL + 10, active=True)), 0.0),
        (PodMetrics(10.0, lora=activity(WALL + 10 - LATE_SECONDS + 1, active=True)), 0.0),
        (PodMetrics(10.0, lora=activity(WALL - 110, active=True)), -120.0),
        (PodMetrics(10.0, lora=activity(0.0, active=True)), None),
    ],
)
def test_a_page_shows_how_far_off_a_clock_is(metrics: PodMetrics, clock: float | None) -> None:
    assert clock_of(metrics, WALL) == clock
