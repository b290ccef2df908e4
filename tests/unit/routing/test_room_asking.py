"""Where pods may have no room, an algorithm answers about those that have, and is asked once."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodView
from lora_router.fleet.pod_work import TOKENS_A_SECOND
from lora_router.routing.algorithm import Algorithm, Hold, InferenceRequest, Pick
from lora_router.routing.answer_check import AlgorithmCaller
from lora_router.routing.candidates import FULL_LOOK, Candidates
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.routing.overload import NO_ROOM, Overload
from lora_router.routing.pod_room import HOME_STRETCH, PodRoom
from lora_router.routing.room_asking import MOVE_SECONDS, RoomAsking
from tests.fleet import ManualClock, make_fleet, make_metrics, state_of
from tests.unit.routing.choices import NOW, SQL, in_flight, options
from tests.unit.routing.prompts import CHUNK, asks, has_seen

SMALL, LARGE = 4, FULL_LOOK + 8


class Counting:
    """``lora-placement``, which counts how often it is asked."""

    name = "counting"

    def __init__(self) -> None:
        self.asked = 0
        self._placement = LoraPlacement(options())

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick | Hold:
        self.asked += 1
        return self._placement.pick(request, candidates, now)


class FirstOfAll:
    """Looks at no pod."""

    name = "first"

    def pick(self, _request: InferenceRequest, candidates: Candidates, _now: float) -> Pick | Hold:
        return Pick(candidates[0], "first")


class Holding:
    """Holds each request."""

    name = "holding"

    def pick(self, _request: InferenceRequest, _candidates: Candidates, _now: float) -> Pick | Hold:
        return Hold("no-slot", 1.0)


def fleet_of(count: int) -> Fleet:
    fleet = make_fleet(count, adapters=("sql-lora",))
    for state in fleet:
        fleet.put_metrics(state, replace(make_metrics(max_lora=4), scraped_at=NOW))
    return fleet


def answer(
    fleet: Fleet,
    algorithm: Algorithm,
    request: InferenceRequest = SQL,
    candidates: Candidates | None = None,
    room: PodRoom | None = None,
) -> Pick | Hold:
    room = room or PodRoom(Overload(max_requests_per_pod=2), ManualClock())
    pods = candidates or Candidates.of(fleet.serving(request.model).pods)
    asking = RoomAsking(room, AlgorithmCaller(), algorithm, request, pods, NOW, queued_too=True)
    return asking.answer()


def pod_of(answer: Pick | Hold) -> PodView:
    assert isinstance(answer, Pick)
    return answer.pod


def test_in_a_large_fleet_it_is_asked_once_although_its_first_choice_is_full() -> None:
    for count, asked in ((SMALL, 2), (LARGE, 1)):
        fleet, algorithm = fleet_of(count), Counting()
        in_flight(fleet, 1, "sql-lora", times=2)
        assert pod_of(answer(fleet, algorithm)) is not state_of(fleet, 1)
        assert algorithm.asked == asked


@pytest.mark.parametrize("count", [SMALL, LARGE])
class TestOfAnySize:
    def test_an_algorithm_that_looks_at_no_pod_gets_those_that_have_room(self, count: int) -> None:
        fleet = fleet_of(count)
        in_flight(fleet, 1, None, times=2)
        assert pod_of(answer(fleet, FirstOfAll())) is state_of(fleet, 2)

    def test_requests_wait_for_room_if_no_pod_has_any(self, count: int) -> None:
        fleet = fleet_of(count)
        for number in range(1, count + 1):
            in_flight(fleet, number, None, times=2)
        held = answer(fleet, Counting())
        assert isinstance(held, Hold)
        assert held.reason == NO_ROOM

    @pytest.mark.parametrize("full", [0, 1, 2])
    def test_what_the_algorithm_holds_waits_for_what_it_says(self, count: int, full: int) -> None:
        fleet = fleet_of(count)
        for number in range(1, full * count // 2 + 1):
            in_flight(fleet, number, None, times=2)
        held = answer(fleet, Holding())
        assert isinstance(held, Hold)
        assert held.reason == "no-slot"

    def test_requests_that_could_join_a_full_pod_wait_for_room(self, count: int) -> None:
        fleet = fleet_of(count)
        in_flight(fleet, 1, "sql-lora", times=2)
        for number in range(2, count + 1):
            in_flight(fleet, number, f"other-{number}")
            metrics = replace(make_metrics(max_lora=1), scraped_at=NOW)
            fleet.put_metrics(state_of(fleet, number), metrics)
        held = answer(fleet, Counting())
        assert isinstance(held, Hold)
        assert held.reason == NO_ROOM


def test_what_was_looked_at_is_noted_where_the_fleet_is_large() -> None:
    fleet = fleet_of(LARGE)
    for number in range(1, LARGE):
        in_flight(fleet, number, None, times=2)
    pods = Candidates.of(fleet.serving("base").pods)
    last = state_of(fleet, LARGE)
    assert pod_of(answer(fleet, Counting(), candidates=pods)) is last
    assert list(pods.inspected) == [last]


RAN = 4
"""Requests that ran on the pod on which others waited."""
MUCH = range(int(MOVE_SECONDS * TOKENS_A_SECOND) // CHUNK + 2)
"""Chunks that take a pod a while."""
LITTLE = range(3)


def waits(fleet: Fleet, room: PodRoom, *scrapes: float) -> None:
    """Let scrapes at some times show requests that wait on the first pod."""
    first = state_of(fleet, 1)
    for scraped_at in scrapes:
        metrics = replace(make_metrics(max_lora=4), scraped_at=scraped_at)
        fleet.put_metrics(first, replace(metrics, running=float(RAN), waiting=2.0))
        room.scraped((first,))


@pytest.mark.parametrize("count", [SMALL, LARGE])
class TestAConversation:
    """Its prompt begins in the cache of the first pod, on which requests wait."""

    def fleet(self, count: int, chunks: Iterable[int], requests: int = RAN) -> Fleet:
        fleet = fleet_of(count)
        has_seen(fleet, 1, *chunks, model="base")
        in_flight(fleet, 1, None, times=requests)
        return fleet

    def answer(
        self, fleet: Fleet, chunks: Iterable[int], overload: Overload | None = None
    ) -> Pick | Hold:
        room = PodRoom(overload or Overload(sheds=True), ManualClock())
        waits(fleet, room, NOW - 2.0, NOW)
        pods = Candidates.of(fleet.serving("base").pods, prefixes=fleet.prefixes)
        request = asks(*chunks, 99, model="base")
        return answer(fleet, LoraPlacement(options()), request, pods, room)

    def test_stays_there(self, count: int) -> None:
        fleet = self.fleet(count, MUCH)
        assert pod_of(self.answer(fleet, MUCH)) is state_of(fleet, 1)

    def test_moves_if_little_of_it_is_processed_again(self, count: int) -> None:
        fleet = self.fleet(count, LITTLE)
        assert pod_of(self.answer(fleet, LITTLE)) is not state_of(fleet, 1)

    def test_moves_if_far_too_many_wait_there(self, count: int) -> None:
        fleet = self.fleet(count, MUCH, requests=int(HOME_STRETCH * RAN))
        assert pod_of(self.answer(fleet, MUCH)) is not state_of(fleet, 1)

    def test_moves_if_the_pod_has_as_many_requests_as_the_settings_allow(self, count: int) -> None:
        fleet = self.fleet(count, MUCH)
        overload = Overload(sheds=True, max_requests_per_pod=RAN)
        assert pod_of(self.answer(fleet, MUCH, overload)) is not state_of(fleet, 1)

    def test_stays_if_all_pods_are_full(self, count: int) -> None:
        fleet = self.fleet(count, MUCH)
        for number in range(2, count + 1):
            in_flight(fleet, number, None, times=3 * RAN)
        overload = Overload(sheds=True, max_requests_per_pod=3 * RAN)
        assert pod_of(self.answer(fleet, MUCH, overload)) is state_of(fleet, 1)

    def test_waits_for_its_pod_if_all_have_as_many_requests_as_they_may(self, count: int) -> None:
        fleet = self.fleet(count, MUCH)
        for number in range(2, count + 1):
            in_flight(fleet, number, None, times=RAN)
        held = self.answer(fleet, MUCH, Overload(sheds=True, max_requests_per_pod=RAN))
        assert isinstance(held, Hold)
        assert held.home is state_of(fleet, 1)


@pytest.mark.parametrize("count", [SMALL, LARGE])
class TestAnAdapter:
    """It runs on the first pod, on which requests wait."""

    def fleet(self, count: int, requests: int = RAN) -> Fleet:
        fleet = fleet_of(count)
        in_flight(fleet, 1, "sql-lora")
        in_flight(fleet, 1, None, times=requests - 1)
        return fleet

    def answer(self, fleet: Fleet, overload: Overload | None = None) -> Pick | Hold:
        room = PodRoom(overload or Overload(sheds=True), ManualClock())
        waits(fleet, room, NOW - 2.0, NOW)
        pods = Candidates.of(fleet.serving("sql-lora").pods)
        return answer(fleet, LoraPlacement(options()), SQL, pods, room)

    def test_stays_there_if_the_others_load_it_from_disk(self, count: int) -> None:
        fleet = self.fleet(count)
        assert pod_of(self.answer(fleet)) is state_of(fleet, 1)

    def test_moves_if_others_have_it_too(self, count: int) -> None:
        fleet = self.fleet(count)
        for number in range(2, count + 1):
            fleet.ledger.reserve(state_of(fleet, number), "sql-lora").release()
        assert pod_of(self.answer(fleet)) is not state_of(fleet, 1)

    def test_moves_if_so_many_requests_share_the_load_that_each_saves_little(
        self, count: int
    ) -> None:
        fleet = self.fleet(count)
        for state in fleet:
            state.beliefs.load_seconds = (0.0, 0.08, 2.0 * MOVE_SECONDS)
        in_flight(fleet, 1, "sql-lora", times=RAN)
        assert pod_of(self.answer(fleet)) is not state_of(fleet, 1)

    def test_moves_if_far_too_many_wait_there(self, count: int) -> None:
        fleet = self.fleet(count, requests=int(HOME_STRETCH * RAN))
        assert pod_of(self.answer(fleet)) is not state_of(fleet, 1)

    def test_moves_if_the_pod_has_as_many_requests_as_the_settings_allow(self, count: int) -> None:
        fleet = self.fleet(count)
        overload = Overload(sheds=True, max_requests_per_pod=RAN)
        assert pod_of(self.answer(fleet, overload)) is not state_of(fleet, 1)


def test_a_pod_that_loads_an_adapter_is_not_full_because_requests_wait_for_the_load() -> None:
    fleet, room = fleet_of(SMALL), PodRoom(Overload(sheds=True), ManualClock())
    in_flight(fleet, 1, None, times=RAN)
    pod = state_of(fleet, 1)
    pod.work.begin_load(5.0, NOW)
    waits(fleet, room, NOW, NOW + 2.0, NOW + 4.0, NOW + 6.0)
    assert not room.is_full(pod, NOW + 6.0, queued_too=True)

    waits(fleet, room, NOW + 8.0)
    assert room.is_full(pod, NOW + 8.0, queued_too=True)
