"""Which pod made an ID."""

import pytest

from lora_router.fleet.made_ids import ENTRY_BYTES, MadeIds, is_id
from tests.fleet import make_fleet, state_of

FLEET = make_fleet(2)
FIRST, SECOND = state_of(FLEET, 1), state_of(FLEET, 2)


def test_an_id_leads_to_the_server_of_the_pod_that_made_it() -> None:
    ids = MadeIds()
    ids.learn("resp_1", FIRST)
    ids.learn("file-2", SECOND)

    assert ids.find("resp_1") == ("10.0.0.1:8000", "")
    assert ids.find("file-2") == ("10.0.0.2:8000", "")
    assert ids.find("resp_3") is None


def test_the_ids_that_were_used_least_recently_leave() -> None:
    ids = MadeIds(max_bytes=3 * (ENTRY_BYTES + 1))
    for name in "abc":
        ids.learn(name, FIRST)

    ids.find("a")
    ids.learn("d", FIRST)

    assert [name for name in "abcd" if ids.find(name)] == ["a", "c", "d"]
    assert ids.bytes == 3 * (ENTRY_BYTES + 1)


def test_a_router_without_peers_has_all_the_memory_for_its_own_ids() -> None:
    ids = MadeIds()
    ids.limit(10 * (ENTRY_BYTES + 1))
    for number in range(20):
        ids.learn(chr(97 + number), FIRST)
    alone = len(ids)

    ids.share()
    ids.learn("x", FIRST)

    assert (alone, len(ids)) == (10, 5)


def test_memory_does_not_grow_when_an_id_is_learned_again() -> None:
    ids = MadeIds()
    for _ in range(10):
        ids.learn("a", FIRST)

    assert (len(ids), ids.bytes) == (1, ENTRY_BYTES + 1)


def test_a_peer_adds_ids_and_changes_none() -> None:
    ids = MadeIds()
    ids.share()
    ids.learn("mine", FIRST)

    ids.hear("mine", SECOND)
    ids.hear("new", SECOND)

    assert ids.find("mine") == ("10.0.0.1:8000", "")
    assert ids.find("new") == ("10.0.0.2:8000", "")


def test_only_what_this_router_learns_is_told() -> None:
    told: list[str] = []
    ids = MadeIds()
    ids.on_learned = lambda name, _state: told.append(name)

    ids.learn("a", FIRST)
    ids.learn("a", FIRST)
    ids.hear("b", FIRST)
    ids.learn("a", SECOND)

    assert told == ["a", "a"]


def test_a_peer_does_not_displace_what_this_router_learned() -> None:
    ids = MadeIds(max_bytes=20 * ENTRY_BYTES)
    ids.share()
    ids.learn("mine", FIRST)

    for number in range(100):
        ids.hear(f"theirs-{number}", SECOND)

    assert ids.find("mine")
    assert ids.find("theirs-99")
    assert ids.bytes <= 20 * ENTRY_BYTES


def test_the_newest_are_those_that_were_used_last() -> None:
    ids = MadeIds()
    ids.share()
    for name in "abc":
        ids.learn(name, FIRST)
    ids.hear("d", SECOND)
    ids.find("a")

    assert [name for name, _ in ids.newest(2)] == ["a", "c", "d"]


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", "ü", "a\x00"])
def test_other_texts_are_no_ids(name: str) -> None:
    ids = MadeIds()
    ids.learn(name, FIRST)
    ids.hear(name, FIRST)

    assert not is_id(name)
    assert len(ids) == 0
