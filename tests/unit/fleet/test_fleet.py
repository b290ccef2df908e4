"""The fleet: pods, the models that they serve, snapshots, and changes."""

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.lora_spec import LoraSpec
from tests.fleet import make_fleet, make_metrics, make_pod, state_of


def names(fleet: Fleet, model: str) -> list[str]:
    return [state.pod.name for state in fleet.serving(model).pods]


def test_an_unready_pod_serves_nothing_and_keeps_its_state() -> None:
    fleet = make_fleet(1)
    metrics = make_metrics(["sql-lora"])
    fleet.put_metrics(state_of(fleet, 1), metrics)

    fleet.upsert(make_pod(1, ready=False))
    assert names(fleet, "base") == []
    fleet.upsert(make_pod(1))

    assert names(fleet, "base") == ["pod-1"]
    assert state_of(fleet, 1).metrics is metrics


def test_a_new_address_is_a_new_server() -> None:
    fleet = make_fleet(1)
    fleet.put_metrics(state_of(fleet, 1), make_metrics())

    fleet.upsert(make_pod(1, address="10.0.0.99:8000"))

    assert state_of(fleet, 1).metrics is None
    assert not state_of(fleet, 1).models_known


def test_a_full_list_removes_pods_that_are_not_in_it() -> None:
    fleet = make_fleet(3)

    fleet.replace([make_pod(2), make_pod(4)])

    assert sorted(state.pod.name for state in fleet) == ["pod-2", "pod-4"]
    assert len(fleet) == 2


def test_the_fleet_is_synced_from_the_first_list_of_discovery_on() -> None:
    fleet = Fleet()
    fleet.upsert(make_pod(1))
    assert not fleet.synced

    fleet.replace([])

    assert fleet.synced


def test_models_named_by_discovery_need_no_request_to_the_pod() -> None:
    fleet = Fleet()
    fleet.replace([make_pod(1, models=("base", "a", "b"))])

    assert state_of(fleet, 1).models_known
    assert fleet.serving("a").is_adapter
    assert state_of(fleet, 1).adapters == {"a": "base", "b": "base"}


def test_when_discovery_stops_naming_models_they_are_unknown_until_asked() -> None:
    fleet = Fleet()
    fleet.replace([make_pod(1, models=("base",))])

    fleet.replace([make_pod(1)])

    assert not state_of(fleet, 1).models_known


def test_a_failed_scrape_keeps_the_snapshot_and_a_good_one_ends_the_count() -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)
    fleet.put_metrics(state, make_metrics(scraped_at=5.0))

    fleet.put_scrape_failure(state, 6.0)
    fleet.put_scrape_failure(state, 7.0)
    assert state.scrape_failures == 2
    assert state.metrics is not None

    fleet.put_metrics(state, make_metrics(scraped_at=6.0))
    assert state.scrape_failures == 0


def test_scrapes_that_could_not_reach_the_pod_are_counted_while_they_follow_each_other() -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)

    fleet.put_scrape_failure(state, 1.0, unreachable=True)
    fleet.put_scrape_failure(state, 2.0, unreachable=True)
    assert (state.scrape_failures, state.unreachable_scrapes) == (2, 2)

    fleet.put_scrape_failure(state, 3.0, unreachable=False)
    assert (state.scrape_failures, state.unreachable_scrapes) == (3, 0)

    fleet.put_scrape_failure(state, 4.0, unreachable=True)
    fleet.put_metrics(state, make_metrics(scraped_at=5.0))
    assert (state.scrape_failures, state.unreachable_scrapes) == (0, 0)


def test_a_snapshot_is_fresh_up_to_its_largest_age() -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)
    assert state.fresh_metrics(0.0, 15.0) is None
    fleet.put_metrics(state, make_metrics(scraped_at=100.0))

    assert state.fresh_metrics(115.0, 15.0) is not None
    assert state.fresh_metrics(115.1, 15.0) is None


def test_listeners_are_called_for_changes_and_not_for_repetitions() -> None:
    fleet = make_fleet(1)
    heard: list[str] = []
    fleet.changes.pods.subscribe(lambda _changed: heard.append("pods"))
    fleet.changes.scraped.subscribe(lambda states: heard.extend(s.pod.name for s in states))
    models = [ServedModel("base"), ServedModel("new", "base")]

    fleet.put_models(state_of(fleet, 1), models)
    fleet.put_models(state_of(fleet, 1), models)
    fleet.remove("nobody")
    assert heard == ["pods"]

    fleet.put_metrics(state_of(fleet, 1), make_metrics())
    fleet.remove("pod-1")
    assert heard == ["pods", "pod-1", "pods"]


def test_states_show_what_they_are() -> None:
    assert repr(state_of(make_fleet(1), 1)) == "<PodState pod-1 10.0.0.1:8000 in_flight=0>"


def test_a_new_pod_is_assumed_to_have_as_many_slots_as_others_until_it_reports() -> None:
    fleet = make_fleet(1)
    fleet.put_metrics(state_of(fleet, 1), make_metrics(max_lora=4))
    fleet.upsert(make_pod(2))
    pod = state_of(fleet, 2)
    before = pod.beliefs.slots
    assert before is None, "its base model is not known"
    fleet.put_models(pod, state_of(fleet, 1).catalog)
    assert (pod.beliefs.slots, pod.beliefs.free_slots) == (4, 4)

    fleet.put_metrics(pod, make_metrics(max_lora=8))
    assert pod.beliefs.slots == 8


def test_a_new_pod_is_not_assumed_to_have_as_many_slots_as_those_of_another_base_model() -> None:
    fleet = make_fleet(2)
    fleet.put_models(state_of(fleet, 2), [ServedModel("other")])
    fleet.put_metrics(state_of(fleet, 1), make_metrics(max_lora=4))
    fleet.put_metrics(state_of(fleet, 2), make_metrics(max_lora=16))
    fleet.upsert(make_pod(3, base_model="base"))
    fleet.upsert(make_pod(4, models=("other",)))
    fleet.upsert(make_pod(5, models=("third",)))
    slots = [state_of(fleet, number).beliefs.slots for number in (3, 4, 5)]
    assert slots == [4, 16, None]

    fleet.put_models(state_of(fleet, 3), [ServedModel("other")])
    assert state_of(fleet, 3).beliefs.slots == 16, "the label was wrong"


def test_what_a_description_says_of_slots_is_no_assumption() -> None:
    fleet = make_fleet(1)
    fleet.put_metrics(state_of(fleet, 1), make_metrics(max_lora=4))
    fleet.upsert(make_pod(2, lora=LoraSpec(slots=2)))
    fleet.put_models(state_of(fleet, 2), state_of(fleet, 1).catalog)
    assert state_of(fleet, 2).beliefs.slots == 2
    assert state_of(fleet, 1).beliefs.slots == 4
