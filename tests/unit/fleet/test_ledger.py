"""The in-flight ledger."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from lora_router.fleet.answer import Answer
from lora_router.fleet.ledger import Ledger, Reservation
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prefixes import PrefixIndex
from lora_router.fleet.prompt import Prompt
from tests.examples import examples
from tests.fleet import make_fleet, make_pod, state_of


def test_a_reservation_counts_at_once_by_pod_and_by_adapter() -> None:
    ledger, state = Ledger(), PodState(make_pod(1))

    ledger.reserve(state, "a")
    ledger.reserve(state, "a")
    ledger.reserve(state, None)

    assert (ledger.total, state.in_flight, state.in_flight_adapters) == (3, 3, {"a": 2})


def test_a_release_counts_once_however_often_it_is_called() -> None:
    ledger, state = Ledger(), PodState(make_pod(1))
    first, second = ledger.reserve(state, "a"), ledger.reserve(state, "a")

    assert first.release()
    assert not first.release()

    assert not first.open
    assert second.open
    assert (ledger.total, state.in_flight_adapters) == (1, {"a": 1})


def test_an_adapter_with_nothing_in_flight_is_not_listed() -> None:
    ledger, state = Ledger(), PodState(make_pod(1))

    ledger.reserve(state, "a").release()

    assert state.in_flight_adapters == {}


def test_each_release_is_announced_once_with_its_pod() -> None:
    ledger, state = Ledger(), PodState(make_pod(1))
    heard: list[PodState] = []
    ledger.released.subscribe(heard.extend)
    reservation = ledger.reserve(state, None)

    reservation.release()
    reservation.release()

    assert heard == [state]


def test_a_prompt_counts_as_used_when_its_request_ends() -> None:
    ledger, state, index = Ledger(), PodState(make_pod(1)), PrefixIndex(room=200)
    answered, in_vain = ledger.reserve(state, "a"), ledger.reserve(state, "a")
    prompts = [Prompt(100.0, (name,), (100.0,)) for name in (1, 2, 3)]
    answered.prefixes, in_vain.prefixes = (index.sent(state, "a", each) for each in prompts[:2])

    answered.answered(Answer(200))
    answered.release()
    in_vain.release()
    index.sent(state, "a", prompts[2])

    assert index.cached("a", prompts[0]) == {state: 100}
    assert index.cached("a", prompts[1]) == {}


def test_a_pod_that_leaves_and_comes_back_starts_at_zero() -> None:
    fleet = make_fleet(1)
    old = fleet.ledger.reserve(state_of(fleet, 1), "a")
    fleet.remove("pod-1")
    fleet.upsert(make_pod(1))

    assert state_of(fleet, 1).in_flight == 0
    old.release()
    assert state_of(fleet, 1).in_flight == 0
    assert fleet.ledger.total == 0


class LedgerMachine(RuleBasedStateMachine):
    """Reservations, releases, and pods that leave and return, in any order."""

    reservations = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        self.fleet = make_fleet(3)
        self.open: list[Reservation] = []

    @rule(target=reservations, pod=st.integers(1, 3), adapter=st.sampled_from([None, "a", "b"]))
    def reserve(self, pod: int, adapter: str | None) -> Reservation:
        if self.fleet.get(f"pod-{pod}") is None:
            self.fleet.upsert(make_pod(pod))
        reservation = self.fleet.ledger.reserve(state_of(self.fleet, pod), adapter)
        self.open.append(reservation)
        return reservation

    @rule(reservation=reservations)
    def release(self, reservation: Reservation) -> None:
        was_open = reservation in self.open
        assert reservation.release() is was_open
        if was_open:
            self.open.remove(reservation)

    @rule(reservation=consumes(reservations))
    def release_and_forget(self, reservation: Reservation) -> None:
        self.release(reservation)

    @rule(pod=st.integers(1, 3))
    def leave(self, pod: int) -> None:
        self.fleet.remove(f"pod-{pod}")

    @rule(pod=st.integers(1, 3), port=st.sampled_from([8000, 8001]))
    def change_address(self, pod: int, port: int) -> None:
        self.fleet.upsert(make_pod(pod, address=f"10.0.0.{pod}:{port}"))

    @invariant()
    def the_counts_are_those_of_the_open_reservations(self) -> None:
        assert self.fleet.ledger.total == len(self.open)
        for state in self.fleet:
            here = [one for one in self.open if one.state is state]
            assert state.in_flight == len(here)
            adapters = [one.adapter for one in here if one.adapter is not None]
            assert state.in_flight_adapters == {name: adapters.count(name) for name in adapters}


TestLedgerMachine = pytest.mark.slow(LedgerMachine.TestCase)
TestLedgerMachine.settings = examples(50, steps=30)
