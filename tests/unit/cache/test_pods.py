"""The pod-metrics cache."""

from lora_router.cache.catalog import ServedModel
from lora_router.cache.pods import PodCache
from tests.fleet import make_cache, make_metrics, make_pod, state_of


def names(cache: PodCache, model: str) -> list[str]:
    return [state.pod.name for state in cache.serving(model).pods]


def test_a_model_leads_to_the_ready_pods_that_serve_it() -> None:
    cache = make_cache(2)
    cache.put_models(state_of(cache, 2), [ServedModel("base"), ServedModel("rare", "base")])

    assert names(cache, "base") == ["pod-1", "pod-2"]
    assert names(cache, "sql-lora") == ["pod-1"]
    assert names(cache, "rare") == ["pod-2"]
    assert names(cache, "nobody") == []


def test_adapters_are_told_from_base_models() -> None:
    cache = make_cache(1)

    assert cache.serving("sql-lora").is_adapter
    assert not cache.serving("base").is_adapter
    assert list(cache.models()) == ["base", "sql-lora"]


def test_an_unready_pod_serves_nothing_and_keeps_what_is_known_of_it() -> None:
    cache = make_cache(1)
    metrics = make_metrics(["sql-lora"])
    cache.put_metrics(state_of(cache, 1), metrics)

    cache.upsert(make_pod(1, ready=False))
    assert names(cache, "base") == []
    cache.upsert(make_pod(1))

    assert names(cache, "base") == ["pod-1"]
    assert state_of(cache, 1).metrics is metrics


def test_a_new_address_is_a_new_server() -> None:
    cache = make_cache(1)
    cache.put_metrics(state_of(cache, 1), make_metrics())

    cache.upsert(make_pod(1, address="10.0.0.99:8000"))

    assert state_of(cache, 1).metrics is None
    assert not state_of(cache, 1).models_known


def test_a_full_list_removes_who_is_not_in_it() -> None:
    cache = make_cache(3)

    cache.replace([make_pod(2), make_pod(4)])

    assert sorted(state.pod.name for state in cache) == ["pod-2", "pod-4"]
    assert len(cache) == 2


def test_the_cache_is_in_step_with_discovery_from_the_first_list_on() -> None:
    cache = PodCache()
    cache.upsert(make_pod(1))
    assert not cache.synced

    cache.replace([])

    assert cache.synced


def test_models_named_by_discovery_need_no_asking() -> None:
    cache = PodCache()
    cache.replace([make_pod(1, models=("base", "a", "b"))])

    assert state_of(cache, 1).models_known
    assert cache.serving("a").is_adapter
    assert state_of(cache, 1).adapters == {"a": "base", "b": "base"}


def test_when_discovery_stops_naming_models_they_are_unknown_until_asked() -> None:
    cache = PodCache()
    cache.replace([make_pod(1, models=("base",))])

    cache.replace([make_pod(1)])

    assert not state_of(cache, 1).models_known


def test_a_failed_scrape_keeps_the_snapshot_and_a_good_one_ends_the_count() -> None:
    cache = make_cache(1)
    state = state_of(cache, 1)
    cache.put_metrics(state, make_metrics(scraped_at=5.0))

    cache.put_scrape_failure(state, 6.0)
    cache.put_scrape_failure(state, 7.0)
    assert state.scrape_failures == 2
    assert state.metrics is not None

    cache.put_metrics(state, make_metrics(scraped_at=6.0))
    assert state.scrape_failures == 0


def test_a_snapshot_is_fresh_up_to_its_largest_age() -> None:
    cache = make_cache(1)
    state = state_of(cache, 1)
    assert state.fresh_metrics(0.0, 15.0) is None
    cache.put_metrics(state, make_metrics(scraped_at=100.0))

    assert state.fresh_metrics(115.0, 15.0) is not None
    assert state.fresh_metrics(115.1, 15.0) is None


def test_whoever_listens_hears_of_changes_and_not_of_repetitions() -> None:
    cache = make_cache(1)
    heard: list[str] = []
    cache.subscribe(lambda _changed: heard.append("pods"))
    cache.subscribe_metrics(lambda state: heard.append(state.pod.name))
    models = [ServedModel("base"), ServedModel("new", "base")]

    cache.put_models(state_of(cache, 1), models)
    cache.put_models(state_of(cache, 1), models)
    cache.remove("nobody")
    assert heard == ["pods"]

    cache.put_metrics(state_of(cache, 1), make_metrics())
    cache.remove("pod-1")
    assert heard == ["pods", "pod-1", "pods"]


def test_names_that_clients_invent_are_not_remembered() -> None:
    cache = make_cache(1)
    for number in range(1000):
        cache.serving(f"invented-{number}")

    assert list(cache._by_model) == []


def test_states_show_what_they_are() -> None:
    assert repr(state_of(make_cache(1), 1)) == "<PodState pod-1 10.0.0.1:8000 in_flight=0>"


def test_a_new_pod_is_taken_to_have_as_many_slots_as_others_until_it_says() -> None:
    cache = make_cache(1)
    cache.put_metrics(state_of(cache, 1), make_metrics(max_lora=4))
    cache.upsert(make_pod(2))
    assert state_of(cache, 2).beliefs.slots == 4

    cache.put_metrics(state_of(cache, 2), make_metrics(max_lora=8))
    assert state_of(cache, 2).beliefs.slots == 8
    assert state_of(cache, 1).beliefs.slots == 4
