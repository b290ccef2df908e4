"""The estimate of what is in a pod's slots: from the ledger, from scrapes, and from past use."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_router.fleet.adapter_beliefs import AdapterBeliefs
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.ledger import Reservation
from lora_router.fleet.pod_metrics import LoraResidency, PodMetrics
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.events import EventQueue
from lora_router.simulator.pod_model import PodModel
from lora_router.simulator.simulated_request import SimulatedRequest
from tests.fleet import make_fleet, make_metrics, state_of

MAX_AGE = 15.0


def idle(max_lora: int = 2) -> PodMetrics:
    return replace(make_metrics(max_lora=max_lora), running=0.0)


def test_nothing_is_known_before_the_first_evidence() -> None:
    beliefs = AdapterBeliefs({})
    assert beliefs.slots is None
    assert beliefs.free_slots is None
    assert not beliefs.active
    assert not beliefs.is_resident("a")
    assert not beliefs.in_host_memory("a")


def test_residency_that_a_server_reports_is_used() -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)
    fleet.ledger.reserve(state, "used").release()
    loaded = LoraResidency(frozenset(("loaded",)), frozenset(), 3)
    fleet.put_metrics(state, replace(idle(), lora=None, residency=loaded))

    assert state.beliefs.slots == 3
    assert state.beliefs.is_resident("loaded")
    assert not state.beliefs.is_resident("used")
    assert not state.beliefs.in_host_memory("used")


def test_host_memory_is_what_the_server_reports_and_what_was_used_since() -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)
    said = LoraResidency(frozenset(("in-slot",)), frozenset(("in-memory",)), 2)
    fleet.put_metrics(state, replace(idle(), residency=said))
    fleet.ledger.reserve(state, "used-since").release()

    beliefs = state.beliefs
    everywhere = ("in-slot", "in-memory", "used-since", "never")
    assert [beliefs.in_host_memory(name) for name in everywhere] == [True, True, True, False]
    assert [beliefs.is_resident(name) for name in everywhere] == [True, False, True, False]

    # The next page overrides this.
    fleet.put_metrics(state, replace(idle(), residency=said))
    assert not beliefs.in_host_memory("used-since")
    assert not beliefs.is_resident("used-since")


def test_free_slots_are_those_without_an_adapter_in_flight_from_any_sender() -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)
    fleet.put_metrics(state, make_metrics(("ours", "theirs"), max_lora=4, scraped_at=100.0))
    fleet.ledger.reserve(state, "ours")
    assert state.beliefs.foreign_adapters == {"ours", "theirs"}
    assert state.beliefs.free_slots == 2

    for name in ("a", "b", "c"):
        fleet.ledger.reserve(state, name)
    assert state.beliefs.free_slots == -1


def test_no_slot_is_free_while_a_request_waits_for_one() -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)
    metrics = replace(make_metrics(("theirs",)), running=4.0, waiting=2.0, deferred=2.0)
    fleet.put_metrics(state, metrics)

    assert state.beliefs.free_slots == 0


def test_a_page_without_the_earlier_series_comes_from_another_server() -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)
    metrics = replace(make_metrics(("theirs",)), running=4.0, waiting=1.0, deferred=1.0)
    fleet.put_metrics(state, metrics)
    assert [state.beliefs.somebody_waits, state.beliefs.slots] == [True, 4]
    fleet.ledger.reserve(state, "before").release()
    fleet.ledger.reserve(state, "now")

    fleet.put_metrics(state, PodMetrics(scraped_at=1.0, running=0.0, waiting=0.0))

    assert [state.beliefs.somebody_waits, state.beliefs.slots] == [False, None]
    assert state.beliefs.foreign_adapters == frozenset()
    assert not state.beliefs.in_host_memory("before")
    assert state.beliefs.in_host_memory("now")


Process = tuple[float | None, float | None]
"""What distinguishes a server process: its start time, and the tokens generated since then."""


def of(process: Process, metrics: PodMetrics) -> PodMetrics:
    started_at, generated_tokens = process
    return replace(metrics, started_at=started_at, generated_tokens=generated_tokens)


class TestRestart:
    """A new server at the same address has nothing loaded except what this router has in flight."""

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ((1.7e9, None), (1.7e9 + 60, None)),
            # A pod's clock can be set back.
            ((1.7e9, None), (1.7e9 - 60, None)),
            ((None, 5000.0), (None, 12.0)),
        ],
    )
    def test_another_start_time_or_a_counter_that_fell(
        self, before: Process, after: Process
    ) -> None:
        fleet = self.used(before)
        state = state_of(fleet, 1)
        fleet.put_metrics(state, of(after, idle()))

        known = [name for name in ("done", "open", "theirs") if state.beliefs.in_host_memory(name)]
        assert known == ["open"]
        assert state.beliefs.is_resident("open")
        assert state.beliefs.slots == 2

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ((1.7e9, None), (1.7e9, None)),
            ((None, 5000.0), (None, 5000.0)),
            ((None, 5000.0), (None, 6000.0)),
            ((None, None), (None, None)),
        ],
    )
    def test_the_same_server_is_remembered(self, before: Process, after: Process) -> None:
        fleet = self.used(before)
        state = state_of(fleet, 1)
        fleet.put_metrics(state, of(after, idle()))

        assert all(state.beliefs.in_host_memory(name) for name in ("done", "open", "theirs"))

    def test_series_that_are_missing_from_a_page_of_the_same_server_prove_nothing(self) -> None:
        """On pages merged from several API servers, at times none of the values is a valid time."""
        fleet = self.used((None, 5000.0))
        state = state_of(fleet, 1)
        fleet.put_metrics(state, replace(idle(), lora=None, generated_tokens=6000.0))

        assert state.beliefs.slots == 2
        assert state.beliefs.in_host_memory("done")
        assert not state.beliefs.active

    def test_a_new_server_may_have_others_requests_at_once(self) -> None:
        fleet = self.used((1.7e9, None))
        state = state_of(fleet, 1)
        fleet.put_metrics(state, replace(make_metrics(("theirs",)), started_at=1.8e9))

        assert state.beliefs.foreign_adapters == {"theirs"}
        assert state.beliefs.is_resident("theirs")

    @staticmethod
    def used(process: Process) -> Fleet:
        """Return a fleet with a pod that another router uses and that this router used and uses."""
        fleet = make_fleet(1, host_memory=4)
        state = state_of(fleet, 1)
        fleet.ledger.reserve(state, "done").release()
        fleet.ledger.reserve(state, "open")
        fleet.put_metrics(state, of(process, make_metrics(("theirs",), max_lora=2)))
        return fleet


def test_memory_of_use_is_bounded() -> None:
    beliefs = AdapterBeliefs({})
    for number in range(3000):
        beliefs.used(f"adapter-{number}")
    assert not beliefs.in_host_memory("adapter-0")
    assert beliefs.in_host_memory("adapter-2999")


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.sampled_from(["a", "b", "c", "d", "e"]), st.integers(1, 50)),
        max_size=40,
    )
)
def test_a_router_that_is_alone_and_keeps_within_the_slots_knows_what_is_in_them(
    asks: list[tuple[float, str, int]],
) -> None:
    fleet = make_fleet(1)
    state = state_of(fleet, 1)
    fleet.put_metrics(state, idle(max_lora=2))
    events = EventQueue()
    open_requests: dict[SimulatedRequest, Reservation] = {}

    def ended(request: SimulatedRequest) -> None:
        open_requests.pop(request).release()

    pod = PodModel("pod-1", EngineOptions(max_loras=2, disk_load_seconds=0.3), events, ended)

    def send(adapter: str, tokens: int) -> None:
        if adapter in state.beliefs.expected or state.beliefs.free_slots:
            request = SimulatedRequest(adapter, adapter, 10, tokens, events.time)
            open_requests[request] = fleet.ledger.reserve(state, adapter)
            pod.submit(request)

    def look() -> None:
        believed = {name for name in "abcde" if state.beliefs.is_resident(name)}
        # A new request gets its slot, and its adapter is loaded into it, in the next step.
        assert pod.waiting or believed == set(pod.slots.resident)

    for at, adapter, tokens in asks:
        events.call_at(at, lambda adapter=adapter, tokens=tokens: send(adapter, tokens))  # type: ignore[misc]
    for tick in range(300):
        events.call_at(tick / 20 + 0.0007, look)
    events.run(lambda: False)

    assert not open_requests
    assert set(pod.slots.resident) == {name for name in "abcde" if state.beliefs.is_resident(name)}


USES = st.tuples(st.sampled_from("abcdefg"), st.sampled_from(["reserve", "release", "scrape"]))


@given(st.lists(USES, max_size=40), st.integers(1, 4))
def test_asking_after_every_step_returns_the_same_as_asking_once(
    uses: list[tuple[str, str]], slots: int
) -> None:
    """The estimate is updated as adapters are used. Computed from scratch it is the same.

    This also holds while more adapters are in flight than there are slots.
    """
    asked, silent = make_fleet(1), make_fleet(1)
    open_requests: list[tuple[Reservation, Reservation]] = []
    for fleet in (asked, silent):
        fleet.put_metrics(state_of(fleet, 1), idle(max_lora=slots))
    for adapter, what in uses:
        if what == "reserve":
            pair = [fleet.ledger.reserve(state_of(fleet, 1), adapter) for fleet in (asked, silent)]
            open_requests.append((pair[0], pair[1]))
        elif what == "release" and open_requests:
            for reservation in open_requests.pop(0):
                reservation.release()
        elif what == "scrape":
            for fleet in (asked, silent):
                metrics = make_metrics((adapter,), max_lora=slots)
                fleet.put_metrics(state_of(fleet, 1), metrics)
        state_of(asked, 1).beliefs.is_resident(adapter)
    resident = [
        {name for name in "abcdefg" if state_of(fleet, 1).beliefs.is_resident(name)}
        for fleet in (asked, silent)
    ]
    assert resident[0] == resident[1]
