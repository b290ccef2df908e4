"""The body modes of Envoy, and late answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import AlgorithmOptions, Hold, InferenceRequest, Pick
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import Gateway, gateway
from tests.integration.second_envoy import ask, second_envoy
from tests.waiting import until

BIG = 600_000


def pods() -> list[EchoPod]:
    return [EchoPod("vllm-0", adapters=("sql-lora",)), EchoPod("vllm-1")]


async def check_routing(gate: Gateway) -> None:
    """Check what must hold in every mode."""
    document = {"model": "sql-lora", "prompt": "x" * BIG}
    response, _ = await gate.post(document)
    assert (response.status, response.headers["x-pod"]) == (200, "vllm-0")
    assert json.loads(gate.received[0].body) == document

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"model": '
        await asyncio.sleep(0.05)
        yield b'"sql-lora", "prompt": "'
        yield b"y" * BIG
        await asyncio.sleep(0.05)
        yield b'"}'

    async with gate.client.post(
        gate.url + "/v1/completions",
        data=pieces(),
        headers={"content-type": "application/json"},
    ) as chunked:
        assert chunked.headers["x-pod"] == "vllm-0"
    assert json.loads(gate.received[1].body)["prompt"] == "y" * BIG

    response, body = await gate.post({"model": "nope"})
    assert (response.status, json.loads(body)["error"]["code"]) == (404, "model_not_found")
    response, _ = await gate.post(b"not json")
    assert response.status == 400
    async with gate.client.post(gate.url + "/upload", data=b"z" * BIG) as passed:
        assert passed.status == 200
    async with gate.client.get(gate.url + "/v1/models") as listed:
        assert listed.status == 200
    uploads = [request for request in gate.received if request.path == "/upload"]
    assert [len(request.body) for request in uploads] == [BIG]

    streamed = {"model": "sql-lora", "tokens": 5, "pause": 0.01}
    response, body = await gate.post(streamed)
    assert body.endswith(b"[DONE]\n\n")
    await until(lambda: gate.in_flight == 0 and gate.app.transport.open_streams == 0)


@pytest.mark.parametrize("mode", ["buffered", "streamed", "full-duplex"])
async def test_every_body_mode_routes(tmp_path: Path, transport: str, mode: str) -> None:
    async with gateway(tmp_path, pods(), transport=transport, envoy_body_mode=mode) as gate:
        await check_routing(gate)


@pytest.mark.parametrize(
    ("mode", "status"), [("buffered", 200), ("streamed", 504), ("full-duplex", 200)]
)
async def test_only_in_streamed_mode_must_a_body_be_there_within_the_message_timeout(
    tmp_path: Path, mode: str, status: int
) -> None:
    """A short body: for a long one, and one of unknown length, the router asks Envoy for time."""
    # Where the router answers in time, a busy machine must not keep it from that.
    seconds = 0.5 if status == 504 else 4.0
    changes = {
        "envoy_body_mode": mode,
        "envoy_message_timeout_seconds": seconds,
        "envoy_fail_open": False,
    }
    async with gateway(tmp_path, pods(), **changes) as gate:
        is_answered = asyncio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            yield b'{"model": '
            if status == 504:
                await is_answered.wait()
            else:
                await asyncio.sleep(1.5 * seconds)
            yield b'"sql-lora"}'

        length = len(b'{"model": "sql-lora"}')
        headers = {"content-type": "application/json", "content-length": str(length)}
        url = gate.url + "/v1/completions"
        async with gate.client.post(url, data=pieces(), headers=headers) as response:
            is_answered.set()
            assert response.status == status
        await until(lambda: gate.in_flight == 0)


@pytest.mark.parametrize("mode", ["NONE", "STREAMED", "BUFFERED_PARTIAL"])
async def test_envoys_that_are_configured_otherwise_are_asked_for_the_body(
    tmp_path: Path, transport: str, mode: str
) -> None:
    async with gateway(tmp_path, pods(), transport=transport) as gate:
        changed = second_envoy(gate, tmp_path, processing_mode={"request_body_mode": mode})
        async with changed as envoy:
            for _ in range(3):
                response, _ = await ask(gate, envoy, {"model": "sql-lora", "x": "y" * 10_000})
                assert (response.status, response.headers["x-pod"]) == (200, "vllm-0")
        await until(lambda: gate.in_flight == 0)


async def test_an_envoy_that_sends_no_body_and_may_not_be_asked_reaches_no_pod(
    tmp_path: Path, transport: str
) -> None:
    # With override-host, Envoy would balance it.
    async with gateway(tmp_path, pods(), transport=transport, envoy_pods="original-dst") as gate:
        changed = second_envoy(
            gate,
            tmp_path,
            processing_mode={"request_body_mode": "NONE"},
            allow_mode_override=False,
        )
        async with changed as envoy:
            response, _ = await ask(gate, envoy, {"model": "sql-lora"})
            assert response.status == 503
        assert gate.received == []


async def test_response_messages_are_answered_where_an_envoy_sends_them(
    tmp_path: Path, transport: str
) -> None:
    async with gateway(tmp_path, pods(), transport=transport) as gate:
        changed = second_envoy(
            gate,
            tmp_path,
            processing_mode={
                "response_header_mode": "SEND",
                "response_body_mode": "STREAMED",
                "response_trailer_mode": "SEND",
                "request_trailer_mode": "SEND",
            },
        )
        async with changed as envoy:
            document = {"model": "sql-lora", "tokens": 5, "pause": 0.01}
            response, body = await ask(gate, envoy, document)
            assert (response.status, body.count(b"data: ")) == (200, 6)
        await until(lambda: gate.in_flight == 0)


async def test_response_bodies_in_full_duplex_are_sent_back(tmp_path: Path, transport: str) -> None:
    async with gateway(tmp_path, pods(), transport=transport) as gate:
        changed = second_envoy(
            gate,
            tmp_path,
            processing_mode={
                "request_body_mode": "FULL_DUPLEX_STREAMED",
                "response_header_mode": "SEND",
                "response_body_mode": "FULL_DUPLEX_STREAMED",
                "response_trailer_mode": "SEND",
                "request_trailer_mode": "SEND",
            },
        )
        async with changed as envoy:
            document = {"model": "sql-lora", "tokens": 5, "pause": 0.01, "x": "y" * 2_000_000}
            response, body = await ask(gate, envoy, document)
            assert (response.status, body.count(b"data: ")) == (200, 6)
        assert json.loads(gate.received[0].body) == document


class OneEach:
    """Sends one request to each pod and holds the others for a time that the test sets."""

    name = "least-request"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def pick(
        self, _request: InferenceRequest, candidates: Sequence[PodView], _now: float
    ) -> Pick | Hold:
        free = [pod for pod in candidates if not pod.in_flight]
        return Pick(free[0], "free") if free else Hold("no-slot", self.seconds)


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> OneEach:
    """Replace the algorithm of the router with one that holds."""
    algorithm = OneEach(10.0)

    def load(_options: AlgorithmOptions) -> dict[str, OneEach]:
        return {algorithm.name: algorithm}

    monkeypatch.setattr("lora_router.assembly.load_algorithms", load)
    return algorithm


HELD = {"algorithm": "least-request"}
WAITS = {"model": "sql-lora", "tokens": 1, "pause": 0, "waits": True}


async def test_a_held_request_outlives_envoys_time_limit_and_is_routed(
    tmp_path: Path, transport: str, hold: OneEach
) -> None:
    # A busy machine must not keep the router from an answer within the limit.
    seconds = 4.0
    hold.seconds = 600.0
    changes = HELD | {"envoy_message_timeout_seconds": seconds}
    async with gateway(tmp_path, pods(), transport=transport, **changes) as gate:
        both = [asyncio.create_task(gate.post(WAITS)) for _ in range(2)]
        await until(lambda: gate.app.director.held == 1)
        await asyncio.sleep(1.5 * seconds)
        assert gate.app.director.held == 1
        gate.pods[0].may_end.set()

        first, second = await asyncio.gather(*both)

        assert first[0].status == second[0].status == 200
        assert gate.pods[0].received[1].header("target-pod") == [gate.pods[0].address]
        await until(lambda: gate.in_flight == 0 and gate.app.director.held == 0)


async def test_a_held_request_is_refused_when_its_time_is_up(
    tmp_path: Path, transport: str, hold: OneEach
) -> None:
    hold.seconds = 0.7
    async with gateway(tmp_path, pods(), transport=transport, **HELD) as gate:
        slow = asyncio.create_task(gate.post(WAITS))
        await until(lambda: gate.in_flight == 1)

        response, body = await gate.post({"model": "sql-lora"})

        assert response.status == 429
        assert response.headers["retry-after"] == "1"
        assert json.loads(body)["error"]["code"] == "overloaded"
        gate.pods[0].may_end.set()
        await slow


async def test_a_client_that_leaves_while_held_is_forgotten(
    tmp_path: Path, transport: str, hold: OneEach
) -> None:
    async with gateway(tmp_path, pods(), transport=transport, **HELD) as gate:
        slow = asyncio.create_task(gate.post(WAITS))
        await until(lambda: gate.in_flight == 1)
        waiting = asyncio.create_task(gate.post({"model": "sql-lora"}))
        await until(lambda: gate.app.director.held == 1)

        waiting.cancel()

        await until(lambda: gate.app.director.held == 0)
        gate.pods[0].may_end.set()
        await slow
        assert len(gate.received) == 1
