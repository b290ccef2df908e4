"""The probes of pods that get no requests, sent to real sockets."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import pytest
from aiohttp import web
from pydantic import SecretStr

from lora_router.fleet.answer import Answer
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import EJECTED, HEALTHY, SUSPECT, TRYING, HealthRules
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.scrape import places
from lora_router.scrape.health_check import HealthCheck
from lora_router.scrape.pod_access import AccessOptions, PodAccess
from lora_router.supervision import Supervisor
from tests.fleet import make_pod, state_of
from tests.waiting import until

CHAT = "/v1/chat/completions"


class ProbedPod:
    """A pod that answers as told, and records what it was asked."""

    def __init__(self) -> None:
        self.status = 500
        self.hangs = False
        self.asked: list[tuple[str, dict[str, object], str]] = []
        self.port = 0
        self._over = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        self.asked.append((request.path, body, request.headers.get("authorization", "")))
        if self.hangs:
            await self._over.wait()
        return web.Response(status=self.status)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ProbedPod"]:
        app = web.Application()
        app.router.add_post("/{path:.*}", self.answer)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            self._over.set()
            await runner.cleanup()


@asynccontextmanager
async def checked(port: int, *, probe: bool = True) -> AsyncIterator[tuple[Fleet, PodState]]:
    """Run a health check for two pods, of which the first is at a port and has been ejected."""
    rules = HealthRules(min_ejection_seconds=0.05, max_ejection_seconds=0.1)
    outliers = Outliers(rules, time.monotonic)
    fleet = Fleet(outliers=outliers)
    fleet.replace([make_pod(1, address=f"127.0.0.1:{port}"), make_pod(2)])
    supervisor = Supervisor()
    access = PodAccess(AccessOptions(api_key=SecretStr("the-key")))
    check = HealthCheck(fleet, supervisor, probe=probe, access=access)
    for state in fleet:
        fleet.put_models(state, [ServedModel("base"), ServedModel("sql-lora", "base")])
    await check.start()
    failing = fleet.get("pod-1")
    assert failing is not None
    for _ in range(3):
        request = fleet.ledger.reserve(failing, "sql-lora", CHAT)
        request.answered(Answer(500))
        request.release()
    assert failing.health.state is EJECTED
    try:
        yield fleet, failing
    finally:
        await check.stop()
        await supervisor.stop()


async def test_a_pod_that_answers_again_is_tried() -> None:
    async with ProbedPod().running() as pod, checked(pod.port) as (_, state):
        await until(lambda: len(pod.asked) >= 2)
        assert state.health.state is EJECTED

        pod.status = 200
        await until(lambda: state.health.state is TRYING)


async def test_the_probe_asks_for_one_token_of_what_failed() -> None:
    async with ProbedPod().running() as pod, checked(pod.port):
        await until(lambda: pod.asked)

    path, body, key = pod.asked[0]
    assert path == CHAT
    assert (body["model"], body["max_tokens"]) == ("base", 1)
    assert body["messages"]
    assert key == "Bearer the-key"


async def test_other_paths_are_probed_with_a_completion() -> None:
    async with ProbedPod().running() as pod, checked(pod.port) as (_, state):
        state.health.failed_path = "/v1/score"
        await until(lambda: pod.asked)

    assert pod.asked[0][0] == "/v1/completions"
    assert pod.asked[0][1]["prompt"]


async def test_embeddings_are_probed_with_an_embedding() -> None:
    """A server of such a model refuses completions, whether or not its engine works."""
    async with ProbedPod().running() as pod, checked(pod.port) as (_, state):
        state.health.failed_path = "/v1/embeddings"
        await until(lambda: pod.asked)

    assert pod.asked[0][:2] == ("/v1/embeddings", {"model": "base", "input": "a"})


@pytest.mark.parametrize("status", [400, 401, 404, 405, 429])
async def test_a_server_that_refuses_the_probe_answers(status: int) -> None:
    async with ProbedPod().running() as pod, checked(pod.port) as (_, state):
        pod.status = status
        await until(lambda: state.health.state is TRYING)


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 401, 422, 429, 501, 302])
async def test_a_refused_probe_is_no_success_so_a_request_of_a_client_is_the_trial(
    status: int,
) -> None:
    async with ProbedPod().running() as pod, checked(pod.port) as (_, state):
        pod.status = status
        await until(lambda: state.health.retry_at == inf)
        assert (state.health.state, state.health.successes) == (TRYING, 0)


async def test_a_refused_probe_does_not_heal_a_suspect() -> None:
    """Its server may answer 400 to the probe, and 500 to all requests that reach its engine."""
    async with ProbedPod().running() as pod, checked(pod.port) as (fleet, state):
        outliers = fleet.outliers
        assert outliers is not None
        pod.status = 200
        await until(lambda: state.health.state is TRYING)
        outliers.unwell.heal(state, time.monotonic())
        ejections = state.health.ejections

        pod.status, pod.asked = 400, []
        outliers.unwell.suspect(state, "status-5xx", time.monotonic())
        await until(lambda: pod.asked and state.health.state is not SUSPECT)
        assert state.health.state is not HEALTHY
        assert state.health.ejections > ejections


async def test_silent_pods_do_not_delay_the_probes_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places, "SLOW_SECONDS", 0.01)
    monkeypatch.setattr(Outliers, "probe_timeout", lambda *_: 30.0)
    async with ProbedPod().running() as silent, ProbedPod().running() as well:
        silent.hangs = True
        fleet = Fleet(outliers=Outliers(HealthRules(), time.monotonic))
        fleet.replace([make_pod(n, address=f"127.0.0.1:{silent.port}") for n in range(1, 41)])
        supervisor = Supervisor()
        check = HealthCheck(fleet, supervisor)
        await check.start()
        for state in fleet:
            check._start_probe(state)
        await until(lambda: len(silent.asked) == 40)
        fleet.upsert(make_pod(41, address=f"127.0.0.1:{well.port}"))
        check._start_probe(state_of(fleet, 41))
        await until(lambda: well.asked)
        await check.stop()
        await supervisor.stop()


async def test_a_pod_that_refuses_connections_stays_ejected() -> None:
    async with ProbedPod().running() as pod:
        port = pod.port
    async with checked(port) as (_, state):
        await until(lambda: state.health.ejections >= 3)
        assert state.health.state is EJECTED


async def test_a_probe_that_gets_no_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outliers, "probe_timeout", lambda _self, _state: 0.05)
    async with ProbedPod().running() as pod:
        pod.hangs = True
        async with checked(pod.port) as (_, state):
            await until(lambda: len(pod.asked) >= 2)
            assert state.health.state is EJECTED


async def test_a_probe_that_timed_out_because_this_router_stalled_is_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []

    async def stall_once(_self: HealthCheck, _state: PodState, seconds: float) -> bool:
        asked.append(seconds)
        if len(asked) == 1:
            time.sleep(seconds + 0.2)  # It blocks the event loop.
            raise TimeoutError
        return True

    monkeypatch.setattr(Outliers, "probe_timeout", lambda _self, _state: 0.05)
    monkeypatch.setattr(HealthCheck, "_asked", stall_once)
    async with checked(1) as (_, state):
        ejections = state.health.ejections

        await until(lambda: state.health.state is not EJECTED)

        assert state.health.ejections == ejections, "it was not blamed"
        assert len(asked) >= 2


async def test_without_probes_the_next_request_is_the_probe() -> None:
    async with ProbedPod().running() as pod, checked(pod.port, probe=False) as (_, state):
        await until(lambda: state.health.state is TRYING)
        assert pod.asked == []


async def test_a_pod_that_served_nothing_yet_is_asked_for_a_token_of_its_base_model() -> None:
    fleet, supervisor = Fleet(), Supervisor()
    check = HealthCheck(fleet, supervisor, slot_probe=True)
    async with ProbedPod().running() as pod:
        pod.status = 200
        fleet.replace([make_pod(1, address=f"127.0.0.1:{pod.port}")])
        state = state_of(fleet, 1)
        fleet.put_models(state, [ServedModel("base"), ServedModel("sql-lora", "base")])
        await check.start()

        fleet.put_metrics(state, PodMetrics(scraped_at=1.0, running=0.0))
        await until(lambda: pod.asked)

        await check.stop()
        await supervisor.stop()

    path, body, _ = pod.asked[0]
    assert path == "/v1/completions"
    assert (body["model"], body["max_tokens"]) == ("base", 1)


async def test_where_no_pod_may_be_ejected_none_is_probed() -> None:
    fleet, supervisor = Fleet(), Supervisor()
    check = HealthCheck(fleet, supervisor)

    await check.start()
    fleet.check_health()
    await check.stop()
    await supervisor.stop()

    assert all(state.health.state is HEALTHY for state in fleet)
