"""Start, drain, and the loss of Envoy, pods or the router."""

import asyncio
import json
import signal
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
import yaml
from grpc_health.v1 import health_pb2

from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from lora_router.extproc.transport import SERVICE
from tests.envoy import Envoy
from tests.health import health
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import gateway, write_pods
from tests.integration.served import Served

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
WAITS = {"model": "base", "tokens": 1, "pause": 0, "waits": True}


async def test_sigterm_is_not_ready_at_once_and_open_streams_finish(
    tmp_path: Path, transport: str
) -> None:
    async with EchoPod("vllm-0") as pod:
        write_pods(tmp_path / "pods.yaml", [pod])
        config = {"drain_delay_seconds": 6, "drain_timeout_seconds": 120}
        served = Served(tmp_path, {"transport": transport, **config})
        settings = load_settings(file=served.file, environ={}, flags={}).settings
        async with served.run() as process, aiohttp.ClientSession() as client:
            await served.until_ready()
            assert await health(served.grpc_port, "readiness") == SERVING
            async with Envoy(bootstrap_yaml(settings), tmp_path, patient=True) as envoy:
                url = f"http://127.0.0.1:{envoy.port}/v1/completions"
                async with client.post(url, json=WAITS) as response:
                    await response.content.readline()

                    process.send_signal(signal.SIGTERM)
                    async with asyncio.timeout(60):
                        while (await served.readiness())[0] == 200:
                            await asyncio.sleep(0.01)
                    status, page = await served.readiness()
                    assert (status, page["reason"]) == (503, "shutting down")
                    assert await health(served.grpc_port, "readiness") == NOT_SERVING
                    assert await health(served.grpc_port, "liveness") == SERVING

                    pod.may_end.set()
                    assert (await response.read()).endswith(b"[DONE]\n\n")
                assert await asyncio.wait_for(process.wait(), 60) == 0
        assert b"drained; 0 open streams closed" in served.output


async def test_answers_that_outlive_the_drain_run_on(tmp_path: Path, transport: str) -> None:
    """At the drain timeout a stream ends with OK, so that Envoy continues without the router."""
    async with EchoPod("vllm-0") as pod:
        write_pods(tmp_path / "pods.yaml", [pod])
        served = Served(tmp_path, {"transport": transport, "drain_timeout_seconds": 0.2})
        settings = load_settings(file=served.file, environ={}, flags={}).settings
        async with served.run() as process, aiohttp.ClientSession() as client:
            await served.until_ready()
            async with Envoy(bootstrap_yaml(settings), tmp_path, patient=True) as envoy:
                url = f"http://127.0.0.1:{envoy.port}/v1/completions"
                async with client.post(url, json=WAITS) as response:
                    await response.content.readline()

                    process.send_signal(signal.SIGTERM)
                    assert await asyncio.wait_for(process.wait(), 60) == 0

                    pod.may_end.set()
                    body = await response.read()
                    assert body.endswith(b"[DONE]\n\n")
                    assert pod.aborted == 0
        assert b"drained; 1 open stream closed" in served.output


async def test_without_a_router_the_gateway_fails_closed_and_recovers(
    tmp_path: Path, transport: str
) -> None:
    pods = [EchoPod("vllm-0")]
    async with gateway(tmp_path, pods, transport=transport, envoy_fail_open=False) as gate:
        await gate.app.stop()
        for body in ({"model": "base"}, b"x"):
            response, answer = await gate.post(body, headers={"target-pod": pods[0].address})
            assert response.status == 503
            assert json.loads(answer)["error"]["code"] == "router_unavailable"
        async with gate.client.get(
            gate.url + "/version", headers={"target-pod": pods[0].address}
        ) as passed:
            assert passed.status == 503
        assert gate.received == []

        config = {"transport": transport, "grpc_port": gate.settings.grpc_port}
        served = Served(tmp_path, config)
        async with served.run():
            await served.until_ready()
            statuses: list[int] = []
            async with asyncio.timeout(60):
                while not statuses or statuses[-1] != 200:
                    statuses.append((await gate.post({"model": "base"}))[0].status)
                    await asyncio.sleep(0.1)


async def test_a_session_that_fails_is_a_503_and_the_next_one_works(
    tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods = [EchoPod("vllm-0")]
    async with gateway(tmp_path, pods, transport=transport, envoy_fail_open=False) as gate:
        with monkeypatch.context() as broken:
            broken.setattr(gate.app.director, "pass_through", lambda _subset: 1 / 0)
            async with gate.client.get(gate.url + "/version") as response:
                assert response.status == 503
                assert (await response.json())["error"]["code"] == "router_unavailable"
        async with gate.client.get(gate.url + "/version") as response:
            assert response.status == 200


async def test_a_router_that_does_not_answer_in_time_is_a_504(tmp_path: Path) -> None:
    async def never(_requests: object, _context: object) -> None:
        await asyncio.sleep(60)

    server = grpc.aio.server()
    method = grpc.stream_stream_rpc_method_handler(never)
    handler = grpc.method_handlers_generic_handler(SERVICE, {"Process": method})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    config = {"envoy_message_timeout_seconds": 0.3, "envoy_fail_open": False}
    served = Served(tmp_path, {"grpc_port": port, **config})
    settings = load_settings(file=served.file, environ={}, flags={}).settings
    async with (
        Envoy(bootstrap_yaml(settings), tmp_path, patient=True) as envoy,
        aiohttp.ClientSession() as client,
    ):
        url = f"http://127.0.0.1:{envoy.port}/v1/completions"
        async with client.post(url, json={"model": "base"}) as response:
            assert response.status == 504
            assert (await response.json())["error"]["code"] == "router_timeout"
    await server.stop(0)


async def test_pods_that_never_answer_do_not_keep_it_from_being_ready(tmp_path: Path) -> None:
    listed = [{"name": "x", "address": "127.0.0.1:1", "models": ["base"]}]
    (tmp_path / "pods.yaml").write_text(yaml.safe_dump({"pods": listed}))
    served = Served(tmp_path, {"startup_timeout_seconds": 0.2})
    async with served.run():
        await served.until_ready()
        status, page = await served.readiness()
        assert (status, page["pods"], page["ready_pods"]) == (200, 1, 1)


async def start_fails(directory: Path, **config: object) -> tuple[int, str]:
    served = Served(directory, config)
    async with served.run() as process:
        status = await asyncio.wait_for(process.wait(), 60)
    return status, served.output.decode()


@pytest.mark.parametrize(
    ("pods", "config", "status", "message"),
    [
        ("pods: [{name: a}]", {}, 2, "pods.yaml: pod 'a': address=None: must be ip:port"),
        (None, {}, 2, "pods.yaml: cannot be read: No such file"),
        ("pods: []", {"endpoints": None}, 2, "no pods are configured: set 'endpoints'"),
        ("pods: []", {"grpc_port": -1}, 2, "grpc_port: -1: must be a port, from 0"),
        ("pods: []", {"algorithm": "best"}, 2, "best: must be one of four-tier, least-request"),
        ("pods: []", {"grpc_prt": 1}, 2, "unknown setting; did you mean 'grpc_port'"),
        ("pods: []", {"grpc_host": "192.0.2.1"}, 1, "cannot listen on 192.0.2.1:"),
        (
            "pods: []",
            {"grpc_tls_cert_file": "no.crt", "grpc_tls_key_file": "no.key"},
            2,
            "no.crt: cannot be read: No such file",
        ),
    ],
)
async def test_a_start_that_fails_says_why_in_one_line_and_ends(
    tmp_path: Path, pods: str | None, config: dict[str, object], status: int, message: str
) -> None:
    if pods is not None:
        (tmp_path / "pods.yaml").write_text(pods)

    got, output = await start_fails(tmp_path, **config)

    assert got == status
    assert message in output
    assert "Traceback" not in output


async def test_a_port_that_is_taken_stops_the_start(tmp_path: Path, transport: str) -> None:
    (tmp_path / "pods.yaml").write_text("pods: []")
    first = Served(tmp_path, {"transport": transport})
    async with first.run():
        await first.until_ready()
        for key, port in (("grpc_port", first.grpc_port), ("admin_port", first.admin_port)):
            changed = {key: port, "transport": transport}
            status, output = await start_fails(tmp_path, **changed)
            assert status == 1
            assert f"cannot listen on 127.0.0.1:{port}" in output
            assert "Traceback" not in output


async def test_ctrl_c_during_the_start_ends_it(tmp_path: Path) -> None:
    listed = [{"name": "x", "address": "127.0.0.1:1"}]
    (tmp_path / "pods.yaml").write_text(yaml.safe_dump({"pods": listed}))
    # The pod's model list is asked for without end, so the start waits.
    served = Served(tmp_path, {"startup_timeout_seconds": 60, "scrape_timeout_seconds": 60})
    async with served.run() as process:
        async with asyncio.timeout(60):
            while not (await served.readiness())[0]:
                await asyncio.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    assert b"Traceback" not in served.output


async def test_the_readiness_page_tells_of_a_bad_edit(tmp_path: Path) -> None:
    async with EchoPod("vllm-0") as pod:
        write_pods(tmp_path / "pods.yaml", [pod])
        served = Served(tmp_path, {})
        async with served.run():
            await served.until_ready()
            (tmp_path / "pods.yaml").write_text("pods: [")
            async with asyncio.timeout(60):
                while "discovery_error" not in (await served.readiness())[1]:
                    await asyncio.sleep(0.05)
            assert (await served.readiness())[0] == 200
        assert b"the last valid list of 1 pod stays" in served.output
