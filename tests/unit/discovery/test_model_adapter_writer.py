"""Statuses are written by the router that loads, when they change, and not too often."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lora_router.adapters.adapter_state import AdapterState
from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.fit_counts import FitCount
from lora_router.discovery import model_adapter_writer
from lora_router.discovery.kubernetes_api import ApiError, CredentialsError
from lora_router.discovery.model_adapter_object import ModelAdapterStatus
from lora_router.discovery.model_adapter_record import Key, ModelAdapter
from lora_router.discovery.model_adapter_writer import StatusWriter
from lora_router.loader_metrics import RESULTS
from tests.unit.discovery.model_adapter_objects import model_adapter, record

SQL = Key("ml", "sql")


def test_the_metric_has_each_result_that_the_writer_counts() -> None:
    code = Path(model_adapter_writer.__file__).read_text()

    assert set(re.findall(r'self\.writes\["(\w+)"\]', code)) == set(RESULTS)


class Cluster:
    """Resources, an API server that has them, the time, and the state of the fleet."""

    def __init__(self, *records: ModelAdapter) -> None:
        self.records = {each.key: each for each in records}
        self.listeners: list[Callable[[Key], None]] = []
        self.states: dict[str, AdapterState] = {}
        self.in_use: dict[str, DeclaredAdapter | str | None] = {}
        self.now = 1000.0
        self.loads = True
        self.written: list[tuple[float, str, ModelAdapterStatus]] = []
        self.failures: list[ApiError | CredentialsError] = []
        self.open = 0
        self.lags = False
        """Whether the watch brings nothing."""
        self.fields = 6
        """Fields of a status that the cluster's definition has."""
        self.writer = StatusWriter(
            self,
            self,
            self._open_store,
            may_write=lambda: self.loads,
            in_use=lambda adapter: self.in_use.get(adapter.name, adapter),
            clock=lambda: self.now,
            sleep=self._sleep,
            wall_clock=lambda: datetime.fromtimestamp(self.now, UTC),
        )

    # The resources

    def __iter__(self) -> Iterator[ModelAdapter]:
        return iter(tuple(self.records.values()))

    def get(self, key: Key) -> ModelAdapter | None:
        return self.records.get(key)

    def subscribe(self, listener: Callable[[Key], None]) -> None:
        self.listeners.append(listener)

    def put(self, each: ModelAdapter) -> None:
        self.records[each.key] = each
        for listener in self.listeners:
            listener(each.key)

    # The fleet

    def forget(self) -> None: ...

    def read(self, adapter: DeclaredAdapter) -> AdapterState:
        return self.states.get(adapter.name, AdapterState(pods=FitCount(1, 1), placed=1))

    def loaded(self, pods: int, name: str = "sql") -> None:
        names = tuple(f"ml/p{number}" for number in range(pods))
        self.states[name] = AdapterState(
            pods=FitCount(9, 9), placed=9, loaded=pods, instances=names
        )

    # The API server

    async def _open_store(self) -> "Cluster":
        self.open += 1
        return self

    async def write(self, found: ModelAdapter, status: ModelAdapterStatus) -> str:
        if self.failures:
            raise self.failures.pop(0)
        self.written.append((self.now, found.key.name, status))
        version = str(int(found.version) + 1)
        if self.fields < 6:
            status = ModelAdapterStatus(status.phase, conditions=status.conditions)
        if not self.lags:
            self.put(dataclasses.replace(found, status=status, version=version))
        return version

    async def close(self) -> None:
        self.open -= 1

    # Time

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds

    async def rounds(self, number: int = 1) -> list[str]:
        """Let the writer look at everything. Returns the phases that it wrote."""
        before = len(self.written)
        for _ in range(number):
            try:
                await self.writer._round()
            except (ApiError, CredentialsError) as error:
                await self.writer._failed(error)
            self.now += 1.0
        return [status.phase for _, _, status in self.written[before:]]


async def test_a_status_is_written_when_it_changes_and_not_again() -> None:
    cluster = Cluster(record())
    assert await cluster.rounds(5) == ["Scheduled"]
    cluster.loaded(2)
    assert await cluster.rounds(5) == ["Running"]
    times = {
        each.type: each.last_transition_time for each in cluster.records[SQL].status.conditions
    }
    assert times["Ready"] > times["Initialized"] == "1970-01-01T00:16:40Z"
    assert cluster.writer.writes == {"written": 2}


async def test_a_router_that_does_not_load_writes_nothing_and_keeps_no_connection() -> None:
    cluster = Cluster(record())
    assert await cluster.rounds() == ["Scheduled"]
    assert cluster.open == 1
    cluster.loads = False
    cluster.loaded(1)
    assert await cluster.rounds(3) == []
    assert cluster.open == 0


@pytest.mark.slow
async def test_writes_are_limited_for_all_and_for_each() -> None:
    cluster = Cluster(*(record(model_adapter(f"a-{number}")) for number in range(100)))
    assert len(await cluster.rounds()) == 100
    first, *_, last = (at for at, _, _ in cluster.written)
    assert last - first > 98 / model_adapter_writer.WRITES_PER_SECOND
    began = len(cluster.written)
    for number in range(100):
        cluster.loaded(number % 2 + 1, "a-0")
        await cluster.writer._round()
        cluster.now += 0.1
    assert len(cluster.written) - began <= 10 + 1


async def test_a_write_that_lost_against_another_waits_for_the_newest_version() -> None:
    cluster = Cluster(record())
    cluster.failures = [ApiError("conflict", "status 409")]
    assert await cluster.rounds(3) == []
    assert cluster.writer.writes == {"conflict": 1}
    cluster.put(dataclasses.replace(record(), version="7"))
    assert await cluster.rounds(3) == ["Scheduled"]
    cluster.failures = [ApiError("missing", "status 404")]
    cluster.loaded(1)
    await cluster.rounds()
    del cluster.records[SQL]
    assert await cluster.rounds(20) == []
    assert cluster.writer.error is None


async def test_a_watch_that_lags_leads_to_no_second_write() -> None:
    cluster = Cluster(record())
    cluster.lags = True
    assert await cluster.rounds(60) == ["Scheduled"]
    cluster.loaded(1)
    assert await cluster.rounds(2) == ["Running"]


async def test_a_definition_with_fewer_fields_leads_to_no_second_write() -> None:
    cluster = Cluster(record())
    cluster.fields = 2
    cluster.loaded(1)
    assert await cluster.rounds(60) == ["Running"]
    cluster.loaded(2)
    assert await cluster.rounds(2) == ["Running"]


async def test_two_writers_do_not_fight() -> None:
    cluster = Cluster(record())
    writes = 0
    for second in range(1000):
        writes += len(await cluster.rounds())
        found = cluster.records[SQL]
        if found.status.phase == "Scheduled":
            theirs = ModelAdapterStatus("Bound")
            writers = frozenset({("other", str(second))})
            version = str(int(found.version) + 1)
            cluster.put(dataclasses.replace(found, status=theirs, version=version, writers=writers))
    assert 5 < writes < 15


async def test_a_router_without_a_pod_for_it_leaves_the_status_of_another_fleet() -> None:
    theirs = model_adapter(writers=[("lora-router/b", "T1")], status={"phase": "Running"})
    cluster = Cluster(record(theirs))
    cluster.states["sql"] = AdapterState()
    assert await cluster.rounds(3) == []
    cluster.states["sql"] = AdapterState(pods=FitCount(1, 1), placed=1)
    assert await cluster.rounds(3) == ["Scheduled"]
    # What AIBrix's controller has left is no such status.
    old = model_adapter("old", writers=[("manager", "T1")], status={"phase": "Running"})
    cluster.states["old"] = AdapterState()
    cluster.put(record(old))
    assert await cluster.rounds(3) == ["Pending"]
    left = dataclasses.replace(record(model_adapter("left")), left_to="AIBrix's controller")
    cluster.put(left)
    assert await cluster.rounds(3) == []


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ApiError("forbidden", "status 403: no"), "the Role needs patch for modeladapters/status"),
        (ApiError("connect", "refused"), "refused"),
        (CredentialsError("no token"), "no token"),
    ],
)
async def test_a_server_that_refuses_is_asked_again_after_a_growing_pause(
    error: ApiError | CredentialsError, shown: str
) -> None:
    cluster = Cluster(record())
    cluster.failures = [error] * 8
    began = cluster.now
    assert await cluster.rounds(4) == []
    text = cluster.writer.status()["model_adapter_status_error"]
    assert isinstance(text, str)
    assert shown in text
    assert await cluster.rounds(40) == ["Scheduled"]
    assert cluster.now - began > 0.5 + 1 + 2 + 4 + 8
    assert cluster.writer.status() == {}


async def test_one_status_that_the_server_refuses_does_not_stop_the_others() -> None:
    cluster = Cluster(record(), record(model_adapter("chat")))
    cluster.failures = [ApiError("status", "status 422: no")]
    assert await cluster.rounds(5) == ["Scheduled"]
    assert await cluster.rounds(60) == ["Scheduled"]
    assert cluster.writer.error is None


async def test_the_status_is_that_of_the_adapter_in_use() -> None:
    cluster = Cluster(record())
    cluster.in_use = {"sql": None}
    assert await cluster.rounds(3) == []
    cluster.in_use = {"sql": "'sql' is declared already"}
    assert await cluster.rounds(3) == ["Failed"]
    assert cluster.written[0][2].conditions[0].message == "'sql' is declared already"
    cluster.in_use = {"sql": DeclaredAdapter("other", "base", "org/sql")}
    cluster.loaded(1, "other")
    assert await cluster.rounds(3) == ["Running"]
