"""Loads and unloads over HTTP, against simulated pods and servers that answer oddly."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from lora_router.adapters.calls import Action, Call, Outcome, Result
from lora_router.fleet.catalog import Catalog, ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.reading import Reading
from lora_router.scrape.adapter_calls import NO_ROUTE_HINT, AdapterCalls, message_of, outcome_of
from lora_router.scrape.intake import Intake, RefusedReading
from lora_router.scrape.pod_access import AccessOptions, PodAccess
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.simulated_pod import PodOptions, SimulatedPod
from lora_router.supervision import Supervisor
from tests.fleet import ManualClock, make_fleet, make_pod, state_of

FAST = EngineOptions(disk_load_seconds=0.0, host_load_seconds=0.0)


class Lists:
    """What takes in the changes."""

    def __init__(self, fleet: Fleet) -> None:
        self.clock = ManualClock()
        self.intake = Intake(fleet, self.clock.now)
        self.read: list[tuple[PodState, bool]] = []
        self.changed: list[PodState] = []

    def read_models_soon(self, state: PodState, *, confirms: bool = True) -> None:
        self.read.append((state, confirms))

    def models_changed(self, state: PodState) -> None:
        self.changed.append(state)


class Here:
    """One pod in a fleet, and what calls it."""

    def __init__(self, address: str, calls: Callable[[Lists], AdapterCalls], **pod: Any) -> None:
        self.fleet = make_fleet(1, adapters=("a1",))
        self.fleet.replace([make_pod(1, address=address, **pod)])
        self.state = state_of(self.fleet, 1)
        self.fleet.put_models(self.state, [ServedModel("base"), ServedModel("a1", "base")])
        self.lists = Lists(self.fleet)
        self.calls = calls(self.lists)

    async def call(self, action: Action, name: str, source: str = "/lora/x") -> Result:
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.calls.start(Call(self.state, action, name, "base", source), done.set_result)
        async with asyncio.timeout(60):
            return await done


@asynccontextmanager
async def made(
    address: str, access: PodAccess | None = None, seconds: float = 60.0, **pod: Any
) -> AsyncIterator[Here]:
    supervisor = Supervisor()
    here = Here(
        address,
        lambda lists: AdapterCalls(lists, supervisor, access or PodAccess(), seconds=seconds),
        **pod,
    )
    try:
        yield here
    finally:
        await here.calls.close()
        await supervisor.stop()


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_load_is_in_the_fleet_at_once_and_the_list_is_read_soon() -> None:
    options = PodOptions("pod-1", adapters=("a1",), engine=FAST)
    async with SimulatedPod(options) as pod, made(pod.address) as here:
        result = await here.call("load", "new", "s3://bucket/new")

        assert (result.outcome, result.message) == ("done", "")
        assert pod.adapters.roots["new"] == "s3://bucket/new"
        assert dict(here.state.adapters) == {"a1": "base", "new": "base"}
        assert here.lists.read == [(here.state, False)]
        assert here.lists.changed == [here.state]

        assert (await here.call("load", "new")).outcome == "already"

        assert (await here.call("unload", "new")).outcome == "done"
        assert "new" not in pod.adapters
        assert "new" not in here.state.adapters
        assert (await here.call("unload", "new")).outcome == "already"


class Told:
    """What other routers are told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def tell(self, state: PodState, names: Collection[str], *, ends: bool) -> None:
        self.lines.append(f"{' '.join(names)} {'serves' if ends else 'is withdrawn'}")

    def unloaded(self, state: PodState, name: str) -> None:
        self.lines.append(f"{name} is unloaded")


async def test_other_routers_are_told_when_an_adapter_is_withdrawn_and_when_that_ends() -> None:
    options = PodOptions("pod-1", adapters=("a1", "a2"), engine=FAST)
    async with SimulatedPod(options) as pod, made(pod.address) as here:
        told = here.calls.tells = Told()
        here.calls.withdraw(here.state, ["a1", "a2"])
        here.calls.restore(here.state, ["a2"])
        await here.call("unload", "a1")
        await here.call("unload", "a1")
        await here.call("load", "a1")

    assert told.lines == [
        "a1 a2 is withdrawn",
        "a2 serves",
        "a1 is unloaded",
        "a1 is unloaded",
        "a1 serves",
    ]


async def test_sources_that_do_not_fit_are_refused_with_the_reason_of_the_pod() -> None:
    async with (
        SimulatedPod(PodOptions("pod-1", adapters=("a1",), engine=FAST)) as pod,
        made(pod.address) as here,
    ):
        result = await here.call("load", "new", "/missing/new")

    assert result.outcome == "refused"
    assert result.message == (
        "status 404: Loading lora new failed: No adapter found for /missing/new"
    )
    assert "new" not in here.state.adapters


async def test_a_pod_without_such_calls_cannot_load_and_the_reason_names_the_variable() -> None:
    options = PodOptions("pod-1", adapters=("a1",), runtime_loading=False)
    async with SimulatedPod(options) as pod, made(pod.address) as here:
        result = await here.call("load", "new")

    assert result.outcome == "cannot-load"
    assert result.message == NO_ROUTE_HINT
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in result.message


async def test_calls_carry_the_key_of_the_router_and_what_the_engine_takes() -> None:
    seen: list[tuple[str, str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.path, request.headers["authorization"], await request.json()))
        return web.json_response({"success": True})

    access = PodAccess(AccessOptions(api_key=SecretStr("key")))
    async with serving(answer) as address:
        async with made(address, access) as here:
            await here.call("load", "n")
            await here.call("unload", "n")
        async with made(address, access, engine="sglang") as here:
            await here.call("load", "n")

    assert seen == [
        (
            "/v1/load_lora_adapter",
            "Bearer key",
            {"lora_name": "n", "lora_path": "/lora/x", "base_model_name": "base"},
        ),
        ("/v1/unload_lora_adapter", "Bearer key", {"lora_name": "n"}),
        ("/load_lora_adapter", "Bearer key", {"lora_name": "n", "lora_path": "/lora/x"}),
    ]


async def test_an_unnamed_engine_is_called_as_sglang_too() -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path.startswith("/v1"):
            return web.json_response({"detail": "Not Found"}, status=404)
        return web.json_response({"success": True})

    async with serving(answer) as address, made(address) as here:
        assert (await here.call("load", "n")).outcome == "done"


async def test_a_pod_that_does_not_answer_leaves_it_unknown() -> None:
    async def answer(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with serving(answer) as address, made(address, seconds=0.05) as here:
        result = await here.call("load", "n")
    assert (result.outcome, result.message) == ("timeout", "no answer within 0.05 s")

    async with made(address) as here:
        assert (await here.call("load", "n")).outcome == "unreachable"


async def test_an_answer_without_end_is_read_for_a_few_bytes() -> None:
    async def answer(request: web.Request) -> web.Response:
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    async with serving(answer) as address, made(address) as here:
        result = await here.call("load", "n")

    assert result.outcome == "failed"
    assert len(result.message) <= 300


async def test_a_pod_that_left_during_the_call_is_not_put_back() -> None:
    async with (
        SimulatedPod(PodOptions("pod-1", engine=FAST)) as pod,
        made(pod.address) as here,
    ):
        here.fleet.replace([])
        result = await here.call("load", "new")

    assert (result.outcome, result.message) == ("failed", "pod pod-1 has left")


def test_what_is_withdrawn_is_not_in_the_fleet_whatever_the_pod_lists() -> None:
    fleet = make_fleet(1, adapters=("a", "b"))
    lists, state = Lists(fleet), state_of(fleet, 1)
    intake = lists.intake

    intake.withdraw(state, ("a",))
    assert list(state.adapters) == ["b"]
    listed = Catalog.of(ServedModel(name, "base") for name in ("a", "b", "c"))
    intake.put(Reading(state, lists.clock.now(), listed))
    assert list(state.adapters) == ["b", "c"]

    intake.restore(state, ("a",))
    assert sorted(state.adapters) == ["a", "b", "c"]

    intake.withdraw(state, ("b",))
    intake.remove_adapter(state, "b")
    intake.restore(state, ("b",))
    assert sorted(state.adapters) == ["a", "c"]


def test_a_list_that_was_asked_for_before_a_load_ended_does_not_undo_it() -> None:
    fleet = make_fleet(1, adapters=("a",))
    lists, state = Lists(fleet), state_of(fleet, 1)
    asked_at = lists.clock.now()
    lists.clock.advance(0.1)

    lists.intake.add_adapter(state, "new", "base")
    with pytest.raises(RefusedReading):
        lists.intake.put(Reading(state, asked_at, Catalog.of([ServedModel("a", "base")])))

    assert sorted(state.adapters) == ["a", "new"]


@pytest.mark.parametrize(
    ("action", "status", "message", "outcome"),
    [
        ("load", 200, "Success", "done"),
        ("load", 404, "Not Found", "cannot-load"),
        ("load", 405, "Method Not Allowed", "cannot-load"),
        ("load", 401, "Unauthorized", "cannot-load"),
        ("load", 403, "Forbidden", "cannot-load"),
        ("load", 404, "Loading lora x failed: No adapter found for /x", "refused"),
        ("load", 400, "The lora adapter 'x' has already been loaded.", "already"),
        ("load", 400, "CUDA out of memory", "refused"),
        ("load", 302, "", "failed"),
        ("load", 429, "slow down", "failed"),
        ("load", 500, "oops", "failed"),
        ("unload", 404, "The lora adapter 'x' cannot be found.", "already"),
        ("unload", 404, "Not Found", "cannot-load"),
        ("unload", 400, "LoRA adapter x is not loaded", "already"),
        ("unload", 400, "oops", "refused"),
    ],
)
def test_statuses_and_messages_mean(
    action: Action, status: int, message: str, outcome: Outcome
) -> None:
    call = Call(state_of(make_fleet(1), 1), action, "x")
    assert outcome_of(call, status, message)[0] == outcome


async def test_a_pod_is_not_believed_again_that_did_not_list_what_it_loaded() -> None:
    async def success(_request: web.Request) -> web.Response:
        return web.Response(text="Success")

    async with serving(success) as address, made(address) as here:
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        call = Call(here.state, "load", "x", "base", "/lora/x", is_doubted=True)
        here.calls.start(call, done.set_result)
        async with asyncio.timeout(60):
            assert (await done).outcome == "already"
        assert "x" not in here.state.adapters


@pytest.mark.parametrize(
    ("status", "message", "said"),
    [
        (500, "", "status 500: it does not say why"),
        (307, "", "status 307: it redirects, which is not followed"),
        (400, "rank 128", "status 400: rank 128"),
    ],
)
def test_a_failure_is_a_whole_sentence(status: int, message: str, said: str) -> None:
    call = Call(state_of(make_fleet(1), 1), "load", "x")
    assert outcome_of(call, status, message)[1] == said


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"no adapter","code":404}}', "no adapter"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"success":false,"error_message":"LoRA is bad"}', "LoRA is bad"),
        (b'{"error":5}', "5"),
        (b"plain\n\x1b[31mtext", "plain [31mtext"),
        (b"caf\xe9 and a half of it", "caf\ufffd and a half of it"),
        (bytes(range(256)), "its answer is no text"),
        (b"[" * 5000, "[" * 300),
        (b"", ""),
    ],
)
def test_a_message_is_one_short_line(body: bytes, message: str) -> None:
    assert message_of(body) == message
