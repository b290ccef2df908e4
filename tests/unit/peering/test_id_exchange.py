"""Routers tell each other which pods made which IDs."""

import pytest

from lora_router.fleet.made_ids import MadeIds
from lora_router.peering.id_exchange import IdExchange
from lora_router.peering.limits import MAX_IDS
from lora_router.peering.pb import peering_pb2 as pb
from lora_router.peering.pod_keys import pod_key
from tests.fleet import ManualClock, make_pod, state_of
from tests.unit.peering.broadcasting import MemoryServer, publishers
from tests.unit.peering.routers import DELAY, Router, mesh


def with_ids(*routers: Router) -> list[MadeIds]:
    made = [MadeIds() for _ in routers]
    for router, ids in zip(routers, made, strict=True):
        IdExchange(router.hub, router.fleet, ids)
    return made


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def tell(router: Router, *messages: pb.MadeIds) -> None:
    """Let a router send what it would not send by itself."""
    router.hub.send_to_all(pb.PeerMessage(made_ids=messages).SerializeToString())


def test_a_peer_knows_a_new_id_at_once(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    learned, heard = with_ids(first, second)

    learned.learn("resp_1", state_of(first.fleet, 2))
    clock.advance(2 * DELAY)

    assert heard.find("resp_1") == ("10.0.0.2:8000", "")


def test_many_new_ids_go_in_few_messages(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    learned, heard = with_ids(first, second)
    before = first.hub.counts.bytes_sent

    for number in range(500):
        learned.learn(f"resp_{number:08}", state_of(first.fleet, 1))
        clock.advance(0.001)
    clock.advance(0.1)

    assert len(heard) == 500
    # An ID has 13 characters. The reports of this time are about 5 KB.
    assert first.hub.counts.bytes_sent - before < 500 * 16 + 10_000
    assert not any(second.hub.counts.rejected.values())


def test_what_a_peer_told_is_not_told_on(clock: ManualClock) -> None:
    routers = mesh(clock, "a", "b", "c")
    made = with_ids(*routers)

    made[0].learn("resp_1", state_of(routers[0].fleet, 1))
    clock.advance(1)

    assert [len(ids) for ids in made] == [1, 1, 1]
    assert [router.hub.ids.told for router in routers] == [1, 0, 0]  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_router_that_joins_gets_the_ids_that_were_used_last(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    learned, _ = with_ids(first, second)
    for number in range(3_000):
        learned.learn(f"resp_{number}", state_of(first.fleet, 1))
    clock.advance(3)

    third = Router("c", clock)
    (known,) = with_ids(third)
    third.connect(first)
    clock.advance(6)

    assert known.find("resp_2999")
    assert known.find("resp_1000")
    assert not known.find("resp_0")


def test_ids_of_pods_that_are_gone_are_not_told(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    learned, heard = with_ids(first, second)
    gone = state_of(first.fleet, 1)
    first.fleet.remove("pod-1")

    learned.learn("resp_1", gone)
    clock.advance(1)

    assert len(heard) == 0


def test_ids_of_pods_that_a_router_does_not_know_are_ignored(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    _, heard = with_ids(first, second)

    tell(first, pb.MadeIds(pod=pod_key(make_pod(77)), ids=["resp_1"]))
    clock.advance(1)

    assert len(heard) == 0
    assert first.peers() == ["b"]


def test_what_is_no_id_is_ignored(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    _, heard = with_ids(first, second)

    tell(first, pb.MadeIds(pod=pod_key(make_pod(1)), ids=["", "x" * 5_000, "a\nb", "good"]))
    clock.advance(1)

    assert len(heard) == 1


def test_a_message_with_too_many_ids_ends_the_stream(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    _, heard = with_ids(first, second)

    tell(first, pb.MadeIds(pod=1, ids=["x"] * (2 * MAX_IDS)))
    clock.advance(2 * DELAY)

    assert second.hub.counts.rejected["too-large"] == 1
    assert len(heard) == 0


@pytest.mark.slow
def test_a_flood_of_ids_is_ignored_and_memory_stays_bounded(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    _, heard = with_ids(first, second)
    key = pod_key(make_pod(1))

    for number in range(60):
        tell(first, pb.MadeIds(pod=key, ids=[f"{number}-{each}" for each in range(2_000)]))
        clock.advance(0.02)

    assert len(heard) <= 60_000
    assert first.peers() == ["b"]


def test_where_all_listen_ids_are_published_once(clock: ManualClock) -> None:
    first, second, third = publishers(MemoryServer(clock), "a", "b", "c")
    learned, *heard = with_ids(first, second, third)

    learned.learn("resp_1", state_of(first.fleet, 2))
    clock.advance(0.1)

    assert [ids.find("resp_1") for ids in heard] == [("10.0.0.2:8000", "")] * 2


def test_a_router_without_ids_ignores_them(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    (learned,) = with_ids(first)

    learned.learn("resp_1", state_of(first.fleet, 1))
    clock.advance(1)

    assert second.peers() == ["a"]
    assert not any(second.hub.counts.rejected.values())
