"""Messages and descriptors between processes, over real sockets."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from lora_router.workers.descriptors import (
    CONNECTION,
    descriptor_pair,
    has_spare_descriptors,
    receive_descriptors,
    send_descriptor,
)
from lora_router.workers.framing import FramedProtocol
from tests.waiting import until


@dataclass
class End:
    """One end of a connection, and what arrived there."""

    received: list[bytes] = field(default_factory=list)
    ends: int = 0

    async def connect(self, sock: socket.socket, max_bytes: int) -> None:
        self.protocol = FramedProtocol(self.received.append, self._ended, max_bytes=max_bytes)
        await asyncio.get_running_loop().create_unix_connection(lambda: self.protocol, sock=sock)

    def _ended(self) -> None:
        self.ends += 1


@pytest.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    pair = End(), End()
    for end, sock in zip(pair, socket.socketpair(), strict=True):
        await end.connect(sock, 100_000)
    yield pair
    for end in pair:
        end.protocol.abort()


async def test_messages_arrive_whole_and_in_order(ends: tuple[End, End]) -> None:
    one, other = ends
    sent = [b"", b"a", b"b" * 70_000, b"c"]
    for message in sent:
        one.protocol.send(message)
    await until(lambda: len(other.received) == 4)
    assert other.received == sent


async def test_a_message_that_is_too_long_ends_the_connection(ends: tuple[End, End]) -> None:
    one, other = ends
    one.protocol.send(b"x" * 100_001)
    await until(lambda: bool(one.ends and other.ends))
    assert (one.ends, other.ends, other.received) == (1, 1, [])
    one.protocol.send(b"nobody reads it")


async def test_a_message_that_cannot_be_handled_is_not_handled_again(
    ends: tuple[End, End],
) -> None:
    one, other = ends
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    handled: list[bytes] = []

    def receive(message: bytes) -> None:
        handled.append(message)
        if message == b"bad":
            raise ValueError("a fault")

    other.protocol.receive = receive
    one.protocol.send(b"bad")
    await until(lambda: bool(handled))
    other.protocol.data_received(b"")
    assert handled == [b"bad"]


async def test_the_other_side_learns_of_the_end(ends: tuple[End, End]) -> None:
    one, other = ends
    one.protocol.send(b"last")
    one.protocol.close()
    await until(lambda: other.ends == 1)
    assert other.received == [b"last"]


def test_a_connection_is_passed_on_with_its_tag() -> None:
    parent, worker = descriptor_pair()
    mine, passed = socket.socketpair()
    received: list[tuple[bytes, socket.socket | None]] = []
    with parent, worker, mine:
        assert send_descriptor(parent, CONNECTION, passed)
        assert send_descriptor(parent, b"o2", passed)
        passed.close()

        assert receive_descriptors(worker, lambda tag, sock: received.append((tag, sock)))

        assert [tag for tag, _ in received] == [CONNECTION, b"o2"]
        first = received[0][1]
        assert first is not None
        first.sendall(b"hello")
        assert mine.recv(10) == b"hello"
    for _, each in received:
        assert each is not None
        each.close()


def test_the_end_of_the_parent_is_noticed_and_of_the_worker_too() -> None:
    parent, worker = descriptor_pair()
    with worker:
        parent.close()
        assert not receive_descriptors(worker, lambda _tag, _sock: None)
    parent, worker = descriptor_pair()
    mine, passed = socket.socketpair()
    with parent, mine, passed:
        worker.close()
        assert not send_descriptor(parent, CONNECTION, passed)


def test_a_worker_that_does_not_read_gets_no_more_after_a_while() -> None:
    parent, worker = descriptor_pair()
    mine, passed = socket.socketpair()
    with parent, worker, mine, passed:
        sent = 0
        while send_descriptor(parent, CONNECTION, passed):
            sent += 1
            assert sent < 100_000


def test_a_descriptor_for_which_there_is_no_room_is_told_by_its_tag() -> None:
    ours, theirs = descriptor_pair()
    some = socket.socket()
    got: list[tuple[bytes, socket.socket | None]] = []
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ours, theirs, some:
        assert has_spare_descriptors(some)
        send_descriptor(ours, CONNECTION, some)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            has_spare = has_spare_descriptors(some)
            receive_descriptors(theirs, lambda tag, received: got.append((tag, received)))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (has_spare, got) == (False, [(CONNECTION, None)])
