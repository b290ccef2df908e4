"""Traces of requests: a real Envoy, and a collector that receives OTLP."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import yaml
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from lora_router.config.settings import Settings
from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from tests.envoy import Envoy, free_port
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import gateway, write_pods
from tests.integration.otlp_collector import Collector, Received, values
from tests.integration.served import Served
from tests.waiting import until

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


@pytest.fixture
def trace_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[Collector], dict[str, str]]:
    """Send the spans of a router in this process to a collector."""

    def set_variables(collector: Collector) -> dict[str, str]:
        for name, value in collector.environ.items():
            monkeypatch.setenv(name, value)
        return collector.environ

    return set_variables


def tracing_envoy(collector: Collector) -> Callable[[Settings], str]:
    """Return what makes the bootstrap of an Envoy that traces, too."""

    def bootstrap(settings: Settings) -> str:
        document = yaml.safe_load(bootstrap_yaml(settings))
        resources = document["static_resources"]
        listener = resources["listeners"][0]
        example = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text()
        parts = [yaml.safe_load(each.split("```")[0]) for each in example.split("```yaml\n")[1:]]
        first = next(number for number, part in enumerate(parts) if "tracing" in part)
        tracing, cluster = parts[first : first + 2]
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        manager["tracing"] = tracing["tracing"]
        (added,) = cluster["clusters"]
        address = added["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
        address["socket_address"] = {"address": "127.0.0.1", "port_value": collector.port}
        resources["clusters"].append(added)
        soon = {"tracing.opentelemetry.flush_interval_ms": 50}
        layers = document.setdefault("layered_runtime", {}).setdefault("layers", [])
        layers.append({"name": "traces", "static_layer": soon})
        return yaml.safe_dump(document)

    return bootstrap


@dataclass
class Gate:
    """An Envoy before a router that runs as a process."""

    url: str
    lines: list[str] = field(default_factory=list)

    async def post(self, **more: object) -> int:
        async with (
            aiohttp.ClientSession() as client,
            client.post(self.url, json={"model": "sql-lora", **more}) as response,
        ):
            return response.status

    @property
    def output(self) -> str:
        return "".join(self.lines)

    async def read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self.lines.append(line.decode())


@asynccontextmanager
async def served(
    tmp_path: Path, pods: list[EchoPod], environ: Mapping[str, str], **config: object
) -> AsyncIterator[tuple[Gate, asyncio.subprocess.Process]]:
    """Run a router with these variables, and an Envoy."""
    write_pods(tmp_path / "pods.yaml", pods)
    served = Served(tmp_path, {"drain_timeout_seconds": 1.0, "drain_delay_seconds": 0.0, **config})
    settings = load_settings(file=served.file, environ={}, flags={}).settings
    async with served.run(environ) as process:
        assert process.stdout is not None
        await served.until_ready()
        async with Envoy(bootstrap_yaml(settings), tmp_path, patient=True) as envoy:
            gate = Gate(f"http://127.0.0.1:{envoy.port}/v1/completions")
            reading = asyncio.create_task(gate.read(process.stdout))
            try:
                yield gate, process
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)


@asynccontextmanager
async def deaf() -> AsyncIterator[int]:
    """Listen on a port, and say nothing to those who connect."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


async def test_a_span_is_the_child_of_the_clients_and_only_if_that_is_sampled(
    tmp_path: Path, transport: str, trace_to: Callable[[Collector], dict[str, str]]
) -> None:
    async with Collector() as collector:
        environ = trace_to(collector)
        pod = EchoPod("vllm-0", ("sql-lora",))
        async with gateway(tmp_path, [pod], environ, transport=transport) as gate:
            for traceparent in (NOT_SAMPLED, SAMPLED):
                headers = {"traceparent": traceparent, "x-request-id": f"r{traceparent[-1]}"}
                response, _ = await gate.post({"model": "sql-lora"}, headers=headers)
                assert response.status == 200
            await collector.until(lambda: len(collector.routes) == 1)

    (span,) = collector.routes
    assert (span.trace_id, span.parent_id) == (TRACE, SPAN)
    assert span.span.kind == Span.SPAN_KIND_SERVER
    assert span.resource["service.name"] == "lora-router"
    assert span.attributes["lora_router.request_id"] == "r1"
    assert span.attributes["gen_ai.request.model"] == "sql-lora"
    assert span.attributes["gen_ai.operation.name"] == "chat"
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["lora_router.pod"] == "vllm-0"
    assert span.attributes["lora_router.endpoint"] == pod.address
    assert abs(span.span.end_time_unix_nano / 1e9 - time.time()) < 600
    assert span.span.start_time_unix_nano < span.span.end_time_unix_nano
    assert [each.header("traceparent") for each in pod.received] == [[NOT_SAMPLED], [SAMPLED]]


async def test_with_an_envoy_that_traces_the_span_is_the_child_of_its_call_of_the_router(
    tmp_path: Path, transport: str, trace_to: Callable[[Collector], dict[str, str]]
) -> None:
    async with Collector() as collector:
        environ = trace_to(collector)
        pod = EchoPod("vllm-0", ("sql-lora",))
        async with gateway(
            tmp_path, [pod], environ, tracing_envoy(collector), transport=transport
        ) as gate:
            for headers in ({}, {"traceparent": SAMPLED}):
                await gate.post({"model": "sql-lora"}, headers=headers)
            await collector.until(lambda: len(collector.received) == 6)

    spans = {each.span_id: each for each in collector.received}
    assert len(collector.routes) == 2
    for route in collector.routes:
        call = spans[route.parent_id]
        assert call.span.name.startswith("async envoy.service.ext_proc.v3.ExternalProcessor")
        request = spans[call.parent_id]
        assert request.span.kind == Span.SPAN_KIND_SERVER
        assert request.parent_id in ("", SPAN)
        assert {route.trace_id, call.trace_id} == {request.trace_id}
    assert TRACE in {each.trace_id for each in collector.routes}


async def test_held_and_retried_requests_have_events_and_failed_ones_are_errors(
    tmp_path: Path, trace_to: Callable[[Collector], dict[str, str]]
) -> None:
    async with Collector(over_grpc=True) as collector:
        environ = trace_to(collector)
        pods = [EchoPod("vllm-0", ("a1", "a2"), max_lora=1), EchoPod("vllm-1")]
        async with gateway(tmp_path, pods, environ, outlier_ejection=False) as gate:

            def post(model: str, request_id: str, **more: object) -> "asyncio.Task[object]":
                headers = {"x-request-id": request_id}
                return asyncio.create_task(gate.post({"model": model, **more}, headers=headers))

            def named(request_id: str) -> list[Received]:
                spans = collector.routes
                return [e for e in spans if e.attributes["lora_router.request_id"] == request_id]

            runs = post("a1", "runs", tokens=1, pause=0, waits=True)
            await until(lambda: gate.in_flight == 1)
            waits = post("a2", "waits")
            await until(lambda: gate.app.director.held == 1)
            pods[0].may_end.set()
            await asyncio.gather(runs, waits)
            await pods[1].__aexit__(None, None, None)
            async with asyncio.timeout(60):
                while not any(each.span.events for each in named("retried")):
                    await post("base", "retried")
                    await asyncio.sleep(0.05)
            await pods[0].__aexit__(None, None, None)
            await post("a1", "fails")
            await collector.until(lambda: bool(named("fails") and named("waits")))

    (held,) = named("waits")
    assert [each.name for each in held.span.events] == ["lora_router.held", "lora_router.decided"]
    waited, decided = held.span.events
    assert values(waited.attributes)["lora_router.held_for"]
    seconds = (decided.time_unix_nano - waited.time_unix_nano) / 1e9
    assert seconds == pytest.approx(held.attributes["lora_router.held_seconds"], abs=1e-3)
    # One or more: spans arrive some time after their requests.
    retried = next(each for each in named("retried") if each.span.events)
    (event,) = retried.span.events
    assert event.name == "lora_router.retried"
    assert values(event.attributes) == {"lora_router.retried_on": "vllm-0"}
    assert retried.attributes["lora_router.pod"] == "vllm-1"
    (failed,) = named("fails")
    assert failed.span.status.code == Status.STATUS_CODE_ERROR
    assert failed.attributes["error.type"] == "503"


async def test_each_worker_sends_its_spans(tmp_path: Path) -> None:
    pods = [EchoPod("vllm-0", ("sql-lora",))]
    async with (
        pods[0],
        Collector() as collector,
        served(tmp_path, pods, collector.environ, workers=2) as (gate, process),
    ):
        # With an answer, Envoy knows how many streams a connection may have. It opens another one,
        # which another worker gets, for more than that.
        assert await gate.post() == 200
        answers = [
            asyncio.create_task(gate.post(tokens=1, pause=0, waits=True)) for _ in range(150)
        ]
        await until(lambda: len(pods[0].received) == 151)
        pods[0].may_end.set()
        assert set(await asyncio.gather(*answers)) == {200}
        await collector.until(lambda: len(collector.routes) == 151)
        assert len({each.resource["service.instance.id"] for each in collector.routes}) == 2
        assert process.returncode is None


@pytest.mark.parametrize("kind", ["away", "hangs", "hangs-grpc"])
async def test_without_a_collector_requests_are_answered_and_the_router_ends_in_time(
    tmp_path: Path, kind: str
) -> None:
    pods = [EchoPod("vllm-0", ("sql-lora",))]
    async with pods[0], Collector(hangs=True) as hanging, deaf() as deaf_port:
        away = Collector(port=free_port())
        deaf_one = Collector(over_grpc=True, port=deaf_port)
        collector = {"away": away, "hangs": hanging, "hangs-grpc": deaf_one}[kind]
        environ = {
            **collector.environ,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2",
            "OTEL_BSP_MAX_QUEUE_SIZE": "20",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10",
        }
        async with served(tmp_path, pods, environ) as (gate, process):
            async with asyncio.timeout(60):
                while "spans were dropped" not in gate.output:
                    for _ in range(10):
                        assert await gate.post() == 200
            began = time.monotonic()
            os.kill(process.pid, signal.SIGTERM)
            async with asyncio.timeout(60):
                assert await process.wait() == 0
            assert time.monotonic() - began < 30
