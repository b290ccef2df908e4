"""Unusual bodies and headers through a real Envoy: what pods read is routed, the rest refused."""

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
import yaml

from tests.envoy import free_port
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import Gateway, gateway, write_pods
from tests.integration.second_envoy import second_envoy
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    pods = [EchoPod("vllm-0", adapters=("sql-lora",)), EchoPod("vllm-1", adapters=("last",))]
    async with gateway(tmp_path_factory.mktemp("gateway"), pods) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_received(gate: Gateway) -> None:
    for pod in gate.pods:
        pod.received.clear()


BODIES = {
    "cut-emoji": rb'{"messages": [{"role": "user", "content": "cut \ud83d"}], "model": "last"}',
    "raw-surrogate": b'{"prompt": "cut \xed\xa0\xbd", "model": "last"}',
    "not-a-number": b'{"temperature": NaN, "logit_bias": {"1": -Infinity}, "model": "last"}',
    "utf-16": '{"model": "last"}'.encode("utf-16"),
    "utf-32": '{"model": "last"}'.encode("utf-32"),
    "escaped-name-twice": rb'{"model": "sql-lora", "mod\u0065l": "last"}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_json_is_read_as_the_pod_reads_it_and_arrives_unchanged(
    gate: Gateway, body: bytes
) -> None:
    response, _ = await gate.post(body)

    assert json.loads(body)["model"] == "last"
    assert (response.status, response.headers["x-pod"]) == (200, "vllm-1")
    (received,) = gate.received
    assert (received.body, received.header("model")) == (body, ["last"])


async def test_a_clients_form_is_routed(gate: Gateway) -> None:
    form = aiohttp.FormData()
    form.add_field("file", b"RIFF" * 100_000, filename="größe.wav", content_type="audio/wav")
    form.add_field("model", "last")
    form.add_field("stream", "true")

    url = gate.url + "/v1/audio/transcriptions"
    async with gate.client.post(url, data=form) as response:
        assert (response.status, response.headers["x-pod"]) == (200, "vllm-1")


async def test_a_form_that_servers_may_read_differently_is_refused(gate: Gateway) -> None:
    body = (
        b'--b\r\ncontent-disposition: form-data; name="model"; name="x"\r\n\r\nlast\r\n'
        b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nsql-lora\r\n--b--\r\n'
    )
    headers = {"content-type": "multipart/form-data; boundary=b"}

    response, answer = await gate.post(body, "/v1/audio/transcriptions", headers)

    assert response.status == 400
    assert "malformed or ambiguous" in json.loads(answer)["error"]["message"]
    assert gate.received == []


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br", "deflate"])
async def test_an_encoded_body_is_a_415_that_names_the_encoding(
    gate: Gateway, encoding: str
) -> None:
    response, answer = await gate.post(b"\x1f\x8b", headers={"content-encoding": encoding})

    assert response.status == 415
    assert response.headers["accept-encoding"] == "identity"
    error = json.loads(answer)["error"]
    assert error["code"] == "unsupported_encoding"
    assert f"'{encoding}'" in error["message"]
    assert gate.received == []


async def test_an_encoded_body_that_nobody_reads_passes(gate: Gateway) -> None:
    body = gzip.compress(b"a file")

    response, _ = await gate.post(body, "/v1/files", {"content-encoding": "gzip"})

    assert response.status == 200
    assert gate.received[0].header("content-encoding") == ["gzip"]
    assert gate.received[0].body == b"a file"  # The pod's HTTP library decodes it.


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files"])
async def test_up_to_the_limit_headers_pass_and_more_are_a_431(gate: Gateway, path: str) -> None:
    statuses: dict[int, int] = {}
    for number in (60, 85, *range(86, 101), 101, 150, 900):
        # With these, the client's other headers, and Envoy's, there are about a dozen more.
        headers = {f"x-client-header-{each:03}": "of a usual length" for each in range(number)}
        response, answer = await gate.post({"model": "base"}, path, headers)
        statuses[number] = response.status
        if response.status != 200:
            assert json.loads(answer)["error"]["code"] == "request_headers_too_large"

    assert set(statuses.values()) == {200, 431}
    assert sorted(statuses.values()) == list(statuses.values())
    assert (statuses[60], statuses[101]) == (200, 431)


async def test_headers_that_become_too_long_with_those_of_the_router_are_a_431(
    gate: Gateway,
) -> None:
    """Envoy allows 60 KiB. It closes the connection of a client that sends more by itself."""
    body = b'{"model": "base"}'
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    head += b"content-length: %d\r\n" % len(body)
    head += b"".join(b"x-long-%d: %s\r\n" % (number, b"x" * 8000) for number in range(7))
    statuses = []
    for length in range(60 * 1024 - 700, 60 * 1024, 20):
        padding = b"x-padding: " + b"x" * (length - len(head))
        answer = await gate.raw(head + padding + b"\r\n\r\n" + body)
        statuses.append(answer[9:12])
        if answer.startswith(b"HTTP/1.1 431"):
            error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
            assert error["code"] == "request_headers_too_large"

    assert statuses[0] == b"200"
    assert set(statuses) <= {b"200", b"431", b""}
    assert b"431" in statuses


class TestAnthropic:
    async def test_an_error_of_the_router(self, gate: Gateway) -> None:
        response, answer = await gate.post(
            {"model": "claude"}, "/v1/messages", {"x-request-id": "req-1"}
        )

        assert response.status == 404
        assert response.headers["x-error-no-model-backends"] == "claude"
        document = json.loads(answer)
        assert document.pop("request_id") == "req-1"
        assert document == {
            "type": "error",
            "error": {
                "type": "not_found_error",
                "message": "The model 'claude' does not exist: no pod serves it.",
            },
        }

    @pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens?beta=true"])
    async def test_an_error_of_envoy(self, gate: Gateway, path: str) -> None:
        gone = EchoPod("gone", address=f"127.0.0.1:{free_port()}")
        listed = [{"name": gone.name, "address": gone.address, "models": ["ghost"]}]
        listed += [{"name": pod.name, "address": pod.address} for pod in gate.pods]
        try:
            gate.pods_file.write_text(yaml.safe_dump({"pods": listed}))
            await until(lambda: bool(gate.app.fleet.serving("ghost").pods))
            await gate.until_envoy_knows(gone)

            response, answer = await gate.post({"model": "ghost"}, path)
            assert response.status == 503
            document = json.loads(answer)
            assert (document["type"], document["error"]["type"]) == ("error", "overloaded_error")
            _, answer = await gate.post({"model": "ghost"})
            assert json.loads(answer)["error"]["code"] == "pod_unreachable"
        finally:
            write_pods(gate.pods_file, gate.pods)
            await until(lambda: not gate.app.fleet.serving("ghost").pods)

    async def test_a_body_over_envoys_buffer(self, gate: Gateway) -> None:
        body = b'{"model": "' + b"x" * (gate.settings.max_body_bytes + 3_000_000)

        response, answer = await gate.post(body, "/v1/messages")

        assert response.status == 413
        assert json.loads(answer)["error"]["type"] == "request_too_large"


@pytest.mark.parametrize("body_mode", ["streamed", "full-duplex"])
async def test_it_is_the_same_in_every_body_mode(tmp_path: Path, body_mode: str) -> None:
    pods = [EchoPod("vllm-0", adapters=("sql-lora",)), EchoPod("vllm-1", adapters=("last",))]
    async with gateway(tmp_path, pods, envoy_body_mode=body_mode) as gate:
        for body in BODIES.values():
            response, _ = await gate.post(body)
            assert (response.status, response.headers["x-pod"]) == (200, "vllm-1")
            assert gate.received[-1].body == body
        gzipped = gzip.compress(b'{"model": "last"}' + b" " * 100_000)
        response, _ = await gate.post(gzipped, headers={"content-encoding": "gzip"})
        assert response.status == 415
        many = {f"x-client-header-{each:03}": "of a usual length" for each in range(150)}
        response, _ = await gate.post({"model": "base"}, headers=many)
        assert response.status == 431
        response, answer = await gate.post({"model": "claude"}, "/v1/messages")
        assert json.loads(answer)["error"]["type"] == "not_found_error"


CORS = [
    {
        "name": "envoy.filters.http.cors",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"},
    }
]


async def test_browsers_may_read_the_routers_errors_behind_envoys_cors_filter(
    gate: Gateway, tmp_path: Path
) -> None:
    """As docs/envoy.md configures it: the filter is before ext_proc."""
    headers = {"origin": "https://app.example"}
    async with second_envoy(gate, tmp_path, earlier_filters=CORS, cors=True) as envoy:
        url = f"http://127.0.0.1:{envoy.port}/v1/chat/completions"
        for model, status in (("no-such-model", 404), ("base", 200)):
            async with gate.client.post(url, json={"model": model}, headers=headers) as response:
                assert response.status == status
                assert response.headers["access-control-allow-origin"] == "https://app.example"
        preflight = {**headers, "access-control-request-method": "POST"}
        async with gate.client.options(url, headers=preflight) as response:
            assert response.status == 200
            assert response.headers["access-control-allow-methods"] == "POST"
        stranger = {"origin": "http://elsewhere.example"}
        async with gate.client.post(url, json={"model": "no"}, headers=stranger) as response:
            assert response.status == 404
            assert "access-control-allow-origin" not in response.headers
