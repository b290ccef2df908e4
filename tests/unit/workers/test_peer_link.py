"""Links between workers: what one has in flight, the others know."""

import socket
from collections.abc import AsyncIterator

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_state import PodState
from lora_router.loop_clock import LoopClock
from lora_router.peering.hub import Hub
from lora_router.peering.mesh import Mesh
from lora_router.workers.descriptors import ACCEPTS, OPENS
from lora_router.workers.peer_link import Links, new_name
from tests.waiting import until


class Worker:
    """A fleet of one pod, and the links of a worker."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.fleet = Fleet()
        self.fleet.replace([Pod("p", "10.0.0.1:8000", "", "", models=("base", "a"))])
        self.hub = Hub(new_name(number), self.fleet, dict, LoopClock())
        self.links = Links(Mesh(self.hub))

    @property
    def pod(self) -> PodState:
        state = self.fleet.get("p")
        assert state is not None
        return state

    @property
    def seen(self) -> int:
        return self.pod.beliefs.peers.requests


async def link(one: Worker, other: Worker) -> None:
    first, second = socket.socketpair()
    first.setblocking(False)
    second.setblocking(False)
    await one.links.add(other.number, OPENS, first)
    await other.links.add(one.number, ACCEPTS, second)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Worker, Worker]]:
    pair = Worker(1), Worker(2)
    await link(*pair)
    for each in pair:
        assert await each.links.have_reported(1, 30)
    yield pair
    for each in pair:
        each.hub.leave()
        each.links.close()


async def test_requests_of_one_worker_count_for_the_other(pair: tuple[Worker, Worker]) -> None:
    one, other = pair
    assert (one.links.numbers, other.links.numbers) == ((2,), (1,))
    reservation = one.fleet.ledger.reserve(one.pod, "a")
    await until(lambda: other.seen == 1)
    reservation.release()
    await until(lambda: other.seen == 0)


async def test_a_worker_that_dies_is_forgotten_at_once(pair: tuple[Worker, Worker]) -> None:
    one, other = pair
    one.fleet.ledger.reserve(one.pod, "a")
    await until(lambda: other.seen == 1)
    # The kernel closes its sockets.
    for each in tuple(one.links._links.values()):
        each.abort()
    await until(lambda: not other.hub.peers)
    assert (other.seen, other.links.numbers) == (0, ())


async def test_another_link_takes_the_place_of_one_that_was_lost(
    pair: tuple[Worker, Worker],
) -> None:
    one, other = pair
    await link(other, one)
    one.fleet.ledger.reserve(one.pod, "a")
    await until(lambda: other.seen == 1)
    assert (one.links.numbers, other.links.numbers) == ((2,), (1,))


async def test_a_worker_does_not_wait_for_others_for_ever() -> None:
    assert not await Worker(1).links.have_reported(1, 0.01)
    assert await Worker(1).links.have_reported(0, 0.01)
