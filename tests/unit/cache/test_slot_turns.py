"""Sharing out free slots: what all routers work out alike from the same words."""

from hypothesis import given
from hypothesis import strategies as st

from lora_router.cache.slot_turns import Claim, turns_of

ROUTERS = ("router-0", "router-1", "router-2")


def claim(since: float, router: str, *, settled: bool = True) -> Claim:
    return Claim(since, router, f"adapter-{since}", settled)


def test_a_lone_router_has_all() -> None:
    turns = turns_of("router-0", ["router-0"], [2, 0, 1], [])
    assert turns.allotted == [2, 0, 1]
    assert turns.may_reuse


def test_who_has_waited_longest_gets_the_last_slot() -> None:
    claims = [claim(5.0, "router-1"), claim(3.0, "router-2")]
    assert turns_of("router-2", ROUTERS, [0, 1], claims).allotted == [0, 1]
    assert turns_of("router-1", ROUTERS, [0, 1], claims).allotted == [0, 0]


def test_a_claim_that_not_all_have_heard_of_is_not_taken_yet() -> None:
    assert turns_of("router-1", ROUTERS, [1], [claim(1.0, "router-1", settled=False)])[0] == [0]


def test_a_router_reuses_what_it_frees_unless_another_waits_in_vain() -> None:
    assert not turns_of("router-0", ROUTERS, [0], [claim(1.0, "router-1")]).may_reuse
    assert turns_of("router-1", ROUTERS, [0], [claim(1.0, "router-1")]).may_reuse


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=6),
    st.lists(st.tuples(st.floats(0, 10), st.sampled_from(ROUTERS)), max_size=6),
)
def test_no_slot_is_given_to_two_routers(free: list[int], waiting: list[tuple[float, str]]) -> None:
    claims = [claim(since, router) for since, router in waiting]
    parts = [turns_of(router, ROUTERS, free, claims) for router in ROUTERS]
    for pod, slots in enumerate(free):
        assert sum(part.allotted[pod] for part in parts) == slots
