"""In a large fleet, the pods that have room are found without a look at each pod."""

import random
from collections.abc import Collection
from dataclasses import replace

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.candidates import Candidates
from lora_router.routing.overload import Overload
from lora_router.routing.pod_room import PodRoom
from tests.fleet import ManualClock, make_fleet, make_metrics, state_of

PODS = 60


class CountingRoom(PodRoom):
    """Counts the looks at pods."""

    looks = 0

    def is_at_limit(self, pod: PodView, stretch: float = 1.0) -> bool:
        self.looks += 1
        return super().is_at_limit(pod, stretch)


def following(fleet: Fleet, overload: Overload, clock: ManualClock | None = None) -> CountingRoom:
    room = CountingRoom(overload, clock or ManualClock())

    def pods_changed(states: Collection[PodState]) -> None:
        room.pods_changed(states, [each for each in states if fleet.get(each.pod.name) is not each])

    fleet.changes.pods.subscribe(pods_changed)
    fleet.changes.scraped.subscribe(room.scraped)
    return room


def answering(
    room: PodRoom, candidates: Candidates, now: float = 0.0, *, queued_too: bool = True
) -> Candidates | None:
    index = candidates.fleet_index
    if index is None:
        return room.with_room(candidates, now, queued_too=queued_too)
    return candidates.with_room(room.roomy(index, queued_too=queued_too))


def scraped(now: float, *, waits: bool) -> PodMetrics:
    metrics = replace(make_metrics(max_lora=4), scraped_at=now, running=2.0)
    return replace(metrics, waiting=float(waits), deferred=0.0)


def having_room(candidates: Candidates | None) -> set[PodView]:
    if candidates is None:
        return set()
    looked_at = candidates.shortlist(None, random.Random(1))
    return {pod for pod in candidates if pod in candidates.in_order("any")} | set(looked_at)


@pytest.mark.slow
def test_after_any_change_they_are_those_that_a_look_at_each_finds() -> None:
    fleet = make_fleet(PODS)
    clock = ManualClock()
    room = following(fleet, Overload(sheds=True, max_requests_per_pod=4), clock)
    rng = random.Random(1)
    open_requests = []
    for _ in range(700):
        clock.advance(rng.uniform(0.0, 0.2))
        now = clock.now()
        number = rng.randint(1, PODS)
        what = rng.random()
        if what < 0.5:
            open_requests.append(fleet.ledger.reserve(state_of(fleet, number), None))
        elif what < 0.7 and open_requests:
            open_requests.pop(rng.randrange(len(open_requests))).release()
        elif what < 0.95:
            fleet.put_metrics(state_of(fleet, number), scraped(now, waits=rng.random() < 0.7))
        else:
            ready = state_of(fleet, number).pod.ready
            fleet.upsert(replace(state_of(fleet, number).pod, ready=not ready))
        everyone = Candidates.of(fleet.ready())
        for queued_too in (True, False):
            each = room.with_room(everyone, now, queued_too=queued_too)
            found = answering(room, everyone, now, queued_too=queued_too)
            assert having_room(found) == set(each or ())


def test_a_full_fleet_costs_no_look_at_its_pods() -> None:
    fleet = make_fleet(PODS)
    room = following(fleet, Overload(max_requests_per_pod=1))
    everyone = Candidates.of(fleet.ready())
    assert answering(room, everyone) is not None
    for state in fleet:
        fleet.ledger.reserve(state, None)
    assert answering(room, everyone) is None

    room.looks = 0
    assert answering(room, everyone) is None
    assert room.looks == 0


def test_pods_that_serve_the_model_and_have_room_are_found_among_others() -> None:
    fleet = make_fleet(PODS)
    room = following(fleet, Overload(max_requests_per_pod=1))
    fleet.update(replace(state_of(fleet, number).pod, models=("other",)) for number in range(1, 21))
    for number in range(21, PODS + 1):
        fleet.ledger.reserve(state_of(fleet, number), None)
    everyone = Candidates.of(fleet.serving("base").pods)
    assert answering(room, everyone) is None

    fleet.upsert(replace(state_of(fleet, 3).pod, models=("base",)))
    everyone = Candidates.of(fleet.serving("base").pods)
    found = answering(room, everyone)
    assert found is not None
    assert found.shortlist(None, random.Random(1)) == [state_of(fleet, 3)]
