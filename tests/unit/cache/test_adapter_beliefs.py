"""What is believed of a pod's slots: from the ledger, from scrapes, and from what was before."""

from dataclasses import replace

from lora_router.cache.adapter_beliefs import AdapterBeliefs
from lora_router.cache.metrics import LoraResidency, PodMetrics
from tests.fleet import make_cache, make_metrics, state_of


def idle(max_lora: int = 2) -> PodMetrics:
    return replace(make_metrics(max_lora=max_lora), running=0.0)


def test_nothing_is_known_before_the_first_evidence() -> None:
    beliefs = AdapterBeliefs()
    assert beliefs.slots is None
    assert not beliefs.is_resident("a")
    assert not beliefs.was_used("a")


def test_the_adapters_used_last_are_resident_one_for_each_slot() -> None:
    cache = make_cache(1, adapters=("a", "b", "c"))
    state = state_of(cache, 1)
    cache.put_metrics(state, idle(max_lora=2))
    for adapter in ("a", "b", "c"):
        cache.ledger.reserve(state, adapter).release()

    assert [state.beliefs.is_resident(name) for name in ("a", "b", "c")] == [False, True, True]
    assert state.beliefs.was_used("a")

    # Used again, and so loaded again.
    cache.ledger.reserve(state, "a")
    assert [state.beliefs.is_resident(name) for name in ("a", "b", "c")] == [True, False, True]


def test_an_adapter_that_ends_later_was_used_later() -> None:
    cache = make_cache(1)
    state = state_of(cache, 1)
    cache.put_metrics(state, idle(max_lora=1))
    long = cache.ledger.reserve(state, "long")
    cache.ledger.reserve(state, "short").release()
    long.release()
    assert state.beliefs.is_resident("long")


def test_what_the_scrape_shows_beyond_the_ledger_is_of_others() -> None:
    cache = make_cache(1)
    state = state_of(cache, 1)
    cache.ledger.reserve(state, "ours")
    metrics = replace(make_metrics(("ours", "theirs")), running=3.0, waiting=2.0)
    cache.put_metrics(state, metrics)

    assert state.beliefs.foreign_adapters == {"theirs"}
    assert state.beliefs.foreign_requests == 4
    assert state.beliefs.was_used("theirs")


def test_the_end_of_our_own_request_is_not_taken_for_anothers() -> None:
    cache = make_cache(1)
    state = state_of(cache, 1)
    cache.ledger.reserve(state, "ours").release()
    cache.put_metrics(state, replace(make_metrics(("ours",)), running=1.0))
    assert state.beliefs.foreign_adapters == frozenset()

    # Still there a scrape later: somebody else's.
    cache.put_metrics(state, replace(make_metrics(("ours",)), running=1.0))
    assert state.beliefs.foreign_adapters == {"ours"}


def test_a_server_that_tells_residency_is_believed() -> None:
    cache = make_cache(1)
    state = state_of(cache, 1)
    cache.ledger.reserve(state, "used").release()
    loaded = LoraResidency(frozenset(("loaded",)), frozenset(), 3)
    cache.put_metrics(state, replace(idle(), lora=None, residency=loaded))

    assert state.beliefs.slots == 3
    assert state.beliefs.is_resident("loaded")
    assert not state.beliefs.is_resident("used")


def test_a_page_without_the_series_that_were_there_is_another_servers() -> None:
    cache = make_cache(1)
    state = state_of(cache, 1)
    cache.put_metrics(state, replace(make_metrics(("theirs",)), deferred=1.0))
    assert [state.beliefs.somebody_waits, state.beliefs.slots] == [True, 4]
    cache.ledger.reserve(state, "before").release()
    cache.ledger.reserve(state, "now")

    cache.put_metrics(state, PodMetrics(scraped_at=1.0, running=0.0, waiting=0.0))

    assert [state.beliefs.somebody_waits, state.beliefs.slots] == [False, None]
    assert state.beliefs.foreign_adapters == frozenset()
    assert not state.beliefs.was_used("before")
    assert state.beliefs.was_used("now")


def test_memory_of_use_is_bounded() -> None:
    beliefs = AdapterBeliefs()
    for number in range(3000):
        beliefs.reserved(f"adapter-{number}")
    assert not beliefs.was_used("adapter-0")
    assert beliefs.was_used("adapter-2999")
