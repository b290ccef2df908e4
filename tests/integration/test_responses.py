"""Requests count until the last byte of their answers, and answers of others are passed."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lora_router.extproc.gateway_faults import EARLY_IN_A_ROW, UNSEEN_IN_A_ROW
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import AlgorithmOptions, Hold, InferenceRequest, Pick
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import Gateway, gateway
from tests.integration.second_envoy import ask, second_envoy
from tests.waiting import until

WAITS = {"model": "sql-lora", "stream": True, "tokens": 1, "pause": 0, "waits": True}
JSON = {"content-type": "application/json"}


def pods() -> list[EchoPod]:
    return [EchoPod("vllm-0", adapters=("sql-lora",)), EchoPod("vllm-1")]


@asynccontextmanager
async def waiting_answer(gate: Gateway, port: int, method: str = "POST") -> AsyncIterator[None]:
    """Ask for an answer that has begun inside the block, and ends after it.

    A GET names no model, and has no body.
    """
    for pod in gate.pods:
        pod.may_end.clear()
    url = f"http://127.0.0.1:{port}/" + ("v1/completions" if method == "POST" else "waits")
    asked = WAITS if method == "POST" else None
    async with gate.client.request(method, url, json=asked) as response:
        assert await response.content.readline() == b"data: 0\n"
        yield
        for pod in gate.pods:
            pod.may_end.set()
        assert (await response.read()).endswith(b"[DONE]\n\n")


async def check_counted_until_the_last_byte(gate: Gateway, port: int) -> None:
    for method in ("POST", "GET"):
        async with waiting_answer(gate, port, method):
            # A stream that is closed early is closed before the messages of another request.
            async with gate.client.post(
                f"http://127.0.0.1:{port}/v1/completions", json={"model": "sql-lora"}
            ) as response:
                assert response.status == 200
            await until(lambda: gate.in_flight <= 1)
            assert gate.in_flight == 1, method
        await until(lambda: gate.in_flight == 0)


def answers_counted(gate: Gateway, by: str, status: str) -> float:
    value = gate.app.telemetry.registry.get_sample_value(
        "lora_router_answers_total", {"by": by, "status": status}
    )
    return value or 0.0


@pytest.mark.parametrize("mode", ["buffered", "streamed", "full-duplex"])
async def test_a_request_is_in_flight_until_the_last_byte_of_its_answer(
    tmp_path: Path, transport: str, mode: str
) -> None:
    async with gateway(tmp_path, pods(), transport=transport, envoy_body_mode=mode) as gate:
        await check_counted_until_the_last_byte(gate, gate.envoy.port)
        assert answers_counted(gate, "pod", "2xx") == 4


@pytest.mark.parametrize("mode", ["NONE", "STREAMED", "BUFFERED", "BUFFERED_PARTIAL"])
async def test_an_envoy_that_is_configured_otherwise_is_asked_for_that(
    tmp_path: Path, transport: str, mode: str
) -> None:
    configured = {
        "request_body_mode": mode,
        "response_header_mode": "SKIP",
        "response_trailer_mode": "SKIP",
    }
    async with gateway(tmp_path, pods(), transport=transport) as gate:
        async with second_envoy(gate, tmp_path, processing_mode=configured) as envoy:
            await check_counted_until_the_last_byte(gate, envoy.port)
        assert answers_counted(gate, "pod", "2xx") == 4


CLOSES_EARLY = {
    "full-duplex": {
        "request_body_mode": "FULL_DUPLEX_STREAMED",
        "request_trailer_mode": "SEND",
        "response_trailer_mode": "SKIP",
    },
    "streamed": {"request_body_mode": "STREAMED", "response_trailer_mode": "SKIP"},
    "streamed-unseen": {
        "request_body_mode": "STREAMED",
        "response_header_mode": "SKIP",
        "response_trailer_mode": "SKIP",
    },
}


@pytest.mark.parametrize("mode", CLOSES_EARLY.values(), ids=CLOSES_EARLY)
async def test_an_envoy_that_closes_streams_early_is_noticed(
    tmp_path: Path,
    mode: Mapping[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with gateway(tmp_path, pods()) as gate:
        faults = gate.app.gateway
        # The clock stands still: whether a stream ends before its answer is seen below.
        faults.now = lambda: 1.0
        changed = second_envoy(
            gate,
            tmp_path,
            processing_mode=mode,
            send_body_without_waiting_for_header_response=mode["request_body_mode"] == "STREAMED",
        )
        async with changed as envoy:
            for _ in range(EARLY_IN_A_ROW):
                async with waiting_answer(gate, envoy.port):
                    await until(lambda: gate.in_flight == 0)
        assert faults.closed_early == EARLY_IN_A_ROW
        readiness = gate.app.readiness()
        assert readiness.ready
        assert "response_trailer_mode: SEND" in str(readiness.details["gateway_faults"])
        assert caplog.text.count("closes ext_proc streams") == 1
        assert b"lora_router_streams_closed_early_total 32.0" in gate.app.telemetry.page()


@pytest.mark.parametrize("mode", ["buffered", "streamed", "full-duplex"])
async def test_clients_that_leave_at_the_first_byte_are_not_blamed_on_envoy(
    tmp_path: Path, transport: str, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(tmp_path, pods(), transport=transport, envoy_body_mode=mode) as gate:
        # The clock stands still: every stream ends at once.
        gate.app.gateway.now = lambda: 1.0
        body = json.dumps({"model": "sql-lora", "stream": True, "tokens": 1000, "pause": 1})
        request = (
            "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}"
        ).encode()
        for _ in range(2 * EARLY_IN_A_ROW):
            reader, writer = await asyncio.open_connection("127.0.0.1", gate.envoy.port)
            writer.write(request)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.transport.abort()
        await until(lambda: gate.in_flight == 0)

        assert "gateway_faults" not in gate.app.readiness().details
        assert "closes ext_proc streams" not in caplog.text


async def test_an_envoy_that_sends_no_response_headers_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(tmp_path, pods()) as gate:
        changed = second_envoy(
            gate,
            tmp_path,
            processing_mode={"response_header_mode": "SKIP"},
            allow_mode_override=False,
        )
        async with changed as envoy:
            for _ in range(UNSEEN_IN_A_ROW):
                await ask(gate, envoy, {"model": "sql-lora"})
            await until(lambda: gate.in_flight == 0)
        assert "response_header_mode: SEND" in str(gate.app.readiness().details["gateway_faults"])
        assert "no response headers" in caplog.text

        await gate.post({"model": "sql-lora"})
        assert "gateway_faults" not in gate.app.readiness().details


def refusing_filter(status: int) -> dict[str, object]:
    """Return a filter that answers every request by itself, as one for authentication would."""
    return {
        "name": "envoy.filters.http.fault",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
            "abort": {"http_status": status, "percentage": {"numerator": 100}},
        },
    }


CORS = {
    "name": "envoy.filters.http.cors",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"},
}


@pytest.mark.parametrize("body_mode", ["buffered", "streamed", "full-duplex"])
async def test_the_answer_of_an_earlier_filter_reaches_the_client(
    tmp_path: Path, body_mode: str
) -> None:
    changes = {"envoy_body_mode": body_mode, "envoy_fail_open": False}
    async with gateway(tmp_path, pods(), **changes) as gate:
        for status in (401, 429):
            refusing = second_envoy(gate, tmp_path, earlier_filters=[refusing_filter(status)])
            async with refusing as envoy:
                response, body = await ask(gate, envoy, {"model": "sql-lora"})
                assert response.status == status
                assert body == b"fault filter abort"
        asked = {"origin": "https://a.example", "access-control-request-method": "POST"}
        async with second_envoy(gate, tmp_path, earlier_filters=[CORS], cors=True) as envoy:
            url = f"http://127.0.0.1:{envoy.port}/v1/completions"
            async with gate.client.options(url, headers=asked) as response:
                assert response.status == 200
                assert response.headers["access-control-allow-origin"] == "https://a.example"
        malformed = await gate.raw(b"GET /v1/models HTTP/1.1\r\n\r\n")
        assert malformed.startswith(b"HTTP/1.1 400")

        await until(lambda: gate.app.transport.open_streams == 0)
        assert gate.received == []
        assert gate.in_flight == 0
        page = gate.app.telemetry.page().decode()
        counts = re.findall(r"^lora_router_requests_total\{.*\} (\S+)$", page, re.MULTILINE)
        assert set(map(float, counts)) == {0.0}


@pytest.mark.parametrize("body_mode", ["buffered", "streamed", "full-duplex"])
async def test_a_client_that_is_too_slow_for_envoy_gets_its_408(
    tmp_path: Path, body_mode: str
) -> None:
    async with gateway(tmp_path, pods(), envoy_body_mode=body_mode) as gate:
        async with second_envoy(gate, tmp_path, manager={"request_timeout": "0.3s"}) as envoy:
            reader, writer = await asyncio.open_connection("127.0.0.1", envoy.port)
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
                b'content-length: 100\r\n\r\n{"model": '
            )
            assert (await reader.readline()).startswith(b"HTTP/1.1 408")
            writer.close()
        await until(lambda: gate.app.transport.open_streams == 0)
        assert gate.received == []
        assert gate.in_flight == 0


class HoldsAll:
    """Holds every request."""

    name = "least-request"

    def pick(
        self, _request: InferenceRequest, _candidates: Sequence[PodView], _now: float
    ) -> Pick | Hold:
        return Hold("no-slot", 20.0)


async def test_a_held_request_that_envoy_answers_itself_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_options: AlgorithmOptions) -> dict[str, HoldsAll]:
        return {HoldsAll.name: HoldsAll()}

    monkeypatch.setattr("lora_router.assembly.load_algorithms", load)
    manager = {"common_http_protocol_options": {"max_stream_duration": "0.5s"}}
    async with gateway(tmp_path, pods(), algorithm=HoldsAll.name) as gate:
        async with second_envoy(gate, tmp_path, manager=manager) as envoy:
            response, _ = await ask(gate, envoy, {"model": "sql-lora"})

            assert response.status == 504
            await until(lambda: gate.app.director.held == 0)
        assert gate.received == []
        assert gate.in_flight == 0
