"""Allotment of free slots: what all routers compute alike from the same shares."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.slot_allotment import Claim, allotments_of

ROUTERS = ("router-0", "router-1", "router-2")


def claim(
    since: float,
    router: str,
    *,
    pod: int | None = None,
    heard_by: Sequence[str] = ROUTERS,
    fits: Sequence[int] | None = None,
    adapter: str | None = None,
    priority: int = 0,
) -> Claim:
    name = adapter or f"adapter-{since}"
    return Claim(since, router, name, pod, heard_by, fits, priority)


def test_a_lone_router_is_allotted_every_slot() -> None:
    allotments = allotments_of("router-0", ["router-0"], [2, 0, 1], [])
    assert allotments.allotted == [2, 0, 1]
    assert all(allotments.may_reuse)


def test_the_claim_that_has_waited_longest_gets_the_last_slot() -> None:
    claims = [claim(5.0, "router-1"), claim(3.0, "router-2")]
    assert allotments_of("router-2", ROUTERS, [0, 1], claims).allotted == [0, 1]
    assert allotments_of("router-1", ROUTERS, [0, 1], claims).allotted == [0, 0]


def test_a_claim_waits_for_an_acknowledgement_of_the_router_that_would_have_the_slot() -> None:
    def allotted(*heard_by: str) -> list[int]:
        claims = [claim(1.0, "router-1", heard_by=heard_by)]
        return allotments_of("router-1", ROUTERS, [1], claims).allotted

    # The only slot of the first pod is allotted to the first router.
    assert allotted() == [0]
    assert allotted("router-2") == [0]
    assert allotted("router-0") == [1]


def test_a_claim_to_the_routers_own_slot_waits_for_no_acknowledgement() -> None:
    claims = [claim(1.0, "router-0", heard_by=())]
    assert allotments_of("router-0", ROUTERS, [1], claims).allotted == [1]


def test_a_claim_gets_the_pod_that_it_names_or_else_the_one_with_the_most_free_slots() -> None:
    def allotted(free: list[int]) -> list[int]:
        return allotments_of("router-2", ROUTERS, free, [claim(1.0, "router-2", pod=0)]).unclaimed

    assert allotted([1, 3, 2]) == [0, 3, 2]
    assert allotted([0, 3, 2]) == [0, 2, 2]


def test_a_router_reuses_what_it_frees_unless_a_claim_of_another_finds_no_slot() -> None:
    assert allotments_of("router-0", ROUTERS, [0], [claim(1.0, "router-1")]).may_reuse == [False]
    assert allotments_of("router-1", ROUTERS, [0], [claim(1.0, "router-1")]).may_reuse == [True]


def test_a_claim_gets_a_slot_of_a_pod_that_lists_the_adapter_or_none() -> None:
    mine = claim(1.0, "router-1", fits=[0, 1])
    assert allotments_of("router-1", ROUTERS, [0, 1, 4], [mine]).unclaimed == [0, 0, 4]

    full = allotments_of("router-0", ROUTERS, [0, 0, 4], [mine])
    assert full.unclaimed == [0, 0, 4]
    assert full.may_reuse == [False, False, True]


def test_a_pod_is_left_to_the_claim_that_has_waited_longest_for_it() -> None:
    claims = [claim(2.0, "router-0", fits=[1, 2]), claim(1.0, "router-1", fits=[0, 1])]
    assert allotments_of("router-0", ROUTERS, [0, 0, 0], claims).may_reuse == [False, False, True]
    assert allotments_of("router-1", ROUTERS, [0, 0, 0], claims).may_reuse == [True, True, False]


def test_a_claim_keeps_its_slot_when_the_pod_that_it_names_has_one_too() -> None:
    """Otherwise a router that has not heard of the second slot would take the first one as well."""
    first, second = claim(1.0, "router-1", pod=1), claim(2.0, "router-2")
    before = allotments_of("router-0", ROUTERS, [1, 0], [first, second]).places
    assert before == {"adapter-1.0": 0}
    after = allotments_of("router-0", ROUTERS, [1, 1], [first, second], before).places
    assert after == {"adapter-1.0": 0, "adapter-2.0": 1}


def test_a_claim_that_becomes_known_later_takes_the_slot_of_a_younger_one() -> None:
    """Otherwise two routers that hear of each other's claims would both keep the same slot."""
    older, younger = claim(1.0, "router-1"), claim(2.0, "router-2")
    before = allotments_of("router-2", ROUTERS, [1], [younger]).places
    assert before == {"adapter-2.0": 0}
    for router in ROUTERS:
        after = allotments_of(router, ROUTERS, [1], [older, younger], before)
        assert after.places == {"adapter-1.0": 0}
    spare = allotments_of("router-2", ROUTERS, [1, 1], [older, younger], before)
    assert spare.places == {"adapter-1.0": 1, "adapter-2.0": 0}


def test_a_claim_whose_slot_was_taken_gets_another_one() -> None:
    claims = [claim(1.0, "router-1")]
    assert allotments_of("router-0", ROUTERS, [0, 1], claims, {"adapter-1.0": 0}).places == {
        "adapter-1.0": 1
    }


def test_a_claim_of_a_higher_priority_is_served_before_older_ones() -> None:
    claims = [claim(1.0, "router-1"), claim(2.0, "router-2", priority=1)]
    assert allotments_of("router-2", ROUTERS, [1], claims).allotted == [1]
    assert allotments_of("router-1", ROUTERS, [1], claims).allotted == [0]
    assert allotments_of("router-1", ROUTERS, [0], claims).may_reuse == [False]


def test_claims_to_no_pods_at_all_are_no_fault() -> None:
    assert allotments_of("router-0", ROUTERS, [], [claim(1.0, "router-0")]).allotted == []
    claims = [claim(1.0, "router-0", fits=[])]
    assert allotments_of("router-0", ROUTERS, [3], claims).unclaimed == [3]


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=6),
    st.lists(
        st.tuples(
            st.floats(0, 10),
            st.sampled_from(ROUTERS),
            st.none() | st.integers(0, 5),
            st.none() | st.sets(st.integers(0, 5)),
        ),
        max_size=6,
    ),
    st.dictionaries(st.integers(0, 6), st.integers(0, 5)),
)
def test_no_slot_is_allotted_to_two_routers(
    free: list[int],
    waiting: list[tuple[float, str, int | None, set[int] | None]],
    kept: dict[int, int],
) -> None:
    claims = [
        claim(
            since,
            router,
            pod=pod if pod is None or pod < len(free) else None,
            fits=None if fits is None else [each for each in fits if each < len(free)],
            adapter=f"adapter-{number}",
        )
        for number, (since, router, pod, fits) in enumerate(waiting)
    ]
    before = {f"adapter-{number}": pod for number, pod in kept.items() if pod < len(free)}
    parts = [allotments_of(router, ROUTERS, free, claims, before) for router in ROUTERS]
    for pod, slots in enumerate(free):
        assert sum(part.allotted[pod] for part in parts) == slots
