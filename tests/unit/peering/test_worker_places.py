"""Routers that are workers of a host: what they say of that when they meet."""

import pytest

from lora_router.grpc_server.status import UNAVAILABLE
from lora_router.peering.limits import MAX_PEERS, MAX_WORKERS
from lora_router.peering.link import Ending, Link
from lora_router.peering.mesh import Mesh
from lora_router.peering.pb.peering_pb2 import Greeting, PeerMessage
from lora_router.peering.service import PeerService
from lora_router.peering.worker_place import WorkerPlace
from tests.fleet import ManualClock
from tests.unit.peering.routers import Router
from tests.unit.peering.test_hub import Stranger


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def greets(greeting: Greeting) -> bytes:
    return PeerMessage(greeting=greeting).SerializeToString()


class Worker(Router):
    """A router that is one of three workers of a host."""

    def __init__(self, host: str, number: int, clock: ManualClock) -> None:
        super().__init__(f"{host}-{number}", clock)
        self.mesh = Mesh(self.hub, WorkerPlace(host, number, 3))


def test_a_router_that_calls_a_worker_learns_which_one_it_is_and_how_many_there_are(
    clock: ManualClock,
) -> None:
    router, worker = Router("router", clock), Worker("host", 2, clock)
    counts: list[int] = []
    stream = router.connect(worker).conversation
    assert stream is not None
    stream.on_workers = counts.append
    clock.advance(0.3)
    assert (counts, stream.worker) == ([3], 2)
    assert (router.peers(), worker.peers()) == (["host-2"], ["router"])


def test_a_router_with_one_process_is_the_only_one_behind_its_address(clock: ManualClock) -> None:
    router, worker = Router("router", clock), Worker("host", 2, clock)
    counts: list[int] = []
    stream = worker.connect(router).conversation
    assert stream is not None
    stream.on_workers = counts.append
    clock.advance(0.3)
    assert (counts, stream.worker) == ([1], 0)


def test_workers_of_one_host_do_not_meet_over_its_port(clock: ManualClock) -> None:
    one, two = Worker("host", 1, clock), Worker("host", 2, clock)
    link = one.connect(two)
    clock.advance(0.3)
    assert link.conversation is not None
    assert link.conversation.is_itself
    assert (one.peers(), two.peers()) == ([], [])


def test_workers_of_different_hosts_meet(clock: ManualClock) -> None:
    one, two = Worker("a", 1, clock), Worker("b", 1, clock)
    one.connect(two)
    clock.advance(0.3)
    assert (one.peers(), two.peers()) == (["b-1"], ["a-1"])


def test_nobody_is_believed_to_have_more_workers_than_a_host_can_have(clock: ManualClock) -> None:
    router = Router("router", clock)
    counts: list[int] = []
    link = router.link()
    stream = router.mesh.open(link)
    stream.on_workers = counts.append
    greeting = Greeting(router="liar", version=1, oldest_version=1, worker=7, workers=4_000_000)
    assert stream.receive(greets(greeting)) is None
    assert counts == [MAX_WORKERS]


def test_peers_on_other_hosts_leave_room_for_the_workers_of_this_one(clock: ManualClock) -> None:
    router = Router("router", clock)
    workers = Mesh(router.hub, most=MAX_PEERS + MAX_WORKERS)
    for number in range(MAX_PEERS):
        Stranger(router, f"stranger-{number}")
    assert Stranger(router, "one too many").code is not None

    stream = workers.accept(router.link())
    sibling = Greeting(router="worker", version=1, oldest_version=1)
    assert stream.receive(greets(sibling)) is None
    assert len(router.hub.peers) == MAX_PEERS + 1


class PassedOn:
    """Where a stream for another worker goes."""

    def receive(self, _data: bytes) -> Ending | None:
        return None

    def ended(self) -> None:
        """Do nothing."""


class Ways:
    """The way to worker 2."""

    def __init__(self) -> None:
        self.is_draining = False

    def open(self, worker: int, _link: Link) -> PassedOn | None:
        return PassedOn() if worker == 2 else None

    def drain(self) -> None:
        self.is_draining = True


@pytest.mark.parametrize(
    ("header", "is_passed_on"),
    [(b"2", True), (b"1", False), (b"3", False), (b"", False), (b"x", False), (b"2" * 99, False)],
)
def test_a_stream_for_another_worker_is_passed_on(
    header: bytes, is_passed_on: bool, clock: ManualClock
) -> None:
    worker = Worker("host", 1, clock)
    service = PeerService(worker.mesh, None)
    service.relays = Ways()
    assert isinstance(service.accept(worker.link(), header), PassedOn) == is_passed_on


def test_a_router_without_workers_answers_whatever_worker_a_stream_is_for(
    clock: ManualClock,
) -> None:
    router = Router("router", clock)
    service = PeerService(router.mesh, None)
    assert not isinstance(service.accept(router.link(), b"2"), PassedOn)


def test_a_drain_ends_what_is_passed_on(clock: ManualClock) -> None:
    worker = Worker("host", 1, clock)
    service = PeerService(worker.mesh, None)
    service.relays = ways = Ways()
    service.drain()
    assert ways.is_draining
    refusal = service.refusal(b"")
    assert refusal is not None
    assert refusal.code == UNAVAILABLE
