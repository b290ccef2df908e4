"""What decisions keep of what they saw."""

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.adapters_in_flight import AdaptersInFlight
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.prompt import Prompt
from lora_router.routing.algorithm import (
    Algorithm,
    AlgorithmOptions,
    Hold,
    InferenceRequest,
    Pick,
)
from lora_router.routing.candidates import Candidates
from lora_router.routing.least_request import LeastRequest
from lora_router.routing.looks import MAX_LOOKS, MAX_SEEN, PLACES, Onlooker, Seen
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.routing.outcome import Routed
from lora_router.routing.refusal import Refused
from lora_router.routing.terms.prefix import Prefix
from tests.fleet import make_fleet, state_of
from tests.unit.routing.router import Router
from tests.unit.routing.test_explaining import ADAPTERS, costs, explain, full_fleet

AT_ANY_RATE = 3000
"""Decisions at one moment."""


class LastPod:
    """An algorithm that notes nothing."""

    name = "last-pod"

    def pick(self, _request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
        return Pick(candidates[-1], "last")


class AlwaysFull:
    """An algorithm that holds every request."""

    name = "always-full"

    def pick(self, _request: InferenceRequest, _candidates: Candidates, _now: float) -> Hold:
        return Hold("full", 10.0)


def observed(fleet: Fleet, **options: object) -> Router:
    router = Router(fleet, **options)  # type: ignore[arg-type]
    router.director.observe()
    return router


def recalled(router: Router, routed: Routed, place: str = "") -> Sequence[Seen]:
    pod = routed.reservation.state.pod.name
    return router.director.recollection.recall(routed.algorithm, routed.notes, pod, place)


def test_an_algorithm_that_notes_nothing_is_looked_at_at_any_rate() -> None:
    router = observed(make_fleet(2 * MAX_LOOKS), algorithm=LastPod())

    for _ in range(AT_ANY_RATE):
        looks = router.routed("sql-lora").looks
        assert looks.rows[0][0] is state_of(router.fleet, 2 * MAX_LOOKS)
        assert len(looks.rows) == MAX_LOOKS


@pytest.mark.slow
def test_what_an_algorithm_computed_is_kept_at_any_rate() -> None:
    router = observed(make_fleet(3))

    for _ in range(AT_ANY_RATE):
        routed = router.routed("sql-lora")
        assert {seen.pod for seen in recalled(router, routed)} == {"pod-1", "pod-2", "pod-3"}
        assert routed.looks.rows == ()


def test_what_a_pod_cost_does_not_change_after_the_decision() -> None:
    router = observed(make_fleet(2, adapters=("a", "b")))
    first = router.routed("a")
    picked, other = first.reservation.state, "pod-1"
    if picked.pod.name == other:
        other = "pod-2"

    before = recalled(router, first)
    for _ in range(5):
        router.routed("a")
        router.routed("b")

    assert recalled(router, first) == before
    costs = {seen.pod: sum(value for _, value in seen.terms) for seen in before}
    assert costs[picked.pod.name] <= costs[other]


@given(loads=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=2, max_size=6))
def test_the_price_of_each_load_that_was_compared_is_recalled(
    loads: list[tuple[int, int]],
) -> None:
    """Only prices are noted: whose they are follows from them."""
    fleet = full_fleet(len(loads), slots=3)
    for number, (requests, adapter) in enumerate(loads, start=1):
        for _ in range(requests):
            fleet.ledger.reserve(state_of(fleet, number), ADAPTERS[adapter])
        if adapter == 0:  # It is in a slot, and no request uses it.
            fleet.ledger.reserve(state_of(fleet, number), "fin").release()
    router = observed(fleet)
    live = costs(explain(router, "fin"))

    routed = router.routed("fin")

    prices = {seen.pod: dict(seen.terms).get("adapter-load") for seen in recalled(router, routed)}
    told = {pod: price for pod, price in prices.items() if price is not None}
    picked = routed.reservation.state.pod.name
    if routed.reason == "placed":
        assert picked in told
    for pod, price in told.items():
        assert price == pytest.approx(live[pod].terms["adapter-load"])


def test_what_pods_lacked_of_a_prompt_does_not_change_after_the_decision() -> None:
    fleet = make_fleet(2)
    first, second = state_of(fleet, 1), state_of(fleet, 2)
    names, ends = range(1, 9), range(64, 64 * 8 + 1, 64)
    fleet.prefixes.sent(first, "base", Prompt(ends[-1], names, ends))
    request = InferenceRequest("base", prompt=Prompt(ends[-1], names, ends))
    prefix = Prefix(request, Candidates.of((first, second), prefixes=fleet.prefixes), 1.0)

    prefix.consider((first, second))
    before = dict(prefix.costs)
    second.work.tokens_a_second *= 2

    assert before[first] == 0.0 < before[second]
    assert (prefix.costs, prefix.cost(second)) == (before, before[second])


def test_nothing_is_kept_where_nothing_is_recorded() -> None:
    routed = Router(make_fleet(3)).routed("sql-lora")

    assert (routed.notes, routed.looks.rows) == (None, ())


@pytest.mark.parametrize("made", [LoraPlacement, LeastRequest])
def test_an_algorithm_notes_nothing_where_notes_are_not_read_and_picks_the_same(
    made: Callable[[AlgorithmOptions], Algorithm],
) -> None:
    picks = {}
    for takes_notes in (True, False):
        options = AlgorithmOptions(rng=random.Random(1), takes_notes=takes_notes)
        router = observed(make_fleet(8, adapters=("a", "b", "c")), algorithm=made(options))
        routed = [router.routed(random.Random(number).choice("abc")) for number in range(50)]
        assert all((each.notes is not None) is takes_notes for each in routed)
        picks[takes_notes] = [(each.address, each.reason) for each in routed]

    assert picks[True] == picks[False]


def test_of_many_candidates_the_picked_one_and_the_cheapest_are_told() -> None:
    router = observed(make_fleet(20))
    for number in range(1, 21):
        for _ in range(number):
            router.fleet.ledger.reserve(state_of(router.fleet, number), None)

    seen = recalled(router, router.routed("base"))

    assert [each.pod for each in seen] == [f"pod-{number}" for number in range(1, MAX_SEEN + 1)]


def test_the_candidates_of_a_refused_request_are_seen() -> None:
    router = observed(make_fleet(2), algorithm=AlwaysFull(), max_hold_seconds=0.0)

    refused = router.send("sql-lora")

    assert isinstance(refused, Refused)
    assert [pod.pod.name for pod, *_ in refused.looks.rows] == ["pod-1", "pod-2"]


def test_where_the_adapter_was_is_told_of_the_picked_pod() -> None:
    fleet = make_fleet(2, adapters=("running", "cold"))
    router = observed(fleet, algorithm=LastPod())
    fleet.ledger.reserve(state_of(fleet, 2), "running")
    onlooker = Onlooker(AdaptersInFlight(fleet))

    places = [onlooker.at(Candidates.of(fleet), name).rows[1][3] for name in ("running", "cold")]

    assert [router.routed(name).place for name in ("running", "cold")] == [
        PLACES[place] for place in places
    ]
