"""Which of several routers loads adapters."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lora_router import loader_assembly
from lora_router.fleet.peer_ledgers import LedgerShare
from lora_router.loader_assembly import LoaderPart, is_first, loader_choice
from lora_router.peering.pb.peering_pb2 import Report
from lora_router.peering.report_reader import ReportReader
from tests.fleet import ManualClock
from tests.unit.peering.routers import Router, mesh
from tests.waiting import until


def hub(name: str, *peers: str) -> Any:
    return SimpleNamespace(name=name, peers=peers, loaders=lambda: peers)


@pytest.mark.parametrize(
    ("name", "peers", "first"),
    [
        ("a-1", (), True),
        ("a-1", ("b-2", "c-3"), True),
        ("b-2", ("a-1", "c-3"), False),
        # All workers of a host count as one, whichever of them speaks.
        ("a-worker-2-00000001", ("b-worker-1-00000002",), True),
        ("b-worker-1-00000001", ("a-worker-2-00000002",), False),
        ("a-worker-2-00000001", ("a-worker-1-00000002",), True),
    ],
)
def test_the_first_by_name_of_all_that_hear_each_other_loads(
    name: str, peers: tuple[str, ...], *, first: bool
) -> None:
    assert is_first(hub(name, *peers)) is first
    assert loader_choice(None, None, hub(name, *peers))() is first


def routers(*names: str) -> tuple[ManualClock, list[Router]]:
    """Return routers that have met, and of which none may load yet."""
    clock = ManualClock()
    return clock, mesh(clock, *names)


def who_loads(routers: list[Router]) -> list[bool]:
    """Return which routers load, of those that may."""
    return [each.hub.may_load and is_first(each.hub) for each in routers]


def test_the_next_one_loads_while_the_first_drains() -> None:
    clock, both = routers("a", "b")
    for router in both:
        router.hub.use_may_load(True)
    clock.advance(0.2)
    assert who_loads(both) == [True, False]

    both[0].hub.use_may_load(False)
    clock.advance(0.2)
    assert who_loads(both) == [False, True]


def test_a_first_router_that_starts_or_to_which_none_are_declared_is_passed_over() -> None:
    clock, three = routers("a", "b", "c")
    for router in three[1:]:
        router.hub.use_may_load(True)
    clock.advance(0.2)
    assert who_loads(three) == [False, True, False]


def test_a_router_that_joins_knows_which_others_may_load() -> None:
    clock, [first] = routers("a")
    first.hub.use_may_load(True)
    clock.advance(10.3)
    second = Router("b", clock)
    second.hub.use_may_load(True)
    second.connect(first)
    clock.advance(0.2)
    assert who_loads([first, second]) == [True, False]


def test_a_router_of_an_older_release_is_waited_for() -> None:
    """It tells nothing about that, and loads if it is the first."""
    assert ReportReader("old", 0.1).read(Report(number=1)) == replace(
        LedgerShare("old", 1, 0.1, {}, {}, {}), may_load=True
    )


class Loads:
    """Stands for the loader and its parts."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def start(self) -> None:
        self.events.append("start")

    def stop(self) -> None:
        self.events.append("stop")

    async def close(self) -> None:
        pass

    def tell(self, may_load: bool) -> None:
        self.events.append(f"tell {may_load}")


def loader_part(loads: Loads, *peers: str) -> LoaderPart:
    stands_for: Any = loads
    nothing: Any = SimpleNamespace(start=lambda: None, stop=lambda: None)
    part = LoaderPart(stands_for, nothing, stands_for, nothing, None)
    part.tell_peers(hub("a", *peers), loads.tell)
    return part


async def test_a_router_loads_once_its_peers_know_that_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise another one would load at the same time."""
    monkeypatch.setattr(loader_assembly, "_HEARD_SECONDS", 0.01)
    loads = Loads()
    part = loader_part(loads, "b")
    part.start()
    assert loads.events == ["tell True"]
    await until(lambda: loads.events == ["tell True", "start"])
    await part.stop()
    assert loads.events[2:] == ["stop", "tell False"]


async def test_a_router_without_peers_loads_at_once() -> None:
    loads = Loads()
    loader_part(loads).start()
    assert loads.events == ["tell True", "start"]


async def test_a_router_that_stops_before_its_peers_know_does_not_load_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loader_assembly, "_HEARD_SECONDS", 0.01)
    loads = Loads()
    part = loader_part(loads, "b")
    part.start()
    await part.stop()
    await asyncio.sleep(0.03)
    assert "start" not in loads.events


def test_a_lease_decides_if_there_is_one() -> None:
    lease: Any = SimpleNamespace(loads=False)
    leadership: Any = SimpleNamespace(leads=True)
    alone = hub("a-1")

    assert loader_choice(None, lease, alone)() is False
    assert loader_choice(leadership, lease, alone)() is False
    lease.loads = True
    assert loader_choice(None, lease, hub("b", "a"))() is True
    assert loader_choice(leadership, None, hub("b", "a"))() is True


def test_a_router_without_others_loads() -> None:
    assert loader_choice(None, None, None)() is True
