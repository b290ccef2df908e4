"""Requests through a real Envoy arrive at the right pod."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.integration.conftest import TRANSPORTS
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import Gateway, gateway, write_pods
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=TRANSPORTS)
async def gate(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Gateway]:
    pods = [
        EchoPod("vllm-0", adapters=("sql-lora", "chat-lora"), running="chat-lora"),
        EchoPod("vllm-1", adapters=("sql-lora", "chat-lora"), running="sql-lora"),
        EchoPod("vllm-2", adapters=("only-here",)),
    ]
    path: Path = tmp_path_factory.mktemp("gateway")
    changes = {
        "lora_affinity_threshold": 1.0,
        "transport": request.param,
        # 500 requests at once may take longer than 5 s on a busy machine.
        "envoy_message_timeout_seconds": 60.0,
    }
    async with gateway(path, pods, **changes) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_received(gate: Gateway) -> None:
    for pod in gate.pods:
        pod.received.clear()


async def nothing_in_flight(gate: Gateway) -> None:
    await until(lambda: gate.in_flight == 0)


@pytest.mark.parametrize(
    ("model", "pod"), [("sql-lora", "vllm-1"), ("chat-lora", "vllm-0"), ("only-here", "vllm-2")]
)
async def test_a_request_arrives_at_the_pod_that_has_its_adapter(
    gate: Gateway, model: str, pod: str
) -> None:
    for _ in range(5):
        response, _ = await gate.post({"model": model, "messages": []})
        assert (response.status, response.headers["x-pod"]) == (200, pod)
    await nothing_in_flight(gate)


async def test_the_pod_sees_where_and_why(gate: Gateway) -> None:
    await gate.post({"model": "sql-lora"}, headers={"routing-strategy": "random"})

    (received,) = gate.received
    pod = next(pod for pod in gate.pods if pod.name == received.pod)
    assert received.header("target-pod") == [pod.address]
    (destination,) = received.header("x-gateway-destination-endpoint")
    picked, *fallbacks = destination.split(",")
    assert picked == pod.address
    serving = {each.address for each in gate.pods if "sql-lora" in each.adapters}
    assert set(fallbacks) <= serving - {picked}
    assert received.header("routing-strategy") == ["random"]
    assert received.header("model") == ["sql-lora"]
    assert len(received.header("x-request-id")) == 1
    assert json.loads(received.body) == {"model": "sql-lora"}


async def test_a_request_id_of_the_client_is_kept(gate: Gateway) -> None:
    await gate.post({"model": "base"}, headers={"x-request-id": "mine-1"})

    assert gate.received[0].header("x-request-id") == ["mine-1"]


async def test_a_transcription_is_routed_by_the_field_of_its_form(gate: Gateway) -> None:
    form = aiohttp.FormData()
    form.add_field("file", bytes(range(256)) * 4000, filename="a.wav", content_type="audio/wav")
    form.add_field("model", "only-here")

    async with gate.client.post(gate.url + "/v1/audio/transcriptions", data=form) as response:
        assert response.headers["x-pod"] == "vllm-2"
    assert len(gate.received[0].body) > 1_000_000


async def test_other_paths_and_requests_without_a_body_pass_through(gate: Gateway) -> None:
    async with gate.client.get(gate.url + "/version") as response:
        assert response.status == 200
    async with gate.client.post(gate.url + "/anything", data=b"\x00" * 100_000) as response:
        assert response.status == 200
    async with gate.client.post(gate.url + "/v1/chat/completions") as response:
        assert response.status == 200

    assert [len(request.body) for request in gate.received] == [0, 100_000, 0]
    for request in gate.received:
        assert request.header("target-pod")[0] in {pod.address for pod in gate.pods}
    await nothing_in_flight(gate)


async def test_the_label_selector_and_the_strategy_are_headers(gate: Gateway) -> None:
    response, _ = await gate.post({"model": "base"}, headers={"external-filter": "gpu=h100"})
    assert response.status == 503

    response, _ = await gate.post({"model": "base"}, headers={"external-filter": "!gpu"})
    assert response.status == 200


async def test_a_request_counts_until_its_last_token(gate: Gateway) -> None:
    document = {"model": "only-here", "tokens": 50, "pause": 0.02}
    async with gate.client.post(gate.url + "/v1/completions", json=document) as response:
        await response.content.readline()
        assert gate.in_flight == 1
        assert gate.app.transport.open_streams == 1
        assert (await response.content.read()).endswith(b"[DONE]\n\n")
    await nothing_in_flight(gate)


async def test_a_burst_for_a_cold_adapter_stays_together(gate: Gateway) -> None:
    """Requests in flight are affinity before any scrape shows them."""
    document = {"model": "sql-lora", "tokens": 5, "pause": 0.02}

    affinity = {"routing-strategy": "lora-affinity"}
    answers = await asyncio.gather(*(gate.post(document, headers=affinity) for _ in range(20)))

    assert {response.headers["x-pod"] for response, _ in answers} == {"vllm-1"}
    await nothing_in_flight(gate)


async def test_500_streams_through_one_envoy_worker_all_complete(gate: Gateway) -> None:
    started = asyncio.Event()
    first_tokens = 0

    async def one() -> bool:
        nonlocal first_tokens
        document = {"model": "base", "tokens": 3, "pause": 1.0}
        async with gate.client.post(gate.url + "/v1/completions", json=document) as response:
            await response.content.readline()
            first_tokens += 1
            if first_tokens == 500:
                started.set()
            # None ends before all have begun: none was queued behind another.
            async with asyncio.timeout(60):
                await started.wait()
            return (await response.content.read()).endswith(b"[DONE]\n\n")

    assert all(await asyncio.gather(*(one() for _ in range(500))))
    assert first_tokens == 500
    await nothing_in_flight(gate)


async def test_pods_that_join_and_leave_the_file_join_and_leave_the_fleet(gate: Gateway) -> None:
    async with EchoPod("vllm-9", adapters=("brand-new",)) as newcomer:
        response, _ = await gate.post({"model": "brand-new"})
        assert response.status == 404

        write_pods(gate.pods_file, [*gate.pods, newcomer])
        await until(lambda: bool(gate.app.fleet.serving("brand-new").pods))
        response, _ = await gate.post({"model": "brand-new"})
        assert response.headers["x-pod"] == "vllm-9"

        write_pods(gate.pods_file, gate.pods)
        await until(lambda: not gate.app.fleet.serving("brand-new").pods)
        response, _ = await gate.post({"model": "brand-new"})
        assert response.status == 404


async def test_the_admin_pages_say_what_happened(gate: Gateway) -> None:
    await gate.post({"model": "only-here"})
    await gate.post({"model": "nope"})
    admin = f"http://127.0.0.1:{gate.app.admin.port}"

    async with gate.client.get(admin + "/healthz") as response:
        assert response.status == 200
    async with gate.client.get(admin + "/readyz") as response:
        assert (response.status, (await response.json())["ready"]) == (200, True)
    async with gate.client.get(admin + "/metrics") as response:
        page = await response.text()

    routed = 'algorithm="lora-placement",outcome="routed",reason="placed"'
    assert f"lora_router_requests_total{{{routed}}}" in page
    assert 'outcome="refused",reason="unknown-model"' in page
    for pod in gate.pods:
        assert f'lora_router_in_flight_requests{{pod="{pod.name}"}} ' in page
        assert f'lora_router_snapshot_age_seconds{{pod="{pod.name}"}} ' in page
    assert "lora_router_decision_seconds_bucket" in page
    assert 'lora_router_pods{state="ready"} 3.0' in page
