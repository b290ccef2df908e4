"""The crew: workers that end are replaced, and what is known of those that run."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from lora_router import supervision
from lora_router.supervision import Supervisor
from lora_router.workers import messages
from lora_router.workers.crew import HUNG_SECONDS, START_SECONDS, Crew, WorkerStartError
from lora_router.workers.member import Member
from lora_router.workers.messages import Failed, Family, Status


class FakeProcess:
    """A worker without a process: a test says what it sends and when it ends."""

    pids = iter(range(100, 10_000))

    def __init__(self) -> None:
        self.pid = next(self.pids)
        self.reads = True
        self.sent: list[messages.FromParent] = []
        self.handed: list[bytes] = []
        self.takes = True
        self.is_closed = False
        self._over: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def on_message(self, receive: Callable[[bytes], None]) -> None:
        self._receive = receive

    def send(self, message: bytes, *, skippable: bool = False) -> None:
        self.sent.append(messages.from_parent(message))

    def hand(self, tag: bytes, sent: socket.socket) -> bool:
        if self.takes:
            self.handed.append(tag)
        return self.takes

    def kill(self) -> None:
        self.end(-9)

    def end(self, status: int) -> None:
        if not self._over.done():
            self._over.set_result(status)

    async def ended(self) -> int:
        return await self._over

    def close(self) -> None:
        self.is_closed = True

    def says(self, message: messages.FromWorker) -> None:
        self._receive(messages.encode(message))

    def reports(
        self, *, ready: bool = True, connections: int = 0, links: tuple[int, ...] = ()
    ) -> None:
        details = json.dumps({"pods": 3}).encode()
        reason = "ready" if ready else "waiting for the first scrape of the pods"
        # All connections that it was handed have arrived.
        received = self.handed.count(b"c")
        self.says(Status(ready, reason, details, received, connections, 7, links))


class Ship:
    """A crew of two, whose processes a test plays."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.started: list[FakeProcess] = []
        self.supervisor = Supervisor()
        self.crew = Crew(2, self._start, self.supervisor, clock=lambda: self.now)

    async def _start(self, _number: int) -> FakeProcess:
        process = FakeProcess()
        self.started.append(process)
        return process

    def member(self, number: int) -> Member:
        return self.crew.members[number]

    def process(self, number: int) -> FakeProcess:
        process = self.member(number).process
        assert isinstance(process, FakeProcess)
        return process

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.001)

    async def sail(self) -> None:
        """Start both workers; both are ready."""
        self.crew.start()
        await self.until(lambda: len(self.crew.members) == 2)
        for number in (1, 2):
            self.process(number).reports()

    def wait(self, seconds: float) -> None:
        """Let time pass without reports."""
        while seconds > 0:
            self.now += min(seconds, 0.25)
            seconds -= 0.25
            self.crew.tick()


@pytest.fixture
async def ship(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ship]:
    monkeypatch.setattr(supervision, "FIRST_BACKOFF_SECONDS", 0.001)
    ship = Ship()
    yield ship
    ship.crew.kill()
    await ship.supervisor.stop()


async def test_a_worker_that_ends_is_started_again(ship: Ship) -> None:
    await ship.sail()
    assert ship.crew.problem() is None
    before = ship.process(1)

    before.end(-11)
    await ship.until(lambda: 1 in ship.crew.members and ship.process(1) is not before)

    assert before.is_closed
    assert ship.crew.restarts == 1
    # The other one serves meanwhile.
    assert ship.crew.problem() is None
    assert ship.crew.not_ready() == "worker 1 is not ready: starting"
    ship.process(1).reports()
    assert (ship.crew.not_ready(), ship.crew.ready) == ("", 2)


async def test_it_is_not_ready_before_all_workers_are_and_while_none_is(ship: Ship) -> None:
    ship.crew.start()
    await ship.until(lambda: len(ship.crew.members) == 2)
    ship.process(1).reports()
    assert ship.crew.problem() == "worker 2 is not ready: starting"
    ship.process(2).reports(ready=False)
    assert ship.crew.problem() == (
        "worker 2 is not ready: waiting for the first scrape of the pods"
    )
    ship.process(2).reports()
    assert ship.crew.problem() is None
    for number in (1, 2):
        ship.process(number).reports(ready=False)
    problem = ship.crew.problem()
    assert problem is not None
    assert problem.startswith("worker 1 is not ready: waiting")


async def test_the_start_fails_with_the_error_of_a_worker(ship: Ship) -> None:
    ship.crew.start()
    await ship.until(lambda: len(ship.crew.members) == 2)
    ship.process(2).says(Failed("the key does not fit the certificate"))
    with pytest.raises(WorkerStartError, match="the key does not fit"):
        await ship.crew.started()


async def test_a_worker_that_hangs_is_replaced(ship: Ship) -> None:
    await ship.sail()
    hangs = ship.process(2)
    for _ in range(int(HUNG_SECONDS)):
        ship.process(1).reports()
        ship.wait(1.0)
    assert ship.crew.not_ready().startswith("worker 2 is not ready: no report for")
    ship.wait(0.5)
    await ship.until(lambda: 2 in ship.crew.members and ship.process(2) is not hangs)
    assert ship.crew.restarts == 1


async def test_a_worker_that_never_reports_is_replaced_later(ship: Ship) -> None:
    ship.crew.start()
    await ship.until(lambda: len(ship.crew.members) == 2)
    first = list(ship.started)
    ship.wait(START_SECONDS - 1)
    assert [ship.process(1), ship.process(2)] == first
    ship.wait(2)
    await ship.until(lambda: len(ship.started) == 4)


async def test_time_in_which_the_parent_was_stopped_does_not_count(ship: Ship) -> None:
    await ship.sail()
    ship.now += 3600
    ship.crew.tick()
    assert ship.crew.not_ready() == ""
    assert ship.crew.restarts == 0


async def test_a_worker_that_does_not_read_is_replaced(ship: Ship) -> None:
    await ship.sail()
    ship.process(1).reads = False
    ship.wait(0.25)
    await ship.until(lambda: ship.crew.restarts == 1)


async def test_workers_get_links_to_each_other_and_new_ones_if_they_lose_them(ship: Ship) -> None:
    await ship.sail()
    assert (ship.process(1).handed, ship.process(2).handed) == ([b"o2"], [b"a1"])
    ship.process(1).reports(links=(2,))
    ship.process(2).reports(links=(1,))
    ship.wait(10)
    assert len(ship.process(1).handed) == 1
    ship.process(2).reports()
    ship.wait(1)
    assert (ship.process(1).handed, ship.process(2).handed) == ([b"o2"] * 2, [b"a1"] * 2)
    ship.wait(1)  # They have time to use it.
    assert len(ship.process(1).handed) == 2


async def test_connections_go_to_the_worker_with_the_fewest_that_takes_them(ship: Ship) -> None:
    await ship.sail()
    ship.process(1).handed.clear()
    ship.process(2).handed.clear()
    one, other = socket.socketpair()
    with one, other:
        for _ in range(3):
            assert ship.crew.place(one)
        assert (ship.process(1).handed, ship.process(2).handed) == ([b"c", b"c"], [b"c"])
        ship.process(2).takes = False
        assert ship.crew.place(one)
        assert len(ship.process(1).handed) == 3
        ship.process(1).takes = False
        assert not ship.crew.place(one)


async def test_a_fresh_worker_gets_connections_that_others_give_away(ship: Ship) -> None:
    await ship.sail()
    ship.process(1).handed += [b"c"] * 4
    ship.member(1).share.placed = 4
    ship.process(1).reports(connections=4, links=(2,))
    ship.process(2).reports(links=(1,))
    ship.wait(0.25)
    assert ship.process(1).sent == []  # Not sooner than some seconds after the start.
    for _ in range(10):
        ship.wait(0.25)
        ship.process(1).reports(connections=4, links=(2,))
        ship.process(2).reports(links=(1,))
    assert ship.process(1).sent == [messages.Shed()]


async def test_warm_workers_wait_for_those_that_run_already(ship: Ship) -> None:
    await ship.sail()
    warming = asyncio.ensure_future(ship.crew.warm())
    await asyncio.wait_for(warming, 60)
    assert messages.Warm(1) in ship.process(1).sent
    before = ship.process(1)
    before.end(1)
    await ship.until(lambda: 1 in ship.crew.members and ship.process(1) is not before)
    assert ship.process(1).sent == []
    ship.process(1).reports(ready=False)
    assert ship.process(1).sent == [messages.Warm(1)]


async def test_metrics_of_all_are_asked_for_and_counters_of_those_that_ended_are_kept(
    ship: Ship,
) -> None:
    await ship.sail()
    family = Family("a", "A", "counter", (("a_total", (), 5.0),))

    async def answer(question: int, worker: int) -> None:
        process = ship.process(worker)
        await ship.until(lambda: messages.AskMetrics(question) in process.sent)
        process.says(messages.Metrics(question, (family,)))

    pages, *_ = await asyncio.gather(ship.crew.metrics(), answer(1, 1), answer(1, 2))
    assert [list(page) for page in pages] == [[], [family], [family]]
    # One that ends while it is asked does not delay the page.
    asking = asyncio.ensure_future(ship.crew.metrics())
    await answer(2, 2)
    ship.process(1).end(-9)
    pages = await asyncio.wait_for(asking, 60)
    assert pages[0] == (family,)


async def test_a_worker_that_looks_again_is_told_of_the_end_of_the_round(ship: Ship) -> None:
    await ship.sail()
    rounds: list[bool] = []

    def look() -> bool:
        rounds.append(True)
        return True

    ship.crew.on_look = look
    ship.process(2).says(messages.LookAgain())
    assert rounds == [True]
    ship.crew.looked()
    assert ship.process(2).sent == [messages.Looked()]
    assert ship.process(1).sent == []
    # All lists are recent: there is no round.
    ship.crew.on_look = lambda: False
    ship.process(1).says(messages.LookAgain())
    assert ship.process(1).sent == [messages.Looked()]


async def test_a_drain_ends_all_and_starts_none(ship: Ship) -> None:
    await ship.sail()
    ship.crew.drain()
    assert ship.process(1).sent == [messages.Drain()]
    ship.process(1).end(0)
    await ship.until(lambda: 1 not in ship.crew.members)
    ending = asyncio.ensure_future(ship.crew.ended(0.05))
    await asyncio.wait_for(ending, 60)  # The other one hangs, and is killed.
    await ship.until(lambda: not ship.crew.members)
    assert len(ship.started) == 2
    assert ship.crew.restarts == 0


async def test_the_page_says_what_each_worker_reported(ship: Ship) -> None:
    await ship.sail()
    status = ship.crew.status()
    assert status["worker_restarts"] == 0
    workers = status["workers"]
    assert isinstance(workers, dict)
    assert workers["1"] == {
        "ready": True,
        "reason": "ready",
        "pid": ship.process(1).pid,
        "connections": 0,
        "streams": 7,
        "pods": 3,
    }


async def test_workers_with_peers_on_other_hosts_also_get_a_way_for_streams_of_these() -> None:
    ship = Ship()
    ship.crew = Crew(2, ship._start, ship.supervisor, relays=True, clock=lambda: ship.now)
    await ship.sail()
    assert (ship.process(1).handed, ship.process(2).handed) == ([b"o2", b"r2"], [b"a1", b"r1"])
    ship.crew.kill()
    await ship.supervisor.stop()
