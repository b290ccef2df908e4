"""Where peers are."""

import asyncio
import socket
from collections.abc import Callable, Collection

import pytest

from lora_router.peering import addresses as addresses_module
from lora_router.peering.addresses import FoundPeers, ListedPeers, PeerAddress


async def found_by(
    follow: Callable[[Callable[[Collection[PeerAddress]], None]], object], times: int = 1
) -> list[list[PeerAddress]]:
    """Return what a source finds, so many times."""
    found: list[list[PeerAddress]] = []
    enough = asyncio.Event()

    def use(addresses: Collection[PeerAddress]) -> None:
        found.append(list(addresses))
        if len(found) >= times:
            enough.set()

    async def run() -> None:
        await follow(use)  # type: ignore[misc]

    task = asyncio.create_task(run())
    try:
        await asyncio.wait_for(enough.wait(), 10)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return found[:times]


class Resolver:
    """Resolves names to what the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, list[str] | Exception] = {}
        self.silent: set[str] = set()
        """The names that nobody answers for."""
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self._resolve, raising=True)

    async def _resolve(self, host: str, port: int, *, type: int) -> list[object]:  # noqa: A002
        if host in self.silent:
            await asyncio.Event().wait()
        answer = self.answers[host]
        if isinstance(answer, Exception):
            raise answer
        return [(socket.AF_INET, type, 6, "", (ip, port)) for ip in answer]


async def test_a_name_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch)
    resolver.answers = {"routers": ["10.0.0.1", "fd00::2", "10.0.0.1"], "10.9.9.9": ["10.9.9.9"]}

    [found] = await found_by(ListedPeers("routers:50052, 10.9.9.9:1").follow)

    assert found == [
        PeerAddress("10.0.0.1:50052", "routers"),
        PeerAddress("[fd00::2]:50052", "routers"),
        PeerAddress("10.9.9.9:1", "10.9.9.9"),
    ]


async def test_while_a_name_cannot_be_resolved_its_last_addresses_stay(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resolver = Resolver(monkeypatch)
    resolver.answers = {"routers": ["10.0.0.1"]}
    peers = ListedPeers("routers:50052", refresh_seconds=0.0)
    found: list[list[PeerAddress]] = []

    async def follow(use: Callable[[Collection[PeerAddress]], None]) -> None:
        def use_and_fail(addresses: Collection[PeerAddress]) -> None:
            use(addresses)
            resolver.answers["routers"] = socket.gaierror(-3, "try again")

        await peers.follow(use_and_fail)

    found = await found_by(follow, times=3)

    assert found == [[PeerAddress("10.0.0.1:50052", "routers")]] * 3
    assert caplog.text.count("cannot resolve peer routers") == 1


async def test_a_name_that_nobody_answers_for_does_not_delay_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver = Resolver(monkeypatch)
    resolver.answers = {"a": ["10.0.0.1"], "b": ["10.0.0.2"]}
    resolver.silent = {"c"}
    peers = ListedPeers("a:1,b:1,c:1", refresh_seconds=0.01)

    async def follow(use: Callable[[Collection[PeerAddress]], None]) -> None:
        def use_and_change(addresses: Collection[PeerAddress]) -> None:
            use(addresses)
            resolver.answers["b"] = ["10.0.0.3"]

        await peers.follow(use_and_change)

    found = await found_by(follow, times=4)

    assert [each.target for each in found[0]] == ["10.0.0.1:1", "10.0.0.2:1"]
    assert [each.target for each in found[-1]] == ["10.0.0.1:1", "10.0.0.3:1"]
    assert not peers.is_complete


async def test_a_name_that_nobody_answers_for_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(addresses_module, "_RESOLVE_SECONDS", 0.05)
    resolver = Resolver(monkeypatch)
    resolver.answers = {"a": ["10.0.0.1"]}
    resolver.silent = {"c"}
    peers = ListedPeers("a:1,c:1")

    assert await found_by(peers.follow, times=2) == [[PeerAddress("10.0.0.1:1", "a")]] * 2

    assert peers.is_complete
    assert caplog.messages == ["cannot resolve peer c: no answer within 0.05 s"]


async def test_names_that_do_not_resolve_at_first_are_no_peers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver = Resolver(monkeypatch)
    resolver.answers = {"routers": socket.gaierror(-2, "unknown")}

    assert await found_by(ListedPeers("routers:1").follow) == [[]]


async def test_addresses_of_a_discovery_have_the_name_of_its_service() -> None:
    async def discovery(use: Callable[[Collection[tuple[str, int]]], None]) -> None:
        use([("10.0.0.1", 50052), ("fd00::1", 1)])
        await asyncio.Event().wait()

    [found] = await found_by(FoundPeers(discovery, "routers.ml.svc").follow)

    assert found == [
        PeerAddress("10.0.0.1:50052", "routers.ml.svc"),
        PeerAddress("[fd00::1]:1", "routers.ml.svc"),
    ]
