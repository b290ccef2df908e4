"""``lora-router probe`` against a real router, and against targets that are not one."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from lora_router.app import App
from lora_router.cli.commands import app as cli
from lora_router.config.sources import load_settings
from lora_router.probe import ProbeError, ProbeOptions, probe
from tests.envoy import free_port

GROWING_SECONDS = (0.2, 2.0, 10.0, 30.0)


@pytest_asyncio.fixture
async def router(tmp_path: Path) -> AsyncIterator[App]:
    (tmp_path / "pods.yaml").write_text("pods: []\n")
    flags = {
        "endpoints": str(tmp_path / "pods.yaml"),
        "grpc_host": "127.0.0.1",
        "grpc_port": 0,
        "admin_port": 0,
        "drain_timeout_seconds": 0,
    }
    app = App(load_settings(file=None, environ={}, flags=flags).settings)
    try:
        yield app
    finally:
        await app.stop()


async def refusal(options: ProbeOptions) -> str:
    """Return why a target does not serve. A busy machine gets more time for its answer."""
    for seconds in GROWING_SECONDS:
        with pytest.raises(ProbeError) as raised:
            await probe(replace(options, timeout=seconds))
        said = str(raised.value)
        if "DEADLINE_EXCEEDED" not in said and "no response within" not in said:
            break
    return said


async def test_a_router_that_serves_is_said_to(router: App) -> None:
    await router.start()

    answers = await probe(
        ProbeOptions(
            grpc=f"127.0.0.1:{router.transport.port}",
            http=f"http://127.0.0.1:{router.admin.port}/readyz",
            timeout=60,
        )
    )

    assert answers[0] == f"127.0.0.1:{router.transport.port}: gRPC health of 'readiness' is SERVING"
    assert '"ready": true' in answers[1]


async def test_it_is_asked_until_it_serves(router: App) -> None:
    await router.start()
    await router.transport.set_ready(ready=False)
    waits = asyncio.create_task(
        probe(ProbeOptions(f"127.0.0.1:{router.transport.port}", timeout=60))
    )
    await asyncio.sleep(0.3)
    assert not waits.done()
    await router.transport.set_ready(ready=True)
    assert len(await waits) == 1


async def test_what_does_not_serve_is_named(router: App) -> None:
    await router.start()
    await router.transport.set_ready(ready=False)
    target = f"127.0.0.1:{router.transport.port}"

    assert f"{target}: gRPC health of 'readiness' is NOT_SERVING" in await refusal(
        ProbeOptions(target)
    )
    assert len(await probe(ProbeOptions(target, "liveness", timeout=60))) == 1
    assert "NOT_FOUND" in await refusal(ProbeOptions(target, "nonsense"))
    url = f"http://127.0.0.1:{router.admin.port}/nothing"
    assert "/nothing returned status 404" in await refusal(ProbeOptions(None, http=url))


async def test_a_page_that_cannot_be_asked_is_named() -> None:
    nobody = f"http://127.0.0.1:{free_port()}/"
    with pytest.raises(ProbeError, match=nobody):
        await probe(ProbeOptions(None, http=nobody, timeout=0.2))
    with pytest.raises(ProbeError, match="nonsense"):
        await probe(ProbeOptions(None, http="nonsense", timeout=0.2))

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    over = asyncio.Event()
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(ProbeError, match=r"timeout, no response within 0\.2 s"):
            await probe(ProbeOptions(None, http=url, timeout=0.2))
        over.set()


def test_the_command_asks_the_port_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("LORA_ROUTER_GRPC_PORT", str(port))

    for seconds in GROWING_SECONDS:
        result = CliRunner().invoke(cli, ["probe", "--timeout", f"{seconds}"])
        assert result.exit_code == 1
        if "DEADLINE_EXCEEDED" not in result.stderr:
            break

    assert f"lora-router: 127.0.0.1:{port}: gRPC health of 'readiness': UNAVAILABLE" in (
        result.stderr
    )


def test_the_command_asks_for_liveness_beside_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    monkeypatch.setenv("LORA_ROUTER_ADMIN_PORT", str(port))

    result = CliRunner().invoke(cli, ["probe", "--service", "liveness", "--timeout", "0.2"])

    assert result.exit_code == 1
    assert f"lora-router: http://127.0.0.1:{port}/healthz: " in result.stderr
