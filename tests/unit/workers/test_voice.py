"""One worker speaks for the parent, to routers on other hosts."""

from collections.abc import AsyncIterator
from functools import partial

import pytest

from lora_router.loop_clock import LoopClock
from lora_router.peering.pb.readings_pb2 import Readings
from lora_router.peering.report_reader import ReportError
from lora_router.supervision import Supervisor
from lora_router.workers import messages
from lora_router.workers.addresses import FoundAddresses, ToldAddresses
from lora_router.workers.framing import FramedProtocol
from lora_router.workers.member import Member
from lora_router.workers.messages import Addresses, Heard, Speak, Status, Tell
from lora_router.workers.voice import PassedReadings, Voice
from tests.unit.workers.test_crew import FakeProcess, Ship


class Exchange:
    """What the parent does with readings."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Readings]] = []
        self.forgotten: list[str] = []
        self.error: ReportError | None = None

    def take(self) -> list[bytes]:
        return []

    def received(self, name: str, message: Readings) -> None:
        if self.error is not None:
            raise self.error
        self.heard.append((name, message))

    def gone(self, name: str) -> None:
        self.forgotten.append(name)


class Talk:
    """A crew of two, and the parent's voice."""

    def __init__(self, ship: Ship) -> None:
        self.ship = ship
        self.voice = Voice(ship.crew, LoopClock())
        self.exchange = self.voice.readings = Exchange()
        self.names: list[str] = []
        self.voice.on_named = self.names.append

    def report(self, number: int, *peers: str) -> None:
        process = self.ship.process(number)
        process.says(Status(True, "ready", b"{}", 0, 0, 0, (), f"worker-{number}", peers))

    def told(self, number: int) -> list[messages.FromParent]:
        sent = self.ship.process(number).sent
        return [each for each in sent if isinstance(each, Speak | Tell)]


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    ship = Ship()
    talk = Talk(ship)
    ship.crew.start()
    await ship.until(lambda: len(ship.crew.members) == 2)
    yield talk
    ship.crew.kill()
    await ship.supervisor.stop()


async def test_the_parent_knows_which_peers_may_load(talk: Talk) -> None:
    process = talk.ship.process(1)
    process.says(Status(True, "", b"{}", 0, 0, 0, (), "worker-1", ("far", "off"), ("off",)))
    assert talk.voice.peers == {"far", "off"}
    assert list(talk.voice.loaders()) == ["off"]


async def test_the_first_worker_that_reports_speaks(talk: Talk) -> None:
    talk.report(2, "far")
    talk.report(1, "far")
    assert (talk.names, talk.voice.name) == (["worker-2"], "worker-2")
    assert talk.voice.peers == {"far"}
    assert (talk.told(1), talk.told(2)) == ([], [Speak(speaks=True)])

    talk.voice.send_to_all(b"message")
    assert talk.told(2)[-1] == Tell(b"message")


async def test_another_worker_speaks_when_it_ends(talk: Talk) -> None:
    talk.report(1, "far", "farther")
    talk.ship.process(1).end(-9)
    await talk.ship.until(lambda: not isinstance(talk.ship.crew.members.get(1), Member))
    talk.report(2, "far")
    assert talk.names == ["worker-1", "worker-2"]
    assert talk.told(2) == [Speak(speaks=True)]
    assert talk.exchange.forgotten == ["farther"]


async def test_another_worker_speaks_when_it_hangs(talk: Talk) -> None:
    talk.report(1, "far")
    talk.ship.wait(1.5)
    talk.report(2, "far")
    assert talk.names == ["worker-1", "worker-2"]
    assert talk.told(1) == [Speak(speaks=True), Speak(speaks=False)]


async def test_a_peer_that_is_gone_is_no_reader_any_more(talk: Talk) -> None:
    talk.report(1, "far")
    talk.report(1)
    assert (talk.exchange.forgotten, talk.voice.peers) == (["far"], frozenset())


async def test_what_the_worker_hears_of_pods_is_used_and_what_others_hear_is_not(
    talk: Talk,
) -> None:
    talk.report(1, "far")
    talk.report(2, "far")
    heard = Heard("far", Readings(interval_ms=250).SerializeToString())
    talk.ship.process(1).says(heard)
    talk.ship.process(2).says(heard)
    assert [name for name, _ in talk.exchange.heard] == ["far"]


@pytest.mark.parametrize("readings", [b"\xff\xff", b""])
async def test_nonsense_is_logged_and_nothing_else(
    readings: bytes, talk: Talk, caplog: pytest.LogCaptureFixture
) -> None:
    talk.report(1, "far")
    talk.exchange.error = ReportError("malformed", "it is nonsense")
    talk.ship.process(1).says(Heard("far", readings))
    assert "what peer far told of pods was rejected" in caplog.text


class Control(FramedProtocol):
    """What a worker sent to its parent."""

    def __init__(self) -> None:
        super().__init__(lambda _data: None, lambda: None, max_bytes=1000)
        self.sent: list[messages.FromWorker] = []
        self.waiting = 0

    @property
    def unsent(self) -> int:
        return self.waiting

    def send(self, message: bytes) -> None:
        self.sent.append(messages.from_worker(message))


async def test_a_worker_hands_readings_on_while_it_speaks_and_the_parent_reads() -> None:
    control, gone = Control(), list[bool]()
    passed = PassedReadings(control, lambda: gone.append(True))
    passed.received("far", Readings())
    assert control.sent == []
    passed.speaks = True
    passed.received("far", Readings(interval_ms=250))
    assert control.sent == [Heard("far", Readings(interval_ms=250).SerializeToString())]
    control.waiting = 1 << 30
    passed.received("far", Readings())
    assert len(control.sent) == 1
    passed.gone("far")
    assert gone == [True]


class Source:
    """Finds what a test says."""

    is_complete = True

    def __init__(self) -> None:
        self.addresses = ToldAddresses()
        self.follow = self.addresses.follow


async def test_all_workers_are_told_where_peers_are_once_and_those_that_start_later(
    talk: Talk,
) -> None:
    ship, source = talk.ship, Source()
    supervisor = Supervisor()
    found = FoundAddresses(ship.crew, source, supervisor)
    found.start()
    here = Addresses((("10.0.0.1:50052", "a"), ("10.0.0.2:50052", "a")))

    def told(process: FakeProcess) -> list[messages.FromParent]:
        return [each for each in process.sent if isinstance(each, Addresses)]

    source.addresses.told(here)
    await ship.until(lambda: all(told(ship.process(number)) for number in (1, 2)))
    source.addresses.told(Addresses(here.addresses[::-1]))
    ship.process(2).end(1)
    await ship.until(lambda: 2 in ship.crew.members and len(ship.started) == 3)
    assert [told(process) for process in ship.started] == [[here]] * 3
    await supervisor.stop()


async def test_workers_are_told_whether_further_addresses_are_to_be_found(talk: Talk) -> None:
    ship, source = talk.ship, Source()
    source.is_complete = False
    supervisor = Supervisor()
    FoundAddresses(ship.crew, source, supervisor).start()
    here = (("10.0.0.1:50052", "a"),)
    told = ToldAddresses()
    assert not told.is_complete

    for is_complete in (False, True):
        source.is_complete = is_complete
        source.addresses.told(Addresses(here))
        message = Addresses(here, is_complete)
        await ship.until(partial(ship.process(1).sent.__contains__, message))
        told.told(message)
        assert told.is_complete is is_complete
    await supervisor.stop()
