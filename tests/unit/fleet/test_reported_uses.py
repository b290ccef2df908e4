"""What peers report of adapters that are not in flight, and what a router makes of it."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet import reported_uses
from lora_router.fleet.adapter_beliefs import AdapterBeliefs
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.idle_adapters import idle_on
from lora_router.fleet.peer_ledgers import LedgerShare, UsedShare
from lora_router.fleet.pod_metrics import LoraResidency
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.lora_placement import LoraPlacement
from tests.fleet import ManualClock, make_fleet, make_metrics, make_pod, state_of

EVERY = 0.1
ADAPTERS = [f"a-{number}" for number in range(8)]
SERVER = ("10.0.0.1:8000", "")


def some_fleet(pods: int = 1, *, slots: int = 2, adapters: list[str] = ADAPTERS) -> Fleet:
    fleet = make_fleet(pods, adapters=adapters, host_memory=64)
    for state in fleet:
        fleet.put_metrics(state, replace(make_metrics(max_lora=slots), running=0.0))
    return fleet


def beliefs_of(fleet: Fleet, pod: int = 1) -> AdapterBeliefs:
    return state_of(fleet, pod).beliefs


def use(fleet: Fleet, *adapters: str, pod: int = 1) -> None:
    for adapter in adapters:
        fleet.ledger.reserve(state_of(fleet, pod), adapter).release()


def share_of(fleet: Fleet, now: float, *, complete: bool = False) -> LedgerShare:
    share = fleet.report_to_peers("there", EVERY, {}, now)
    return replace(share, used={}, idle=fleet.idle_adapters(now, 1000)) if complete else share


def told(
    idle: dict[str, float], *, number: int = 1, server: tuple[str, str] = SERVER, router: str = "x"
) -> LedgerShare:
    """Return a share that says how many seconds ago adapters were used on the first pod."""
    uses = {"pod-1": UsedShare(server, idle)}
    return LedgerShare(router, number, EVERY, {}, {}, {}, idle=uses)


def order(fleet: Fleet, pod: int = 1) -> list[str]:
    return list(idle_on(beliefs_of(fleet, pod), 0.0, 1000))


# A router that joins


def test_a_router_that_joins_knows_what_is_loaded_where_and_which_was_used_last() -> None:
    there, here = some_fleet(2), some_fleet(2)
    use(there, "a-1", "a-2", "a-3")
    share_of(there, 5.0)
    use(there, "a-1")

    here.put_peer(share_of(there, 9.0, complete=True), 109.0)

    assert order(here) == ["a-2", "a-3", "a-1"]
    assert [beliefs_of(here).is_resident(name) for name in order(here)] == [False, True, True]
    assert beliefs_of(here).in_host_memory("a-2")
    assert not beliefs_of(here, 2).in_host_memory("a-1")


def test_a_router_that_joins_places_an_adapter_where_a_peer_used_it() -> None:
    there, here = some_fleet(40), some_fleet(40)
    for pod, adapter in ((7, "a-1"), (31, "a-2")):
        use(there, adapter, pod=pod)
    here.put_peer(share_of(there, 9.0, complete=True), 109.0)
    algorithm = LoraPlacement(AlgorithmOptions(rng=random.Random(1)))

    for adapter, name in (("a-1", "pod-7"), ("a-2", "pod-31")):
        request = InferenceRequest(adapter, adapter)
        pick = algorithm.pick(request, Candidates.of(here.serving(adapter).pods), 109.0)
        assert isinstance(pick, Pick)
        assert pick.pod.pod.name == name


def test_what_one_router_tells_of_another_one_reaches_the_third() -> None:
    first, second, third = some_fleet(), some_fleet(), some_fleet()
    use(first, "a-1")
    second.put_peer(share_of(first, 5.0, complete=True), 50.0)

    third.put_peer(share_of(second, 53.0, complete=True), 500.0)

    assert order(third) == ["a-1"]
    ages = third.idle_adapters(500.0, 1000)["pod-1"].adapters
    assert ages == {"a-1": 3.0}


def test_what_is_reported_before_the_pod_and_its_models_are_known_waits_for_them() -> None:
    here = Fleet()
    here.put_peer(told({"a-1": 3.0, "unknown": 1.0}), 50.0)
    here.upsert(make_pod(1))
    assert order(here) == []

    known = some_fleet()
    here.put_models(state_of(here, 1), state_of(known, 1).catalog)

    assert order(here) == ["a-1"]
    assert here.idle_adapters(51.0, 1000)["pod-1"].adapters == {"a-1": 4.0}


def test_what_is_reported_of_a_new_server_waits_for_it() -> None:
    here = some_fleet()
    models = state_of(here, 1).catalog
    here.remove("pod-1")
    here.put_peer(told({"a-1": 3.0}, server=("10.0.0.1:8000", "new")), 50.0)
    here.upsert(make_pod(1))
    here.put_models(state_of(here, 1), models)
    assert order(here) == []

    here.upsert(make_pod(1, uid="new"))
    here.put_models(state_of(here, 1), models)

    assert order(here) == ["a-1"]


@pytest.mark.slow
def test_what_waits_is_bounded_and_does_not_wait_for_ever() -> None:
    here = Fleet()
    uses = {f"pod-{n}": UsedShare(SERVER, {f"a-{m}": 1.0 for m in range(9)}) for n in range(9999)}
    here.put_peer(LedgerShare("x", 1, EVERY, {}, {}, {}, idle=uses), 50.0)
    waiting = here._reported_uses._waiting
    assert 10 * len(waiting) <= reported_uses._MAX_WAITING

    here.put_peer(told({"a-1": 1.0}, number=2), 70.0)
    assert list(waiting) == ["pod-1"]


# Adapters that come and go between two reports


def test_an_adapter_that_came_and_went_between_two_reports_is_known_to_peers() -> None:
    there, here = some_fleet(), some_fleet()
    here.put_peer(share_of(there, 1.0), 1.0)
    use(there, "a-1")

    share = share_of(there, 1.1)
    here.put_peer(share, 1.1)

    assert share.pods == {}
    assert list(share.used["pod-1"].adapters) == ["a-1"]
    assert beliefs_of(here).is_resident("a-1")
    assert share_of(there, 1.2).used == {}, "it is told once"
    assert share_of(here, 1.2).used == {}, "nobody repeats it"


def test_what_shares_have_in_flight_is_not_told_again_when_it_ends() -> None:
    there = some_fleet()
    request = there.ledger.reserve(state_of(there, 1), "a-1")
    share_of(there, 1.0)
    request.release()
    assert share_of(there, 1.1).used == {}


def test_what_a_scrape_showed_of_a_short_request_is_no_strangers_when_the_peer_reports_it() -> None:
    there, here = some_fleet(), some_fleet()
    here.put_peer(share_of(there, 1.0), 1.0)
    use(there, "a-1")
    here.put_metrics(state_of(here, 1), make_metrics(("a-1",), max_lora=2, scraped_at=1.05))
    assert beliefs_of(here).free_slots == 1

    here.put_peer(share_of(there, 1.1), 1.1)

    assert beliefs_of(here).free_slots == 2


# What a router knows better


def test_a_later_use_of_its_own_stands() -> None:
    here = some_fleet()
    use(here, "a-1")
    share_of(here, 49.0)
    use(here, "a-2")

    here.put_peer(told({"a-2": 40.0, "a-1": 30.0, "a-3": 20.0}), 50.0)

    assert order(here) == ["a-3", "a-1", "a-2"]


def test_the_same_told_again_changes_nothing() -> None:
    here = some_fleet()
    here.put_peer(told({"a-2": 30.0, "a-1": 20.0}), 50.0)
    uses = beliefs_of(here).last_uses
    heard: list[object] = []
    here.changes.shared.subscribe(heard.append)

    # Somewhat later, as if the report had been on its way for longer.
    here.put_peer(told({"a-2": 34.6, "a-1": 24.4}, number=2), 55.0)

    assert beliefs_of(here).last_uses is uses
    assert heard == []


def test_what_is_in_flight_keeps_its_place() -> None:
    here = some_fleet(slots=1)
    here.ledger.reserve(state_of(here, 1), "a-1")
    share_of(here, 40.0)
    here.put_peer(told({"a-1": 0.0, "a-2": 0.0}), 50.0)
    assert beliefs_of(here).is_resident("a-1")
    assert not beliefs_of(here).is_resident("a-2")


def test_what_the_server_reports_itself_is_believed_instead_and_not_reported() -> None:
    here = some_fleet()
    residency = LoraResidency(frozenset({"a-3"}), frozenset(), 2)
    metrics = replace(make_metrics(max_lora=2), residency=residency)
    here.put_metrics(state_of(here, 1), metrics)

    here.put_peer(told({"a-1": 1.0}), 50.0)

    assert beliefs_of(here).is_resident("a-3")
    assert not beliefs_of(here).in_host_memory("a-1")
    assert here.idle_adapters(50.0, 1000) == {}


def test_what_was_used_before_the_server_restarted_is_not_believed() -> None:
    here = some_fleet()
    started = replace(make_metrics(), running=0.0, started_at=1.0, scraped_at=40.0)
    here.put_metrics(state_of(here, 1), started)
    here.put_metrics(state_of(here, 1), replace(started, started_at=2.0, scraped_at=45.0))

    here.put_peer(told({"a-1": 10.0, "a-2": 2.0}), 50.0)

    assert order(here) == ["a-2"]


def test_nothing_applies_to_another_server_or_to_adapters_that_it_does_not_serve() -> None:
    here = some_fleet()
    here.put_peer(told({"a-1": 1.0}, server=("10.0.0.1:8000", "new")), 50.0)
    here.put_peer(told({"elsewhere": 1.0, "a-2": 1.0}, router="y"), 50.0)
    assert order(here) == ["a-2"]


# Peers that lie


def test_lists_that_follow_each_other_fast_are_ignored() -> None:
    here = some_fleet()
    for number, adapter in enumerate(ADAPTERS):
        here.put_peer(told({adapter: 5.0}, number=number + 1), 50.0 + number / 10)
    assert order(here) == ["a-0"]


def test_a_long_list_leaves_what_a_router_knows_itself() -> None:
    names = [f"a-{number}" for number in range(3000)]
    here = some_fleet(adapters=names)
    use(here, *names[:1000])
    share_of(here, 49.0)

    here.put_peer(told(dict.fromkeys(names, 0.5)), 50.0)

    known = beliefs_of(here).last_uses
    assert len(known) == 1024
    assert set(names[:1000]) < set(known)


names = st.sampled_from(["a-1", "a-2", "a-3", "unknown", ""])
steps = st.one_of(
    st.tuples(st.just("use"), names),
    st.tuples(st.just("idle"), st.dictionaries(names, st.floats(0.0, 1e9))),
    st.tuples(st.just("used"), st.dictionaries(names, st.just(0.0))),
    st.tuples(st.just("report"), st.none()),
    st.tuples(st.just("scrape"), st.frozensets(names)),
)


@given(st.lists(steps, max_size=20))
def test_the_order_of_last_use_stays_in_order_whatever_peers_say(
    some: list[tuple[str, object]],
) -> None:
    here = some_fleet()
    clock = ManualClock()
    state = state_of(here, 1)
    for number, (what, value) in enumerate(some, start=1):
        clock.time += 0.7
        share = LedgerShare("x", number, EVERY, {}, {}, {})
        match what, value:
            case "use", str(adapter):
                use(here, adapter)
            case "idle", dict(ages):
                here.put_peer(replace(share, idle={"pod-1": UsedShare(SERVER, ages)}), clock.time)
            case "used", dict(ages):
                here.put_peer(replace(share, used={"pod-1": UsedShare(SERVER, ages)}), clock.time)
            case "scrape", frozenset(active):
                here.put_metrics(state, make_metrics(active, max_lora=2, scraped_at=clock.time))
            case _:
                share_of(here, clock.time)
        if what == "use":
            assert list(state.beliefs.last_uses)[-1] == value
    share_of(here, clock.time)
    times = list(state.beliefs.last_uses.values())
    assert times == sorted(times)
    assert all(at <= clock.time for at in times)
    seen = len(state.beliefs.active)
    assert sum(map(state.beliefs.is_resident, state.beliefs.last_uses)) <= max(2, seen)
