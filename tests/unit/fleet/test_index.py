"""The index compared with the records that it indexes."""

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.ledger import Reservation
from lora_router.fleet.pod_state import PodState
from tests.examples import examples
from tests.fleet import make_metrics, make_pod

ADAPTERS = ("a", "b", "c", "d")
NUMBERS = st.integers(1, 5)
NAMES = st.sampled_from(ADAPTERS)


class Changes(RuleBasedStateMachine):
    """Everything that can happen to a fleet, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.reservations: list[Reservation] = []
        self.time = 0.0

    @rule(number=NUMBERS, ready=st.booleans(), uid=st.sampled_from("xy"))
    def pod_comes_or_changes(self, number: int, ready: bool, uid: str) -> None:
        self.fleet.upsert(make_pod(number, ready=ready, uid=uid))
        state = self.fleet.get(f"pod-{number}")
        assert state is not None
        self.fleet.put_models(state, [ServedModel("base"), *(ServedModel(a, "base") for a in "ab")])

    @rule(number=NUMBERS)
    def pod_goes(self, number: int) -> None:
        self.fleet.remove(f"pod-{number}")

    @rule(number=NUMBERS, adapter=st.none() | NAMES)
    def request_is_sent(self, number: int, adapter: str | None) -> None:
        state = self.fleet.get(f"pod-{number}")
        if state is not None:
            self.reservations.append(self.fleet.ledger.reserve(state, adapter))

    @rule(data=st.data())
    def request_ends(self, data: st.DataObject) -> None:
        if self.reservations:
            position = data.draw(st.integers(0, len(self.reservations) - 1))
            self.reservations.pop(position).release()

    @rule(
        number=NUMBERS,
        active=st.frozensets(NAMES, max_size=3),
        slots=st.none() | st.integers(1, 3),
        running=st.integers(0, 5),
        deferred=st.sampled_from((0.0, 1.0)),
    )
    def pod_is_scraped(
        self, number: int, active: frozenset[str], slots: int | None, running: int, deferred: float
    ) -> None:
        state = self.fleet.get(f"pod-{number}")
        if state is not None:
            self.time += 1.0
            metrics = make_metrics(active, max_lora=slots, scraped_at=self.time)
            self.fleet.put_metrics(state, replace(metrics, running=running, deferred=deferred))

    @rule(number=NUMBERS, seconds=st.sampled_from((1.0, 20.0)))
    def scrape_fails(self, number: int, seconds: float) -> None:
        state = self.fleet.get(f"pod-{number}")
        if state is not None:
            self.time += seconds
            self.fleet.put_scrape_failure(state, self.time)

    def teardown(self) -> None:
        self.the_index_agrees_with_the_records()

    @rule()
    def the_index_agrees_with_the_records(self) -> None:
        index, ready = self.fleet.index, self.fleet.ready()
        assert len(index.by_load) == len(ready)
        assert index.by_load.total == sum(pod.in_flight for pod in ready)
        rooms = {pod: pod.beliefs.free_slots for pod in ready}
        with_room = {pod for pod, room in rooms.items() if room is None or room > 0}
        assert {pod for pod in ready if pod in index.with_room} == with_room
        assert len(index.with_room) == len(with_room)
        assert index.free == sum(max(0, room) for room in rooms.values() if room is not None)
        assert index.slots == sum(pod.beliefs.slots or 0 for pod in ready)
        for adapter in ADAPTERS:
            running = {pod for pod in ready if runs(pod, adapter)}
            assert set(index.running(adapter)) == running
            assert running <= set(index.users(adapter)) <= set(ready)


def runs(pod: PodState, adapter: str) -> bool:
    return adapter in pod.in_flight_adapters or adapter in pod.beliefs.active


Changes.TestCase.settings = examples(60, steps=40)
TestChanges = Changes.TestCase
