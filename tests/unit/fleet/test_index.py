"""The index, and the pods in use, compared with the records."""

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from lora_router.fleet.answer import Answer
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import HEALTHY, HealthRules
from lora_router.fleet.ledger import Reservation
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.peer_ledgers import LedgerShare, UsedShare
from lora_router.fleet.pod_state import PodState
from tests.examples import examples
from tests.fleet import make_metrics, make_pod

ADAPTERS = ("a", "b", "c", "d")
UNREACHED = "upstream_reset_before_response_started{connection_failure}"
NUMBERS = st.integers(1, 5)
NAMES = st.sampled_from(ADAPTERS)


class Changes(RuleBasedStateMachine):
    """Everything that can happen to a fleet, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.outliers = Outliers(HealthRules(), lambda: self.time)
        self.outliers.on_probe = lambda _state: None
        self.fleet = Fleet(outliers=self.outliers)
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

    @rule(
        data=st.data(),
        status=st.sampled_from((200, 404, 500)),
        served_by=st.none() | NUMBERS,
        details=st.sampled_from(("", "via_upstream", UNREACHED, "overload")),
    )
    def request_is_answered(
        self, data: st.DataObject, status: int, served_by: int | None, details: str
    ) -> None:
        if self.reservations:
            request = data.draw(st.sampled_from(self.reservations))
            endpoint = "" if served_by is None else f"10.0.0.{served_by}:8000"
            request.answered(Answer(status, endpoint, details))

    @rule(number=NUMBERS)
    def pod_fails(self, number: int) -> None:
        state = self.fleet.get(f"pod-{number}")
        for _ in range(3 if state is not None else 0):
            assert state is not None
            request = self.fleet.ledger.reserve(state, None)
            request.answered(Answer(500))
            request.release()

    @rule(seconds=st.sampled_from((0.1, 2.0, 100.0)))
    def time_passes(self, seconds: float) -> None:
        self.time += seconds
        self.fleet.check_health()

    @rule(number=NUMBERS, good=st.booleans())
    def pod_is_probed(self, number: int, good: bool) -> None:
        state = self.fleet.get(f"pod-{number}")
        if state is not None:
            self.outliers.probed(state, good=good)

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

    @rule(number=NUMBERS, uid=st.sampled_from("xy"), names=st.frozensets(NAMES), idle=st.booleans())
    def peer_reports_uses(self, number: int, uid: str, names: frozenset[str], idle: bool) -> None:
        self.time += 1.0
        pod = make_pod(number)
        uses = {pod.name: UsedShare((pod.address, uid), dict.fromkeys(names, 0.5))}
        share = LedgerShare("peer", int(self.time), 0.1, {}, {}, {})
        self.fleet.put_peer(
            replace(share, idle=uses) if idle else replace(share, used=uses), self.time
        )
        state = self.fleet.get(pod.name)
        if state is not None and state.pod.uid == uid and not idle:
            used = names & state.adapters.keys()
            assert used <= state.beliefs.last_uses.keys()

    @rule(number=NUMBERS, seconds=st.sampled_from((1.0, 20.0)), unreachable=st.booleans())
    def scrape_fails(self, number: int, seconds: float, unreachable: bool) -> None:
        state = self.fleet.get(f"pod-{number}")
        if state is not None:
            self.time += seconds
            self.fleet.put_scrape_failure(state, self.time, unreachable=unreachable)

    def teardown(self) -> None:
        self.the_index_agrees_with_the_records()
        for request in self.reservations:
            request.release()
        assert self.fleet.ledger.total == 0
        for state in self.fleet:
            assert state.in_flight == 0
            assert not state.in_flight_adapters
            assert not state.health.unanswered

    @rule()
    def pods_are_used_by_their_health(self) -> None:
        ready, used = self.fleet.ready(), self.fleet.in_use()
        assert set(used) <= set(ready)
        assert bool(used) == bool(ready)
        assert len(ready) - len(used) <= max(1, len(ready) // 2)
        for state in set(ready) - set(used):
            assert state.health.state is not HEALTHY
        assert all(self.fleet.get(state.pod.name) is state for state in self.outliers.unwell)
        for model in ("base", *ADAPTERS):
            serving = [state for state in ready if model in state.catalog]
            pods = self.fleet.serving(model).pods
            assert bool(pods) == bool(serving)
            assert set(pods) <= set(serving)

    @rule()
    def the_index_agrees_with_the_records(self) -> None:
        index, ready = self.fleet.index, self.fleet.in_use()
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


Changes.TestCase.settings = examples(100, steps=60)
TestChanges = pytest.mark.slow(Changes.TestCase)
