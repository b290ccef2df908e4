"""The router as a whole: what it says of itself, and that stopping stops everything."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lora_router import app as app_module
from lora_router import supervision
from lora_router.app import App
from lora_router.assembly import make_director
from lora_router.config.settings import Settings
from lora_router.fleet.fleet import Fleet
from lora_router.supervision import FAILURES_IN_A_ROW
from lora_router.telemetry.metrics import Telemetry
from tests.fleet import make_metrics, make_pod, state_of


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    pods = tmp_path / "pods.yaml"
    pods.write_text("pods: []")
    return Settings(
        endpoints=pods,
        grpc_host="127.0.0.1",
        grpc_port=0,
        admin_port=0,
        drain_timeout_seconds=1.0,
    )


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[App]:
    app = App(settings)
    yield app
    await app.stop()


async def fail(app: App, task: str, about: str, times: int = FAILURES_IN_A_ROW) -> None:
    """Run a task that has failed so many times and now hangs."""
    runs, hangs = 0, asyncio.Event()

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs > times:
            hangs.set()
            await asyncio.Event().wait()
        raise ValueError("a fault")

    app.supervisor.keep(task, work, about=about)
    await asyncio.wait_for(hangs.wait(), 60)


async def test_a_started_router_is_ready_and_says_what_it_knows(app: App) -> None:
    assert not app.readiness().ready
    assert app.readiness().reason == "the list of pods has not been read yet"

    await app.start()

    readiness = app.readiness()
    assert (readiness.ready, readiness.reason) == (True, "ready")
    assert readiness.details["pods"] == 0
    assert readiness.details["discovery"] == "file"
    assert readiness.details["stale_pods"] == 0
    assert "failing_tasks" not in readiness.details


async def test_ready_pods_without_a_fresh_scrape_are_counted(app: App, settings: Settings) -> None:
    assert settings.endpoints is not None
    pods = [f"{{name: p{n}, address: '127.0.0.1:{n}', models: [m]}}" for n in (1, 2)]
    settings.endpoints.write_text(f"pods: [{', '.join(pods)}]")

    await app.start()

    details = app.readiness().details
    assert (details["ready_pods"], details["stale_pods"]) == (2, 2)


@pytest.mark.slow
async def test_tasks_that_cannot_be_kept_running_are_named_and_do_not_take_it_out_of_service(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "FIRST_BACKOFF_SECONDS", 0.001)
    await app.start()
    for number in range(6):
        await fail(app, "scrape-metrics", f"pod-{number}")
    await fail(app, "pods-file", "pods.yaml")
    await fail(app, "scrape-models", "pod-0", times=1)

    readiness = app.readiness()

    assert readiness.ready
    assert readiness.reason == "ready; 7 background tasks keep failing"
    assert readiness.details["failing_tasks"] == {"pods-file": 1, "scrape-metrics": 6}
    failures = readiness.details["failures"]
    assert isinstance(failures, list)
    assert len(failures) == 5
    assert failures[0] == ("pods-file (pods.yaml): 5 failures in a row, last: ValueError: a fault")
    page = app.telemetry.page().decode()
    assert 'lora_router_task_failures_total{task="scrape-metrics"} 30.0' in page
    assert "lora_router_failing_tasks 7.0" in page
    assert "pod-3" not in page


async def test_before_the_list_of_pods_is_read_a_failing_task_says_why(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "FIRST_BACKOFF_SECONDS", 0.001)
    await fail(app, "pod-watch", "all namespaces")

    readiness = app.readiness()

    assert not readiness.ready
    assert readiness.reason.startswith("the list of pods has not been read yet; 1 background task")
    assert "pod-watch (all namespaces): 5 failures" in str(readiness.details["failures"])


async def test_a_stall_of_its_event_loop_is_counted(settings: Settings) -> None:
    app = App(settings.model_copy(update={"loop_stall_seconds": 0.01}))
    await app.start()
    await asyncio.sleep(0)
    time.sleep(0.05)
    async with asyncio.timeout(60):
        while "lora_router_loop_stalls_total 0.0" in app.telemetry.page().decode():
            await asyncio.sleep(0.01)
    await app.stop()


@pytest.mark.parametrize("failure", [RuntimeError("a fault"), SystemExit(1)])
async def test_parts_that_fail_to_stop_do_not_keep_the_others_running(
    settings: Settings,
    failure: BaseException,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App(settings)
    await app.start()
    tasks_before = {task for task in asyncio.all_tasks() if task.get_name() == "pods-file"}
    assert tasks_before

    async def broken(*_arguments: object, **_options: object) -> None:
        raise failure

    def broken_at_once(_seconds: float) -> None:
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(app.director, "drain", broken_at_once)
        for method in ("set_ready", "drain"):
            patched.setattr(app.transport, method, broken)
        for part in (app.scraper, app.discovery, app.admin):
            patched.setattr(part, "stop", broken)
        await asyncio.wait_for(app.stop(), 60)

    assert all(task.done() for task in tasks_before)
    for name in ("readiness", "held requests", "transport", "scraper", "discovery", "admin server"):
        assert f"{name} failed to stop: {type(failure).__name__}" in caplog.text
    await app.stop()


async def test_a_part_that_hangs_delays_the_stop_for_a_bounded_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app_module, "_STOP_PART_SECONDS", 0.05)
    app = App(settings)
    await app.start()

    async def hangs() -> None:
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(app.scraper, "stop", hangs)
        await asyncio.wait_for(app.stop(), 60)

    assert "scraper did not stop within 0.05 s" in caplog.text
    await app.stop()


async def test_stopping_twice_or_before_the_start_is_no_error(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(settings)
    await app.stop()
    await app.start()
    await app.stop()
    await app.stop()

    assert "failed to stop" not in caplog.text


def test_the_configured_time_of_a_load_is_what_is_expected_of_pods() -> None:
    options = {"adapter_load_seconds": "0.25"}
    settings = Settings(algorithm_options=options)
    fleet = Fleet()
    make_director(settings, fleet, Telemetry(fleet))
    fleet.upsert(make_pod(1))
    fleet.put_metrics(state_of(fleet, 1), make_metrics())

    assert state_of(fleet, 1).beliefs.load_seconds == (0.0, 0.25, 1.5)
