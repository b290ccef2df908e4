"""A server that goes on under another name: a pod whose pool gets a second port."""

from collections.abc import Collection

from lora_router.endpoint_discovery.endpoint_list import EndpointList
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_state import PodState
from lora_router.peering.pod_keys import PodKeys, pod_key
from tests.fleet import ManualClock, make_fleet, make_metrics, make_pod, state_of


def server(name: str, port: int = 8000, uid: str = "1") -> Pod:
    return make_pod(1, name=name, address=f"10.0.0.1:{port}", uid=uid)


def pod_of(fleet: Fleet, name: str) -> PodState:
    state = fleet.get(name)
    assert state is not None
    return state


def before() -> Fleet:
    """Return a fleet of ``pod-1``, which has a list and a request."""
    fleet = make_fleet(1)
    fleet.upsert(server("pod-1"))
    fleet.put_models(state_of(fleet, 1), make_fleet(1, adapters=["a"]).get("pod-1").catalog)  # type: ignore[union-attr]
    fleet.put_metrics(state_of(fleet, 1), make_metrics(["a"]))
    return fleet


RANKS = (server("pod-1-rank-0"), server("pod-1-rank-1", 8001))


def test_what_is_known_of_it_stays() -> None:
    fleet = before()
    known = state_of(fleet, 1)
    request = fleet.ledger.reserve(known, "a")

    fleet.update(RANKS, gone=("pod-1",))

    first = pod_of(fleet, "pod-1-rank-0")
    assert first is known
    assert (first.in_flight, first.pod) == (1, RANKS[0])
    assert fleet.serving("a").pods == (first,)
    assert list(fleet.index.running("a")) == [first]
    assert [state.pod.name for state in fleet] == ["pod-1-rank-0", "pod-1-rank-1"]
    assert not pod_of(fleet, "pod-1-rank-1").models_known
    request.release()
    assert first.in_flight == 0


def test_also_if_the_old_name_is_removed_later() -> None:
    fleet = before()
    known = state_of(fleet, 1)

    fleet.update(RANKS)
    fleet.update((), gone=("pod-1",))

    assert [state.pod.name for state in fleet] == ["pod-1-rank-0", "pod-1-rank-1"]
    assert pod_of(fleet, "pod-1-rank-0") is known


def test_and_when_it_gets_its_old_name_again() -> None:
    fleet = before()
    known = state_of(fleet, 1)
    fleet.update(RANKS, gone=("pod-1",))

    fleet.update((server("pod-1"),), gone=("pod-1-rank-0", "pod-1-rank-1"))

    assert list(fleet) == [known]
    assert known.pod.name == "pod-1"


def test_servers_that_exchange_their_names_keep_what_is_known_of_them() -> None:
    fleet = before()
    fleet.update(RANKS, gone=("pod-1",))
    first, second = (pod_of(fleet, f"pod-1-rank-{rank}") for rank in (0, 1))

    fleet.update((server("pod-1-rank-0", 8001), server("pod-1-rank-1")))

    assert pod_of(fleet, "pod-1-rank-0") is second
    assert pod_of(fleet, "pod-1-rank-1") is first
    assert len(fleet) == 2


def test_another_pod_at_its_address_begins_anew() -> None:
    fleet = before()
    known = state_of(fleet, 1)

    fleet.update((server("pod-1-rank-0", uid="2"),), gone=("pod-1",))

    assert list(fleet) != [known]
    assert not pod_of(fleet, "pod-1-rank-0").models_known


def test_followers_learn_that_the_old_name_is_gone() -> None:
    fleet, clock = before(), ManualClock()
    fleet.synced = True
    keys, endpoints = PodKeys(fleet), EndpointList(fleet, clock)
    clock.advance(1.0)
    told: dict[str, PodState | None] = {}

    def note(states: Collection[PodState]) -> None:
        told.update((state.pod.name, fleet.get(state.pod.name)) for state in states)

    fleet.changes.pods.subscribe(note)

    fleet.update((RANKS[0],), gone=("pod-1",))
    clock.advance(1.0)

    first = pod_of(fleet, "pod-1-rank-0")
    assert told == {"pod-1": None, "pod-1-rank-0": first}
    assert keys.key(first) == pod_key(RANKS[0])
    assert keys.find(pod_key(RANKS[0])) is first
    assert keys.find(pod_key(server("pod-1"))) is None
    assert len(endpoints) == 1
    assert b"pod-1-rank-0" in endpoints.response
