"""Declared adapters in a router with workers: what parent and worker tell each other."""

import asyncio
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

from lora_router.adapter_assembly import DeclaredParts
from lora_router.adapters.declarations import Declarations
from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.listed_versions import ListedVersions
from lora_router.adapters.plain_sources import PlainSources
from lora_router.adapters.sources import AllowedSources
from lora_router.adapters.templated import MAX_NEW, Templated
from lora_router.adapters.templates import Template
from lora_router.workers import messages
from lora_router.workers.loading import AdaptersOfCrew, AdaptersOfWorker
from lora_router.workers.messages import Asked, Declared, MayLoad, NotLoaded, Wanted
from tests.fleet import ManualClock, make_fleet, state_of
from tests.waiting import until

SQL = DeclaredAdapter("sql", "base", "s3://lora/sql")
TENANTS = Template("base", ("tenant-*",), "s3://lora/{name}")


def parts() -> DeclaredParts:
    declarations, allowed = Declarations(), AllowedSources(["s3://lora"])
    fleet = make_fleet(1, adapters=())
    listed = ListedVersions(fleet)
    templated = Templated(declarations, allowed, fleet, ManualClock(), listed=listed)
    return DeclaredParts(declarations, allowed, templated, PlainSources(declarations), listed)


class Crew:
    """The workers of a parent, without processes."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.members: dict[int, Any] = {}
        self.on_started: list[Callable[[Any], None]] = []
        self.on_asked: Callable[[Any, Any], None] = lambda _member, _asked: None

    def broadcast(self, data: bytes) -> None:
        self.sent.append(messages.from_parent(data))

    def add(self, number: int) -> Any:
        member = self.members[number] = Mock(number=number)
        member.process.send = self.broadcast
        for listener in self.on_started:
            listener(member)
        return member


class FirstUse:
    """Holds the requests of a worker."""

    def __init__(self) -> None:
        self.on_wanted: Callable[[str], None] = lambda _name: None
        self.events: list[tuple[object, ...]] = []

    def waiting(self) -> frozenset[str]:
        return frozenset({"sql"})

    def held(self) -> tuple[str, ...]:
        return ("sql", "base")

    def failed(self, served: str, detail: str, seconds: float) -> None:
        self.events.append((served, detail, seconds))

    def loaded(self, served: str) -> None:
        self.events.append((served,))


async def test_workers_tell_peers_whether_the_parent_may_load_also_those_that_start_later() -> None:
    crew: Any = Crew()
    adapters = AdaptersOfCrew(crew, parts())
    crew.add(1)
    assert MayLoad(may_load=True) not in crew.sent
    adapters.use_may_load(True)
    assert crew.sent[-1] == MayLoad(may_load=True)
    crew.add(2)
    assert crew.sent[-1] == MayLoad(may_load=True)
    adapters.use_may_load(False)
    assert crew.sent[-1] == MayLoad(may_load=False)


async def test_workers_are_told_what_is_declared_also_those_that_start_later() -> None:
    crew: Any = Crew()
    declared, told = parts(), parts()
    AdaptersOfCrew(crew, declared)
    worker = AdaptersOfWorker(told, FirstUse(), make_fleet(1), lambda _: None)  # type: ignore[arg-type]

    declared.templated.replace([TENANTS])
    declared.declarations.replace("file", [SQL])
    declared.templated.want("tenant-a")
    await until(lambda: len(crew.sent) == 2)
    sent = list(crew.sent)
    for message in sent:
        assert isinstance(message, Declared)
        worker.declared(message)
    declaring = asyncio.create_task(worker.keep_declaring())
    await until(lambda: told.templated.templates == (TENANTS,))
    declaring.cancel()

    assert list(told.declarations) == [SQL], "templates declare what this worker is asked for"
    crew.sent.clear()
    crew.add(2)
    assert crew.sent == sent


async def test_a_long_list_is_told_in_parts_and_used_when_all_of_it_has_arrived() -> None:
    crew: Any = Crew()
    declared, told = parts(), parts()
    AdaptersOfCrew(crew, declared)
    worker = AdaptersOfWorker(told, FirstUse(), make_fleet(1), lambda _: None)  # type: ignore[arg-type]
    some = [DeclaredAdapter(f"a-{each}", "base", "s3://lora/a") for each in range(1000)]
    declared.declarations.replace("file", some)
    await until(lambda: bool(crew.sent))
    declaring = asyncio.create_task(worker.keep_declaring())

    *most, last = crew.sent
    assert len(most) == 4
    for message in most:
        worker.declared(message)
    await asyncio.sleep(0)
    assert not len(told.declarations)
    worker.declared(last)
    await until(lambda: list(told.declarations) == some)
    declaring.cancel()


async def test_a_list_that_changes_while_its_parts_are_made_is_told_once() -> None:
    crew: Any = Crew()
    declared = parts()
    AdaptersOfCrew(crew, declared)
    declared.declarations.replace("file", [SQL])
    await asyncio.sleep(0)
    declared.declarations.replace("file", [])
    await until(lambda: bool(crew.sent))
    assert [message.is_last for message in crew.sent] == [True]


async def test_the_parent_hears_what_requests_of_workers_wait_for() -> None:
    crew: Any = Crew()
    declared = parts()
    declared.templated.replace([TENANTS])
    adapters = AdaptersOfCrew(crew, declared)
    wanted: list[str] = []
    adapters.want = wanted.append
    one, two = crew.add(1), crew.add(2)

    crew.on_asked(one, Wanted("tenant-a"))
    crew.on_asked(one, Asked(("tenant-a",), ("tenant-a",), {"sql": 2}))
    crew.on_asked(two, Asked((), ("sql",), {"sql": 3}))

    assert wanted == ["tenant-a"]
    assert declared.declarations.named("tenant-a") is not None
    assert adapters.is_held("tenant-a")
    assert not adapters.is_held("chat")
    demand = adapters.demand()
    assert demand.waiting == {"tenant-a"}
    assert demand.loads == {"tenant-a": 1, "sql": 6}

    del crew.members[1]
    assert not adapters.demand().waiting

    some = [f"tenant-{number}" for number in range(MAX_NEW)]
    for name in some:
        crew.on_asked(two, Wanted(name))
    assert declared.declarations.named(some[-1]) is None
    for name in some:
        adapters.failed(name, "no pod can load it", 3.0)
    crew.on_asked(two, Wanted(some[-1]))
    assert declared.declarations.named(some[-1]) is not None
    assert wanted[-1] == some[-1]


async def test_workers_are_told_what_cannot_be_loaded() -> None:
    crew: Any = Crew()
    adapters = AdaptersOfCrew(crew, parts())
    first_use: Any = FirstUse()
    worker = AdaptersOfWorker(parts(), first_use, make_fleet(1), lambda _: None)

    adapters.failed("sql", "no pod can load it", 3.0)
    adapters.loaded("sql")
    for message in crew.sent:
        assert isinstance(message, NotLoaded)
        worker.not_loaded(message)

    assert first_use.events == [("sql", "no pod can load it", 3.0), ("sql",)]


@pytest.mark.slow
async def test_a_worker_tells_what_is_asked_for_when_it_changes() -> None:
    fleet = make_fleet(2, adapters=("chat",))
    for number in (1, 2):
        fleet.ledger.reserve(state_of(fleet, number), "chat")
    first_use: Any = FirstUse()
    sent: asyncio.Queue[bytes] = asyncio.Queue()
    worker = AdaptersOfWorker(parts(), first_use, fleet, sent.put_nowait)

    first_use.on_wanted("sql")
    telling = asyncio.create_task(worker.keep_telling())
    async with asyncio.timeout(60):
        found = [messages.from_worker(await sent.get()) for _ in range(2)]
    telling.cancel()

    assert found == [Wanted("sql"), Asked(("sql",), ("base", "sql"), {"chat": 2})]
