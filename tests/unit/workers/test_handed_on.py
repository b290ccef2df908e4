"""What the parent knows of the pods, as a worker gets to know it."""

import asyncio
from collections.abc import Callable

import pytest

from lora_router.fleet.catalog import Catalog, ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.lora_spec import LABEL, UNLIMITED, LoraSpec
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_metrics import LoraActivity, LoraResidency, PodMetrics
from lora_router.fleet.reading import ReadFailure, Reading
from lora_router.fleet.reading_bounds import MAX_LABEL_ADAPTERS, MAX_SERIES
from lora_router.routing.priorities import Priorities
from lora_router.scrape.scraper import Scraper
from lora_router.supervision import Supervisor
from lora_router.telemetry.metrics import Telemetry
from lora_router.workers import messages
from lora_router.workers.crew import Crew
from lora_router.workers.handed_on import GATHER_SECONDS, HandedOn
from lora_router.workers.member import Member
from lora_router.workers.received import Received
from tests.unit.workers.test_crew import FakeProcess


def pod(number: int, **changes: object) -> Pod:
    address = f"10.0.0.{number}:8000"
    fields: dict[str, object] = {
        "name": f"ns/pod-{number}",
        "address": address,
        "metrics_url": f"http://{address}/metrics",
        "models_url": f"http://{address}/v1/models",
        "labels": {"tier": "gold"},
        "lora": LoraSpec(4, UNLIMITED, LABEL, ("a", "b"), loads_when_listed=True),
        **changes,
    }
    return Pod(**fields)  # type: ignore[arg-type]


class Worker(FakeProcess):
    """A worker's fleet, which applies what it gets."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.asked: list[messages.FromWorker] = []
        self.received = Received(
            self.fleet, lambda data: self.asked.append(messages.from_worker(data)), now
        )

    def send(self, message: bytes, *, skippable: bool = False) -> None:
        decoded = messages.from_parent(message)
        match decoded:
            case messages.Pods():
                self.received.pods(decoded)
            case messages.Readings():
                self.received.readings(decoded)
            case messages.Synced():
                self.fleet.synced = True
            case _:
                self.sent.append(decoded)


class Site:
    """A parent's fleet and some workers. Nothing is scraped."""

    def __init__(self) -> None:
        self.now = 500.0
        self.fleet = Fleet()
        self.scraper = Scraper(self.fleet, Telemetry(Fleet()), clock=lambda: self.now)
        self.supervisor = Supervisor()
        self.crew = Crew(2, self._start, self.supervisor)
        self.priorities = Priorities()
        self.handed_on = HandedOn(
            self.fleet, self.crew, self.scraper, self.priorities, clock=lambda: self.now
        )

    async def _start(self, _number: int) -> FakeProcess:
        raise AssertionError("workers are added by hand")

    def add_worker(self, number: int) -> Worker:
        worker = Worker(lambda: self.now)
        member = Member(number, worker)
        worker.on_message(lambda _data: None)
        self.crew.members[number] = member
        for listener in self.crew.on_started:
            listener(member)
        return worker

    def read(self, number: int, found: PodMetrics | Catalog | ReadFailure) -> None:
        """Let the scraper read something of a pod."""
        state = self.fleet.get(f"ns/pod-{number}")
        assert state is not None
        reading = Reading(state, self.now, found)
        if isinstance(found, PodMetrics):
            self.fleet.put_metrics(state, found)
        elif isinstance(found, Catalog):
            self.fleet.put_models(state, found)
        self.scraper.followers.read(reading)


@pytest.fixture
async def handing() -> Site:
    return Site()


async def gathered() -> None:
    """Wait until what was read has been handed on."""
    await asyncio.sleep(3 * GATHER_SECONDS)


CATALOG = Catalog.of([ServedModel("base"), ServedModel("a", "base"), ServedModel("b", "base")])


def snapshot(now: float) -> PodMetrics:
    lora = LoraActivity(4, frozenset({"a"}), frozenset({"b"}), 1.5)
    return PodMetrics(now, running=3, waiting=1, kv_cache_usage=0.5, lora=lora)


async def test_workers_know_the_pods_and_what_was_read(handing: Site) -> None:
    workers = [handing.add_worker(1), handing.add_worker(2)]
    handing.fleet.replace([pod(1), pod(2, models=("base", "x"), ready=False)])
    handing.read(1, CATALOG)
    handing.read(1, snapshot(handing.now))
    await gathered()
    for worker in workers:
        assert [state.pod for state in worker.fleet] == [state.pod for state in handing.fleet]
        state = worker.fleet.get("ns/pod-1")
        assert state is not None
        assert state.metrics is not None
        assert state.metrics.running == 3
        assert state.metrics.lora is not None
        assert state.metrics.lora.active == {"a", "b"}
        assert set(state.adapters) == {"a", "b"}
        assert worker.fleet.serving("a").pods


def names_of(number: int, length: int = 30) -> frozenset[str]:
    return frozenset(f"{each:0{length}d}" for each in range(number))


@pytest.mark.parametrize(
    ("running", "resident"),
    [
        pytest.param(names_of(250, 40), None, id="a queue with many adapters"),
        pytest.param(names_of(MAX_LABEL_ADAPTERS), names_of(MAX_SERIES, 50), id="all it reads"),
    ],
)
async def test_workers_know_as_many_adapters_of_a_pod_as_the_scraper_reads(
    handing: Site, running: frozenset[str], resident: frozenset[str] | None
) -> None:
    worker = handing.add_worker(1)
    handing.fleet.replace([pod(1)])
    lora = LoraActivity(8, running, frozenset(), 1.5)
    loaded = None if resident is None else LoraResidency(resident, frozenset(), 8)
    handing.read(1, PodMetrics(handing.now, running=8, waiting=300, lora=lora, residency=loaded))
    await gathered()
    late = handing.add_worker(2)
    for each in (worker, late):
        state = each.fleet.get("ns/pod-1")
        assert state is not None
        assert state.metrics is not None
        assert (state.metrics.waiting, state.metrics.lora) == (300, lora)
        assert state.metrics.residency == loaded
    assert handing.handed_on.nameless == 0


async def test_of_a_pod_with_names_that_cannot_be_told_workers_know_the_load(
    handing: Site, caplog: pytest.LogCaptureFixture
) -> None:
    worker = handing.add_worker(1)
    handing.fleet.replace([pod(1)])
    broken = frozenset({"a", "\ud800"})
    found = PodMetrics(
        handing.now,
        running=8,
        lora=LoraActivity(8, broken, broken, 1.5),
        residency=LoraResidency(broken, frozenset(), 8),
    )
    handing.read(1, found)
    await gathered()
    state = worker.fleet.get("ns/pod-1")
    assert state is not None
    # Which adapters are loaded is unknown. That none is would be wrong.
    lora = LoraActivity(8, frozenset(), frozenset(), 1.5)
    assert state.metrics == PodMetrics(handing.now, running=8, lora=lora)
    assert handing.handed_on.nameless == 1
    assert "pod ns/pod-1: workers are not told the names of adapters" in caplog.text


async def test_what_the_parent_told_and_cannot_be_read_is_logged(
    handing: Site, caplog: pytest.LogCaptureFixture
) -> None:
    worker = handing.add_worker(1)
    worker.received.readings(messages.Readings(b"\xff"))
    worker.received.readings(messages.Readings(b""))
    assert "what the parent told of pods is unusable" in caplog.text


async def test_workers_know_the_priorities_of_objectives(handing: Site) -> None:
    early = handing.add_worker(1)
    handing.priorities.put({"chat": 10})
    handing.priorities.put({"chat": 10})
    late = handing.add_worker(2)
    told = messages.Objectives({"chat": 10})
    assert [each for each in early.sent if each == told] == [told]
    assert told in late.sent

    handing.priorities.put({})
    assert messages.Objectives({}) in late.sent


@pytest.mark.slow
async def test_metrics_of_several_pods_wait_for_each_other_and_news_takes_them_along(
    handing: Site,
) -> None:
    worker = handing.add_worker(1)
    handing.fleet.replace([pod(1), pod(2)])
    handing.read(1, snapshot(handing.now))
    handing.read(2, snapshot(handing.now))
    await gathered()
    arrived: list[int] = []
    send = worker.send

    def counted(message: bytes, *, skippable: bool = False) -> None:
        arrived.append(len(message))
        send(message, skippable=skippable)

    worker.send = counted  # type: ignore[method-assign]
    handing.now += 0.25
    handing.read(1, snapshot(handing.now))
    handing.read(2, snapshot(handing.now))
    await gathered()
    assert len(arrived) == 1
    # What all workers get alike, and the list of one pod, in an order that they accept.
    handing.now += 0.25
    handing.read(1, snapshot(handing.now))
    handing.read(2, CATALOG)
    await gathered()
    assert len(arrived) > 1
    states = {state.pod.name: state for state in worker.fleet}
    metrics = states["ns/pod-1"].metrics
    assert metrics is not None
    assert metrics.scraped_at == handing.now
    assert set(states["ns/pod-2"].adapters) == {"a", "b"}


async def test_a_worker_that_starts_later_knows_as_much(handing: Site) -> None:
    handing.fleet.replace([pod(1), pod(2)])
    handing.read(1, CATALOG)
    handing.read(1, snapshot(handing.now))
    handing.handed_on.synced()
    worker = handing.add_worker(1)
    assert worker.fleet.synced
    assert len(worker.fleet) == 2
    state = worker.fleet.get("ns/pod-1")
    assert state is not None
    assert (state.metrics is not None, set(state.adapters)) == (True, {"a", "b"})


async def test_pods_that_change_or_leave(handing: Site) -> None:
    worker = handing.add_worker(1)
    handing.fleet.replace([pod(1), pod(2)])
    handing.fleet.update([pod(1, ready=False)], gone=["ns/pod-2"])
    assert [(s.pod.name, s.pod.ready) for s in worker.fleet] == [("ns/pod-1", False)]
    # Another server under the same name begins without what was known of the old one.
    handing.fleet.update([pod(1, address="10.0.0.9:8000")])
    handing.read(1, snapshot(handing.now))
    handing.fleet.update([pod(1, address="10.0.0.8:8000")])
    await gathered()
    state = worker.fleet.get("ns/pod-1")
    assert state is not None
    assert (state.pod.address, state.metrics) == ("10.0.0.8:8000", None)


async def test_failed_reads_are_evidence_for_workers_too(handing: Site) -> None:
    worker = handing.add_worker(1)
    handing.fleet.replace([pod(1)])
    handing.read(1, ReadFailure("metrics", "connect", unreachable=True))
    handing.read(1, ReadFailure("models", "connect", unreachable=True))
    await gathered()
    state = worker.fleet.get("ns/pod-1")
    assert state is not None
    assert (state.scrape_failures, state.unreachable_scrapes) == (1, 1)


async def test_a_list_is_sent_once_however_many_pods_have_it(handing: Site) -> None:
    worker = handing.add_worker(1)
    long = Catalog.of([ServedModel(f"adapter-{n}", "base") for n in range(5000)])
    handing.fleet.replace([pod(n) for n in range(1, 30)])
    sizes: list[int] = []
    send = worker.send

    def measured(message: bytes, *, skippable: bool = False) -> None:
        sizes.append(len(message))
        send(message, skippable=skippable)

    worker.send = measured  # type: ignore[method-assign]
    for number in range(1, 30):
        handing.read(number, long)
    await gathered()
    assert sum(sizes) < 300_000
    assert all(len(state.adapters) == 5000 for state in worker.fleet)


@pytest.mark.slow
async def test_many_pods_come_in_several_messages(handing: Site) -> None:
    worker = handing.add_worker(1)
    handing.fleet.replace([pod(n, address=f"h{n}:1") for n in range(500)])
    assert len(worker.fleet) == 500
    handing.fleet.replace([])
    assert len(worker.fleet) == 0


async def test_a_worker_asks_for_a_look_once_and_not_again_at_once(handing: Site) -> None:
    worker = handing.add_worker(1)
    assert worker.received.look()
    assert worker.received.look()
    assert worker.asked == [messages.LookAgain()]
    worker.received.looked()
    assert not worker.received.look()
    handing.now += 1
    assert worker.received.look()
    assert len(worker.asked) == 2
