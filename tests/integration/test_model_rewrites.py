"""Requests whose model is rewritten: what the pod receives, in every body mode."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import yaml

from tests.integration.echo_pod import EchoPod, Received
from tests.integration.gateway import Gateway, gateway
from tests.integration.second_envoy import second_envoy
from tests.waiting import until

MB = 1024 * 1024
MODES = ("buffered", "streamed", "full-duplex")
REWRITES = {"gpt-small": {"sql-lora": 1}}
SLOW = {"envoy_message_timeout_seconds": 120, "outlier_ejection": False}
"""The machine may be slow, and time is not what is tested here."""


def pods() -> list[EchoPod]:
    return [EchoPod("vllm-0", adapters=("sql-lora",)), EchoPod("vllm-1")]


def big_body(model: str, size: int) -> bytes:
    """Return a body whose spacing, numbers and escapes no encoder would write in this way."""
    start = b'{ "temperature":1.0e+00,\t"metadata": {"model":"nested"}, "prompt":"caf\\u00e9 '
    filler = hashlib.blake2b(str(size).encode()).hexdigest().encode() * (size // 128)
    return start + filler + b'", "model" : "' + model.encode() + b'", "n":1}\n'


def check_arrived(request: Received, expected: bytes) -> None:
    """Check the body by its hash, and what the pod was told of its length."""
    assert hashlib.sha256(request.body).hexdigest() == hashlib.sha256(expected).hexdigest()
    length = request.header("content-length")
    assert length == [str(len(expected))] or request.header("transfer-encoding") == ["chunked"]


def last(gate: Gateway) -> Received:
    """Return the last request that a client sent. The router may probe pods meanwhile."""
    return [each for each in gate.received if each.header("target-pod")][-1]


async def send(gate: Gateway, body: bytes, path: str = "/v1/chat/completions") -> Received:
    response, answer = await gate.post(body, path)
    assert (response.status, response.headers.get("x-pod")) == (200, "vllm-0"), answer
    return last(gate)


@pytest.mark.parametrize("mode", MODES)
async def test_a_pod_receives_the_body_with_no_other_byte_changed(
    tmp_path: Path, transport: str, mode: str
) -> None:
    changes = {"model_rewrites": REWRITES, "envoy_body_mode": mode, "transport": transport, **SLOW}
    async with gateway(tmp_path, pods(), **changes) as gate:
        for size in (0, 600_000, 2 * MB, 20 * MB):
            received = await send(gate, big_body("gpt-small", size))
            check_arrived(received, big_body("sql-lora", size))
            assert received.header("model") == ["sql-lora"]

        for size in (2 * MB, 20 * MB):
            kept = big_body("sql-lora", size)
            check_arrived(await send(gate, kept), kept)

        body = big_body("gpt-small", 2 * MB)

        async def pieces() -> AsyncIterator[bytes]:
            yield body[:20]
            await asyncio.sleep(0.05)
            yield body[20:-20]
            await asyncio.sleep(0.05)
            yield body[-20:]

        async with gate.client.post(
            gate.url + "/v1/completions",
            data=pieces(),
            headers={"content-type": "application/json"},
        ) as chunked:
            assert chunked.status == 200
        check_arrived(last(gate), big_body("sql-lora", 2 * MB))

        streamed = b'{"model": "gpt-small", "tokens": 3, "pause": 0.01}'
        _, answer = await gate.post(streamed)
        assert answer.endswith(b"[DONE]\n\n")
        await until(lambda: gate.in_flight == 0 and gate.app.transport.open_streams == 0)


@pytest.mark.parametrize("mode", ["NONE", "STREAMED", "BUFFERED_PARTIAL"])
async def test_modes_that_the_router_overrides_or_gets_by_half(tmp_path: Path, mode: str) -> None:
    async with gateway(tmp_path, pods(), model_rewrites=REWRITES) as gate:
        changed = second_envoy(gate, tmp_path, processing_mode={"request_body_mode": mode})
        async with changed as envoy:
            body = big_body("gpt-small", 100_000)
            async with gate.client.post(
                f"http://127.0.0.1:{envoy.port}/v1/completions",
                data=body,
                headers={"content-type": "application/json"},
            ) as response:
                assert response.status == 200
            check_arrived(last(gate), big_body("sql-lora", 100_000))


@pytest.mark.parametrize("mode", MODES)
async def test_a_retry_on_another_pod_carries_the_changed_body(tmp_path: Path, mode: str) -> None:
    both = [EchoPod(f"vllm-{number}", adapters=("sql-lora",)) for number in range(2)]
    changes = {"model_rewrites": REWRITES, "envoy_body_mode": mode, **SLOW}
    async with gateway(tmp_path, both, **changes) as gate:
        await both[0].__aexit__(None, None, None)
        # Larger bodies are not sent again: Envoy does not keep them.
        expected = big_body("sql-lora", 30_000)
        for _ in range(6):
            response, answer = await gate.post(big_body("gpt-small", 30_000))
            assert response.status == 200, answer
            check_arrived(last(gate), expected)


async def test_names_in_forms_queries_and_paths(tmp_path: Path) -> None:
    async with gateway(tmp_path, pods(), model_rewrites=REWRITES) as gate:
        form = aiohttp.FormData({"model": "gpt-small", "language": "en"})
        form.add_field("file", b"RIFF" * 1000, filename="a.wav")
        async with gate.client.post(gate.url + "/v1/audio/translations", data=form) as response:
            assert response.headers["x-pod"] == "vllm-0"
        assert b"\r\n\r\nsql-lora\r\n" in last(gate).body
        check_arrived(last(gate), last(gate).body)

        url = gate.url + "/v1/realtime?model=gpt-small&n=1"
        async with gate.client.get(url) as response:
            assert response.headers["x-pod"] == "vllm-0"
        assert last(gate).path == "/v1/realtime?model=sql-lora&n=1"

        received = await send(gate, b'{"n":1}', "/openai/deployments/gpt-small/embeddings")
        assert received.path == "/openai/deployments/sql-lora/embeddings"
        check_arrived(received, b'{"model":"sql-lora","n":1}')


async def test_a_base_model_answers_for_an_adapter_without_a_ready_pod(tmp_path: Path) -> None:
    async with gateway(tmp_path, pods(), adapter_fallback="base") as gate:
        response, _ = await gate.post({"model": "sql-lora"})
        assert "x-lora-router-fallback" not in response.headers
        listed = [
            {"name": pod.name, "address": pod.address, "ready": not pod.adapters}
            for pod in gate.pods
        ]
        gate.pods_file.write_text(yaml.safe_dump({"pods": listed}))
        gate.app.refresh()
        await until(lambda: len(gate.app.fleet.ready()) == 1, 60)

        response, _ = await gate.post({"model": "sql-lora", "n": 1})

        assert response.headers["x-pod"] == "vllm-1"
        assert response.headers["x-lora-router-fallback"] == "base"
        assert json.loads(last(gate).body) == {"model": "base", "n": 1}


async def test_an_adapter_that_a_pod_loads_on_first_use_is_known_afterwards(
    tmp_path: Path,
) -> None:
    changes = {"unknown_model": "base", "unknown_model_base": "base"}
    async with gateway(tmp_path, [EchoPod("vllm-0")], **changes) as gate:
        gate.pods[0].adapters = ("new-lora",)
        response, _ = await gate.post({"model": "new-lora"})
        assert response.status == 200

        await until(lambda: bool(gate.app.fleet.serving("new-lora").pods), 60)


@pytest.mark.parametrize("response_mode", ["NONE", "STREAMED", "FULL_DUPLEX_STREAMED"])
async def test_an_answer_names_the_model_as_the_client_did(
    tmp_path: Path, response_mode: str
) -> None:
    changes = {"model_rewrites": REWRITES, "answer_model": "asked", **SLOW}
    async with gateway(tmp_path, pods(), **changes) as gate:
        mode = {"response_body_mode": response_mode, "response_trailer_mode": "SEND"}
        async with second_envoy(gate, tmp_path, processing_mode=mode) as envoy:
            url = f"http://127.0.0.1:{envoy.port}/v1/completions"
            for model in ("gpt-small", "sql-lora", "base"):
                document: dict[str, object] = {"model": model, "named": True}
                async with gate.client.post(url, json=document) as response:
                    assert response.status == 200
                    assert (await response.json())["model"] == model
                document |= {"tokens": 3, "pause": 0.01}
                async with gate.client.post(url, json=document) as response:
                    text = await response.read()
                event = f"data: {json.dumps({'model': model})}\n\n".encode()
                assert text == event * 3 + b"data: [DONE]\n\n"
                expected = "sql-lora" if model == "gpt-small" else model
                assert json.loads(last(gate).body)["model"] == expected
            await until(lambda: gate.in_flight == 0 and gate.app.transport.open_streams == 0)
