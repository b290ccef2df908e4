"""Invalid input through a real Envoy: clear errors, nothing is lost, only pods are reached."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import yaml
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, StreamEnded, StreamReset

from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest
from tests.envoy import free_port
from tests.integration.calls import end_of
from tests.integration.conftest import TRANSPORTS
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import Gateway, gateway, write_pods
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 3_000_000


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=TRANSPORTS)
async def gate(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Gateway]:
    pods = [EchoPod("vllm-0", adapters=("sql-lora",)), EchoPod("vllm-1", adapters=("last",))]
    path = tmp_path_factory.mktemp("gateway")
    async with gateway(path, pods, max_body_bytes=LIMIT, transport=request.param) as made:
        yield made


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def counts_return_to_zero(gate: Gateway) -> AsyncIterator[None]:
    for pod in gate.pods:
        pod.received.clear()
    yield
    await until(lambda: gate.in_flight == 0)
    await until(lambda: gate.app.transport.open_streams == 0)
    assert gate.app.director.held == 0
    assert all(not state.in_flight and not state.in_flight_adapters for state in gate.app.fleet)


def error_of(body: bytes) -> dict[str, object]:
    document = json.loads(body)
    assert set(document) == {"error"}
    assert set(document["error"]) == {"message", "type", "param", "code"}
    error: dict[str, object] = document["error"]
    return error


MALFORMED = {
    "not-json": b"hello",
    "empty-object-in-list": b"[{}]",
    "a-string": b'"sql-lora"',
    "truncated": b'{"model": "sql-lora", "messages": [{"role": "user", "content": "hi',
    "nested-100000-deep": b'{"model": "sql-lora", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "invalid-utf-8-in-the-prompt": b'{"model": "sql-lora", "prompt": "\xff\xfe"}',
    "invalid-utf-8-in-the-model": b'{"model": "sql-\xfflora"}',
    "model-1-mb-long": b'{"model": "' + b"m" * 1_000_000 + b'"}',
    "model-with-a-control-character": b'{"model": "sql\\u0000lora"}',
    "model-with-a-newline": b'{"model": "sql-lora\\ntarget-pod: 10.0.0.1:80"}',
    "two-documents": b'{"model": "sql-lora"}{"model": "sql-lora"}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_body_is_a_400(gate: Gateway, body: bytes) -> None:
    response, answer = await gate.post(body)

    assert response.status == 400
    assert response.headers["x-error-request-body-processing"] == "true"
    assert response.headers["content-type"] == "application/json"
    message = str(error_of(answer)["message"])
    assert len(message) < 300
    assert "Traceback" not in message
    assert gate.received == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/load_lora_adapter%0a",
        "/sleep%0A",
        "/metrics/x",
        "/v1/x%2f..%2f..%2fsleep",
        "/a%5csleep",
    ],
)
async def test_no_way_to_write_an_administrative_path_opens_it(gate: Gateway, path: str) -> None:
    headers = "host: x\r\ncontent-length: 2\r\nconnection: close"

    answer = await gate.raw(f"POST {path} HTTP/1.1\r\n{headers}\r\n\r\n{{}}".encode())

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404")
    assert error_of(body)["code"] == "path_refused"
    assert gate.received == []


@pytest.mark.parametrize(
    "body", [b"{}", b'{"model": ""}', b'{"model": null}', b'{"model": 5}', b'{"model": ["a"]}']
)
async def test_a_body_without_a_model_is_a_400(gate: Gateway, body: bytes) -> None:
    response, answer = await gate.post(body)

    assert response.status == 400
    assert response.headers["x-error-no-model-in-request"] == "true"
    assert error_of(answer)["param"] == "model"


async def test_of_two_models_the_last_counts_as_it_does_for_the_pod(gate: Gateway) -> None:
    body = b'{"model": "sql-lora", "messages": [], "model": "last"}'

    response, _ = await gate.post(body)

    assert response.headers["x-pod"] == "vllm-1"
    assert gate.received[0].header("model") == ["last"]
    assert json.loads(gate.received[0].body)["model"] == "last"


async def test_a_byte_order_mark_is_skipped_as_the_pod_skips_it(gate: Gateway) -> None:
    body = b'\xef\xbb\xbf{"model": "last"}'

    response, _ = await gate.post(body)

    assert response.headers["x-pod"] == "vllm-1"
    assert gate.received[0].body == body


async def test_an_unknown_model_is_a_404_that_names_it(gate: Gateway) -> None:
    response, answer = await gate.post({"model": "gpt-9"})

    assert response.status == 404
    assert response.headers["x-error-no-model-backends"] == "gpt-9"
    assert error_of(answer)["code"] == "model_not_found"


async def test_an_unknown_algorithm_is_a_400_that_lists_the_known(gate: Gateway) -> None:
    response, answer = await gate.post({"model": "base"}, headers={"routing-strategy": "best"})

    assert response.status == 400
    assert response.headers["x-error-invalid-routing-strategy"] == "true"
    message = str(error_of(answer)["message"])
    assert all(name in message for name in ("random", "least-request", "lora-affinity"))


async def test_a_bad_selector_is_a_400(gate: Gateway) -> None:
    response, answer = await gate.post({"model": "base"}, headers={"external-filter": "a in ("})

    assert response.status == 400
    assert response.headers["x-error-external-filter"] == "true"
    assert error_of(answer)["param"] == "external-filter"


@pytest.mark.parametrize("length", [LIMIT + 1, LIMIT + 400_000, 3 * LIMIT])
async def test_a_body_over_the_limit_is_a_413(gate: Gateway, length: int) -> None:
    body = b'{"model": "base", "prompt": "' + b"x" * length + b'"}'

    response, answer = await gate.post(body)

    assert response.status == 413
    assert error_of(answer)["code"] == "request_too_large"
    assert gate.received == []


@pytest.mark.parametrize("length", [LIMIT + 1, 3 * LIMIT])
async def test_a_body_over_the_limit_that_does_not_say_so_is_a_413_too(
    gate: Gateway, length: int
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"model": "base", "prompt": "'
        for _ in range(0, length, 100_000):
            yield b"x" * 100_000
        yield b'"}'

    async with gate.client.post(
        gate.url + "/v1/completions", data=chunks(), headers={"content-type": "application/json"}
    ) as response:
        assert response.status == 413
        error_of(await response.read())
    assert gate.received == []


FORM = b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        (b"multipart/form-data", b"--b\r\n\r\n--b--\r\n", 400),
        (b"multipart/form-data; boundary=b", b"--other--\r\n", 400),
        (
            b"multipart/form-data; boundary=b",
            b'--b\r\ncontent-disposition: form-data; name="mo',
            400,
        ),
        (
            b"multipart/form-data; boundary=b",
            b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n',
            400,
        ),
        (b"application/json", b"RIFF....", 400),
        (
            b"multipart/form-data; boundary=b",
            b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nbase\r\n--b--\r\n',
            200,
        ),
    ],
    ids=["no-boundary", "wrong-boundary", "cut", "no-model", "not-a-form", "good"],
)
async def test_a_bad_form_is_a_400(
    gate: Gateway, content_type: bytes, body: bytes, status: int
) -> None:
    head = FORM + b"content-type: %s\r\ncontent-length: %d\r\n\r\n" % (content_type, len(body))

    answer = await gate.raw(head + body)

    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    if status == 400:
        error_of(answer.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("header", [b"routing-strategy", b"external-filter", b"content-type"])
async def test_header_values_that_are_not_utf_8_harm_nothing(gate: Gateway, header: bytes) -> None:
    body = b'{"model": "base"}'
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    head += header + b": \xff\xfe\xc3\r\ncontent-length: %d\r\n\r\n" % len(body)

    answer = await gate.raw(head + body)

    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 ")), answer
    if header != b"content-type":
        assert answer.startswith(b"HTTP/1.1 400 ")
        error_of(answer.partition(b"\r\n\r\n")[2])


class Trap:
    """A server that is not a pod and must never be reached."""

    def __init__(self) -> None:
        self.reached = 0

    async def __aenter__(self) -> "Trap":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _connected(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reached += 1
        writer.close()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/chat/completions", b'{"model": "base"}'),
        ("POST", "/v1/chat/completions", b'{"model": "nope"}'),
        ("POST", "/v1/chat/completions", b"not json"),
        ("POST", "/v1/chat/completions", b""),
        ("GET", "/v1/models", b""),
        ("POST", "/other", b"body"),
        ("GET", "/", b""),
    ],
)
@pytest.mark.parametrize(
    "header",
    [
        b"target-pod",
        b"Target-Pod",
        b"x-gateway-destination-endpoint",
        b"x-envoy-original-dst-host",
    ],
)
async def test_a_client_cannot_choose_the_address(
    gate: Gateway, method: str, path: str, body: bytes, header: bytes
) -> None:
    async with Trap() as trap:
        target = header + b": " + trap.address.encode() + b"\r\n"
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n".encode()
        head += target + target + b"content-length: %d\r\n\r\n" % len(body)

        answer = await gate.raw(head + body)

        assert answer.startswith(b"HTTP/1.1 ")
        assert trap.reached == 0
    for request in gate.received:
        pod = next(pod for pod in gate.pods if pod.name == request.pod)
        assert request.header("target-pod") == [pod.address]
        (destination,) = request.header("x-gateway-destination-endpoint")
        picked, *fallbacks = destination.split(",")
        assert picked == pod.address
        assert {picked, *fallbacks} <= {each.address for each in gate.pods}


async def test_a_client_cannot_claim_a_model_or_a_strategy_by_header(gate: Gateway) -> None:
    await gate.post({"model": "base"}, headers={"model": "other"})
    async with gate.client.get(gate.url + "/x", headers={"model": "m", "routing-strategy": "s"}):
        pass

    assert gate.received[0].header("model") == ["base"]
    assert gate.received[1].header("model") == []
    assert gate.received[1].header("routing-strategy") == []


async def test_no_ready_pod_is_a_503(gate: Gateway) -> None:
    good = gate.pods_file.read_text()
    try:
        gate.pods_file.write_text("pods: []\n")
        await until(lambda: len(gate.app.fleet) == 0)

        response, answer = await gate.post({"model": "base"})
        assert response.status == 503
        assert response.headers["x-error-no-model-backends"] == "true"
        assert error_of(answer)["code"] == "no_ready_pod"
        async with gate.client.get(gate.url + "/v1/models") as passed:
            assert passed.status == 503
    finally:
        gate.pods_file.write_text(good)
        await until(lambda: bool(gate.app.fleet.serving("base").pods))


async def test_a_bad_edit_of_the_pods_file_keeps_the_last_good_list(gate: Gateway) -> None:
    try:
        gate.pods_file.write_text(yaml.safe_dump({"pods": [{"name": "x", "address": "host:80"}]}))
        await until(lambda: "discovery_error" in gate.app.discovery.status())

        response, _ = await gate.post({"model": "base"})
        assert response.status == 200
    finally:
        write_pods(gate.pods_file, gate.pods)
        await until(lambda: "discovery_error" not in gate.app.discovery.status())


async def test_a_pod_that_is_gone_is_envoys_503_and_the_count_returns(gate: Gateway) -> None:
    gone = EchoPod("gone", address=f"127.0.0.1:{free_port()}")
    listed = [{"name": gone.name, "address": gone.address, "models": ["ghost"]}]
    listed += [{"name": pod.name, "address": pod.address} for pod in gate.pods]
    try:
        gate.pods_file.write_text(yaml.safe_dump({"pods": listed}))
        await until(lambda: bool(gate.app.fleet.serving("ghost").pods))
        await gate.until_envoy_knows(gone)

        response, _ = await gate.post({"model": "ghost"})
        assert response.status == 503
    finally:
        write_pods(gate.pods_file, gate.pods)
        await until(lambda: not gate.app.fleet.serving("ghost").pods)


async def test_a_client_that_aborts_while_the_body_is_sent(gate: Gateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gate.envoy.port)
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b'content-length: 1000\r\n\r\n{"model": "base"'
    )
    await until(lambda: gate.app.transport.open_streams == 1)
    _reset(writer)
    del reader
    assert gate.received == []


async def test_a_client_that_aborts_while_it_waits(gate: Gateway) -> None:
    body = b'{"model": "base", "tokens": 1, "pause": 30}'
    reader, writer = await asyncio.open_connection("127.0.0.1", gate.envoy.port)
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(body) + body
    )
    await until(lambda: gate.in_flight == 1)
    _reset(writer)
    del reader


async def test_a_client_that_aborts_while_it_streams(gate: Gateway) -> None:
    document = {"model": "base", "tokens": 1000, "pause": 0.02}
    response = await gate.client.post(gate.url + "/v1/completions", json=document)
    await response.content.readline()
    assert gate.in_flight == 1
    response.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with RST."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()


async def test_messages_that_are_no_messages_end_their_stream_only(gate: Gateway) -> None:
    import grpc
    import grpc.aio

    address = f"127.0.0.1:{gate.app.transport.port}"
    async with grpc.aio.insecure_channel(address) as channel:
        process = channel.stream_stream("/envoy.service.ext_proc.v3.ExternalProcessor/Process")
        for data, code in [
            (b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
            (ProcessingRequest().SerializeToString(), grpc.StatusCode.FAILED_PRECONDITION),
        ]:
            call = process()
            await call.write(data)
            assert (await end_of(call))[1] == code
            assert (await call.details()).startswith("lora-router: ")
    response, _ = await gate.post({"model": "base"})
    assert response.status == 200


SPOOF = b"\n\x10routing-strategy\x1a\x06random"
"""The first bytes of a header in a message to the router (``extproc/wire_format.py``)."""


@pytest.mark.parametrize(
    ("value", "reached"),
    [(b"curl", 1), (SPOOF, 0), (b"x" + SPOOF, 0), (b"x\r" + SPOOF, 0), (b"x" + SPOOF[1:], 0)],
)
async def test_over_http2_no_value_of_a_header_is_taken_for_another_header(
    gate: Gateway, value: bytes, reached: int
) -> None:
    """Envoy refuses line feeds in values, so none reaches the router."""
    config = H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
    client = H2Connection(config)
    client.initiate_connection()
    body = b'{"model": "sql-lora"}'
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"gateway"),
        (b":path", b"/v1/completions"),
        (b"content-type", b"application/json"),
        (b"user-agent", value),
    ]
    client.send_headers(1, headers)
    client.send_data(1, body, end_stream=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", gate.envoy.port)
    ended = False
    async with asyncio.timeout(60):
        while not ended:
            writer.write(client.data_to_send())
            data = await reader.read(65536)
            events = client.receive_data(data)
            ended = not data or any(
                isinstance(event, StreamEnded | StreamReset | ConnectionTerminated)
                for event in events
            )
    writer.close()
    assert len(gate.received) == reached


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r\n "], ids=["lf", "crlf", "fold"])
async def test_over_http1_no_value_of_a_header_is_taken_for_another_header(
    gate: Gateway, line_end: bytes
) -> None:
    body = b'{"model": "sql-lora"}'
    head = (
        b"POST /v1/completions HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        b"connection: close\r\ncontent-length: %d\r\nuser-agent: x" % len(body)
    )
    answer = await gate.raw(head + line_end + SPOOF[1:] + b"\r\n\r\n" + body)
    strategies = [request.header("routing-strategy") for request in gate.received]
    # Envoy refuses malformed headers. It closes the connection, before its 400 in most cases: the
    # answer waits for the router, which sees response headers.
    refused = answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert (refused and not strategies) or strategies == [["lora-placement"]]
