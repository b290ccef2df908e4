"""The protocol between Envoy and the router, beyond the usual request."""

import json
from pathlib import Path

import aiohttp
import pytest

from tests.integration import http2_client
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import Gateway, gateway
from tests.integration.second_envoy import second_envoy
from tests.waiting import until

SQL = b'{"model": "sql-lora", "prompt": "%s"}'
TRAILERS = {"x-checksum": "17"}


def pods() -> list[EchoPod]:
    return [EchoPod("vllm-0", adapters=("sql-lora",)), EchoPod("vllm-1")]


async def check_trailers(gate: Gateway, port: int, *, maybe_twice: bool) -> None:
    """Check that requests with trailers reach their pod, whatever their length.

    In the streamed modes and in BUFFERED_PARTIAL mode, Envoy 1.40 can send the body of such a
    request to the pod twice if the route has a retry policy.
    """
    long = SQL % (b"x" * 300_000)
    cut = [long[at : at + 50_000] for at in range(0, len(long), 50_000)]
    for pieces in ([SQL % b"hi"], [SQL[:10], SQL[10:] % b"hi"], cut, [SQL % b"hi", b"\n"]):
        body = b"".join(pieces)
        for headers in ({}, {"content-length": str(len(body))}):
            status, answered, text = await http2_client.request(
                port, pieces, headers=headers, trailers=TRAILERS
            )
            assert (status, answered.get("x-pod")) == (200, "vllm-0"), text
            assert gate.received[-1].body in ((body, body + body) if maybe_twice else (body,))
    status, _, _ = await http2_client.request(port, [b'{"model": "nope"}'], trailers=TRAILERS)
    assert status == 404
    status, _, _ = await http2_client.request(
        port, [b"z" * 300_000], path="/v1/files", trailers=TRAILERS
    )
    assert status == 200
    await until(lambda: gate.in_flight == 0 and gate.app.transport.open_streams == 0)


@pytest.mark.parametrize("mode", ["buffered", "streamed", "full-duplex"])
async def test_trailers_of_requests_hold_nothing_up(
    tmp_path: Path, transport: str, mode: str
) -> None:
    async with gateway(tmp_path, pods(), transport=transport, envoy_body_mode=mode) as gate:
        await check_trailers(gate, gate.envoy.port, maybe_twice=mode != "buffered")


async def test_trailers_may_be_sent_to_the_router_in_every_mode(tmp_path: Path) -> None:
    async with gateway(tmp_path, pods()) as gate:
        for mode in ("BUFFERED", "BUFFERED_PARTIAL", "STREAMED", "NONE"):
            modes = {"request_body_mode": mode, "request_trailer_mode": "SEND"}
            async with second_envoy(gate, tmp_path, processing_mode=modes) as envoy:
                await check_trailers(gate, envoy.port, maybe_twice=mode == "BUFFERED_PARTIAL")


@pytest.mark.parametrize("mode", ["buffered", "full-duplex"])
async def test_a_websocket_is_routed_by_its_query_and_counts_until_it_closes(
    tmp_path: Path, transport: str, mode: str
) -> None:
    async with gateway(tmp_path, pods(), transport=transport, envoy_body_mode=mode) as gate:
        for _ in range(3):
            url = f"{gate.url}/v1/realtime?model=sql-lora"
            async with gate.client.ws_connect(url) as socket:
                for text in ("hello", "x" * 100_000):
                    await socket.send_str(text)
                    assert await socket.receive_str(timeout=60) == text
                assert gate.in_flight == 1
            await until(lambda: gate.in_flight == 0 and gate.app.transport.open_streams == 0, 60)
        assert {each.pod for each in gate.received} == {"vllm-0"}

        with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
            await gate.client.ws_connect(f"{gate.url}/v1/realtime?model=nope")
        assert raised.value.status == 404


async def test_envoy_reaches_a_router_that_makes_its_own_certificate(
    tmp_path: Path, transport: str
) -> None:
    changes = {"transport": transport, "grpc_tls_self_signed": True, "envoy_fail_open": False}
    async with gateway(tmp_path, pods(), **changes) as gate:
        response, _ = await gate.post({"model": "sql-lora"})
        assert (response.status, response.headers["x-pod"]) == (200, "vllm-0")
        assert gate.app.transport.tls is not None


@pytest.mark.parametrize("mode", ["NONE", "STREAMED", "BUFFERED_PARTIAL"])
@pytest.mark.parametrize("size", [100, 3_000_000])
async def test_every_request_is_answered_whatever_an_envoy_is_configured_to_send(
    tmp_path: Path, mode: str, size: int
) -> None:
    """The router may not choose the body mode here, so it may have to refuse a request."""
    async with gateway(tmp_path, pods(), max_body_bytes=1_000_000) as gate:
        modes = {"request_body_mode": mode}
        changed = second_envoy(gate, tmp_path, processing_mode=modes, allow_mode_override=False)
        async with changed as envoy:
            url = f"http://127.0.0.1:{envoy.port}/v1/completions"
            document = {"model": "sql-lora", "prompt": "x" * size}
            async with gate.client.post(url, json=document) as response:
                body = await response.read()
        if response.status != 200:
            assert json.loads(body)["error"]["code"]
        await until(lambda: gate.in_flight == 0 and gate.app.transport.open_streams == 0, 60)
