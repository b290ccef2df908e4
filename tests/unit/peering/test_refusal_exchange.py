"""Routers tell each other which adapters they refused slots early."""

from collections.abc import Callable

import pytest

from lora_router.fleet.catalog import BaseModels
from lora_router.peering.limits import (
    EARLY_REFUSALS_BURST,
    MAX_EARLY_REFUSALS,
    MAX_NAME_BYTES,
    MAX_REFUSED_SECONDS,
)
from lora_router.peering.pb.peering_pb2 import EarlyRefusal, PeerMessage
from lora_router.peering.refusal_exchange import TELL_SECONDS, RefusalExchange
from tests.fleet import ManualClock
from tests.unit.peering.routers import DELAY, Router, mesh

BASE = frozenset({"base"})


class Waits:
    on_refused: Callable[[str, float, int], None]

    def __init__(self) -> None:
        self.heard: list[tuple[str, BaseModels, float, int]] = []

    def hear_refused(self, adapter: str, bases: BaseModels, seconds: float, priority: int) -> None:
        self.heard.append((adapter, bases, seconds, priority))


class Side:
    """A router, and what it hears."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.waits = Waits()
        self.exchange = RefusalExchange(router.hub, router.fleet, self.waits)

    def send(self, *refusals: EarlyRefusal) -> None:
        message = PeerMessage(early_refusals=refusals)
        self.router.hub.send_to_all(message.SerializeToString())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def sharing(clock: ManualClock) -> tuple[Side, Side]:
    first, second = mesh(clock, "a", "b")
    return Side(first), Side(second)


def test_a_peer_hears_which_adapters_were_refused_and_how_long_they_would_wait(
    clock: ManualClock,
) -> None:
    first, second = sharing(clock)
    first.waits.on_refused("a", 4.25, -1000)
    first.waits.on_refused("b", 1e9, 7)
    clock.advance(TELL_SECONDS - DELAY)
    assert not second.waits.heard, "they are gathered"
    clock.advance(3 * DELAY)
    assert second.waits.heard == [
        ("a", BASE, 4.25, -1000),
        ("b", BASE, MAX_REFUSED_SECONDS, 7),
    ]
    assert not first.waits.heard


def test_one_that_an_older_router_refused_has_the_usual_priority(clock: ManualClock) -> None:
    first, second = sharing(clock)
    first.send(EarlyRefusal(adapter="a", milliseconds=4000))
    clock.advance(2 * DELAY)
    assert second.waits.heard == [("a", BASE, 4.0, 0)]


def test_what_was_told_is_not_told_again(clock: ManualClock) -> None:
    first, second = sharing(clock)
    first.waits.on_refused("a", 4.0, 0)
    clock.advance(2 * TELL_SECONDS)
    first.waits.on_refused("b", 4.0, 0)
    clock.advance(2 * TELL_SECONDS)
    assert [adapter for adapter, *_ in second.waits.heard] == ["a", "b"]


def test_an_adapter_that_no_pod_lists_does_not_count(clock: ManualClock) -> None:
    first, second = sharing(clock)
    first.send(EarlyRefusal(adapter="unknown", milliseconds=4000))
    clock.advance(2 * DELAY)
    assert not second.waits.heard


def test_a_router_tells_no_more_than_a_peer_accepts(clock: ManualClock) -> None:
    first, second = sharing(clock)
    for _ in range(2 * MAX_EARLY_REFUSALS):
        first.waits.on_refused("a", 4.0, 0)
    clock.advance(TELL_SECONDS + 2 * DELAY)
    assert len(second.waits.heard) == MAX_EARLY_REFUSALS
    assert not second.router.hub.counts.rejected["too-large"]


@pytest.mark.parametrize(
    "refusals",
    [
        [EarlyRefusal(adapter="a")] * (MAX_EARLY_REFUSALS + 1),
        [EarlyRefusal(adapter="a" * (MAX_NAME_BYTES + 1))],
    ],
)
def test_what_exceeds_a_bound_is_rejected(clock: ManualClock, refusals: list[EarlyRefusal]) -> None:
    first, second = sharing(clock)
    first.send(*refusals)
    clock.advance(2 * DELAY)
    assert not second.waits.heard
    assert second.router.hub.counts.rejected["too-large"] == 1


def test_a_peer_that_tells_too_much_is_not_heard_until_it_comes_again(clock: ManualClock) -> None:
    first, second = sharing(clock)
    message = [EarlyRefusal(adapter="a", milliseconds=1000)] * MAX_EARLY_REFUSALS
    for _ in range(2 * EARLY_REFUSALS_BURST // MAX_EARLY_REFUSALS):
        first.send(*message)
    clock.advance(2 * DELAY)
    assert len(second.waits.heard) == EARLY_REFUSALS_BURST
    second.exchange.gone("a")
    first.send(*message)
    clock.advance(2 * DELAY)
    assert len(second.waits.heard) == EARLY_REFUSALS_BURST + MAX_EARLY_REFUSALS


def test_a_router_without_peers_keeps_nothing(clock: ManualClock) -> None:
    alone, newcomer = Side(Router("a", clock)), Side(Router("b", clock))
    alone.waits.on_refused("a", 4.0, 0)
    alone.router.connect(newcomer.router)
    clock.advance(4 * TELL_SECONDS)
    assert alone.router.peers() == ["b"]
    assert not newcomer.waits.heard
