"""The clock of a router: slow, standing still, or at its end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.simulator.events import EventQueue
from lora_router.simulator.router_clock import RouterClock


class Calls:
    """Records at which simulated time it was called, and as what."""

    def __init__(self, events: EventQueue) -> None:
        self.events = events
        self.seen: list[tuple[float, str]] = []

    def __call__(self, name: str) -> None:
        self.seen.append((self.events.time, name))


@pytest.fixture
def events() -> EventQueue:
    return EventQueue()


@pytest.fixture
def calls(events: EventQueue) -> Calls:
    return Calls(events)


def run(events: EventQueue) -> None:
    events.run(lambda: False)


def test_a_slow_clock_counts_less_and_calls_later(events: EventQueue, calls: Calls) -> None:
    clock = RouterClock(events, rate=0.5)
    clock.call_later(1.0, lambda: calls(f"{clock.now():g}"))
    run(events)
    assert calls.seen == [(2.0, "1")]


def test_a_cancelled_call_does_not_happen(events: EventQueue, calls: Calls) -> None:
    clock = RouterClock(events)
    clock.call_later(1.0, lambda: calls("timer")).cancel()
    run(events)
    assert calls.seen == []


def test_what_is_due_while_a_router_stands_still_happens_afterwards_in_order(
    events: EventQueue, calls: Calls
) -> None:
    clock = RouterClock(events)
    events.call_at(1.0, lambda: clock.stall(2.0))
    clock.call_later(2.0, lambda: calls("timer"))
    events.call_at(2.5, lambda: clock.run(lambda: calls("message")))
    clock.call_later(0.5, lambda: calls("before"))
    clock.call_later(4.0, lambda: calls("after"))

    run(events)

    assert calls.seen == [(0.5, "before"), (3.0, "timer"), (3.0, "message"), (4.0, "after")]


def test_a_call_that_waits_for_a_router_can_still_be_cancelled(
    events: EventQueue, calls: Calls
) -> None:
    clock = RouterClock(events)
    clock.stall(3.0)
    timer = clock.call_later(1.0, lambda: calls("timer"))
    events.call_at(2.0, timer.cancel)
    run(events)
    assert calls.seen == []


def test_nothing_happens_on_a_router_that_is_dead(events: EventQueue, calls: Calls) -> None:
    clock = RouterClock(events)
    clock.call_later(1.0, lambda: calls("timer"))
    clock.stopped = True
    clock.run(lambda: calls("message"))
    run(events)
    assert calls.seen == []


@given(st.floats(0.5, 2.0), st.floats(0.0, 1e6), st.floats(0.001, 100.0))
def test_no_call_comes_too_early_by_the_clock_itself(
    rate: float, began: float, seconds: float
) -> None:
    events = EventQueue()
    events.time = began
    clock = RouterClock(events, rate=rate, began=-1.0)
    due, calls = clock.now() + seconds, Calls(events)
    clock.call_later(seconds, lambda: calls(str(clock.now() >= due)))
    run(events)
    assert [name for _, name in calls.seen] == ["True"]
