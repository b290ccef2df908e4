"""Streams of other hosts that a worker passes on to the worker that they are for."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.grpc_server.status import INVALID_ARGUMENT, UNAVAILABLE
from lora_router.loop_clock import LoopClock
from lora_router.peering.hub import Hub
from lora_router.peering.link import Ending
from lora_router.peering.mesh import Mesh
from lora_router.peering.pb.peering_pb2 import Greeting, PeerMessage, Report
from lora_router.peering.worker_place import WorkerPlace
from lora_router.workers.relays import PassedOn, Relays
from tests.waiting import until


class Worker:
    """One of two workers of a host."""

    def __init__(self, number: int) -> None:
        fleet = Fleet()
        fleet.replace([Pod("p", "10.0.0.1:8000", "", "", models=("base", "a"))])
        self.hub = Hub(f"worker-{number}", fleet, dict, LoopClock())
        self.mesh = Mesh(self.hub, WorkerPlace("host", number, 2))
        self.relays = Relays(self.mesh)


@dataclass
class Stream:
    """The stream of a router on another host, which arrived at the first worker."""

    sent: list[PeerMessage] = field(default_factory=list)
    ending: Ending | None = None
    is_ready: bool = True
    receiver: PassedOn | None = None

    def send(self, message: bytes) -> None:
        self.sent.append(PeerMessage.FromString(message))

    def close(self, ending: Ending) -> None:
        self.ending = ending
        assert self.receiver is not None
        self.receiver.ended()

    def says(self, **fields: object) -> None:
        assert self.receiver is not None
        message = PeerMessage(**fields).SerializeToString()  # type: ignore[arg-type]
        assert self.receiver.receive(message) is None

    @property
    def reports(self) -> int:
        return sum(message.HasField("report") for message in self.sent)


@dataclass
class Host:
    one: Worker
    two: Worker

    def stream(self) -> Stream:
        """Open a stream for the second worker, which arrives at the first one."""
        stream = Stream()
        stream.receiver = self.one.relays.open(2, stream)
        assert stream.receiver is not None
        stream.says(greeting=Greeting(router="far", version=1, oldest_version=1))
        return stream


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    host = Host(Worker(1), Worker(2))
    first, second = socket.socketpair()
    first.setblocking(False)
    second.setblocking(False)
    await host.one.relays.add(2, first)
    await host.two.relays.add(1, second)
    yield host
    for worker in (host.one, host.two):
        worker.hub.leave()
        worker.relays.close()


async def test_the_worker_that_the_stream_is_for_answers(host: Host) -> None:
    stream = host.stream()
    await until(lambda: stream.reports)
    assert stream.sent[0].greeting.router == "worker-2"
    assert (stream.sent[0].greeting.worker, stream.sent[0].greeting.workers) == (2, 2)
    assert (list(host.one.hub.peers), list(host.two.hub.peers)) == ([], ["far"])

    stream.says(report=Report(number=1))
    await until(lambda: host.two.hub.peers["far"].number == 1)


async def test_a_stream_that_the_other_host_ends_is_over_for_the_worker(host: Host) -> None:
    stream = host.stream()
    await until(lambda: host.two.mesh.streams_of("far"))
    assert stream.receiver is not None
    stream.receiver.ended()
    await until(lambda: not host.two.mesh.streams_of("far"))


async def test_a_worker_ends_a_stream_on_which_it_hears_nonsense(host: Host) -> None:
    stream = host.stream()
    assert stream.receiver is not None
    stream.receiver.receive(b"\xff\xff")
    await until(lambda: stream.ending)
    assert stream.ending is not None
    assert stream.ending.code == INVALID_ARGUMENT
    assert not host.two.mesh.streams_of("far")


@pytest.mark.slow
async def test_reports_wait_while_the_other_host_does_not_read(host: Host) -> None:
    stream = host.stream()
    await until(lambda: stream.reports)
    stream.is_ready = False
    # The worker hears of it with one of the next reports that it sends.
    (conversation,) = host.two.mesh.streams_of("far")
    await until(lambda: not conversation.link.is_ready)
    await asyncio.sleep(0.3)  # Reports are due meanwhile, in the same event loop.
    held = stream.reports

    stream.is_ready = True
    await until(lambda: stream.reports > held)
    assert stream.sent[-1].report.base == 0, "it is complete, since reports are missing"


async def test_streams_end_with_the_worker_that_they_are_for(host: Host) -> None:
    stream = host.stream()
    await until(lambda: stream.sent)
    host.two.relays.close()
    await until(lambda: stream.ending)
    assert stream.ending is not None
    assert stream.ending.code == UNAVAILABLE
    await until(lambda: not host.one.relays.numbers)
    assert host.one.relays.open(2, Stream()) is None


async def test_streams_end_with_the_worker_that_accepted_them(host: Host) -> None:
    host.stream()
    await until(lambda: host.two.mesh.streams_of("far"))
    host.one.relays.close()
    await until(lambda: not host.two.mesh.streams_of("far"))


async def test_a_worker_that_drains_passes_on_nothing(host: Host) -> None:
    stream = host.stream()
    await until(lambda: stream.sent)
    host.one.relays.drain()
    assert stream.ending is not None
    assert host.one.relays.open(2, Stream()) is None
    await until(lambda: not host.two.mesh.streams_of("far"))


async def test_a_worker_that_drains_takes_nothing_from_others(host: Host) -> None:
    host.two.mesh.drain()
    stream = host.stream()
    await until(lambda: stream.ending)
    assert stream.ending == Ending(UNAVAILABLE, "lora-router: shutting down")


async def test_nothing_is_passed_on_to_a_worker_that_does_not_run(host: Host) -> None:
    assert host.one.relays.open(3, Stream()) is None


async def test_too_many_streams_are_not_passed_on(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_router.workers.relays.MAX_STREAMS", 1)
    host.stream()
    assert host.one.relays.open(2, Stream()) is None


async def test_a_worker_that_does_not_read_costs_the_stream_and_no_memory(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = host.stream()
    monkeypatch.setattr("lora_router.workers.relays._MAX_UNSENT_BYTES", -1)
    assert stream.receiver is not None
    ending = stream.receiver.receive(b"x")
    assert ending is not None
    assert ending.code == UNAVAILABLE
