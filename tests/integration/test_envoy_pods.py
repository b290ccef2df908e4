"""How Envoy finds the pods that the router picks, with both values of ``envoy_pods``."""

import asyncio
import copy
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
import yaml

from lora_router.envoy.bootstrap import bootstrap_yaml
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from lora_router.extproc.transport import SERVICE
from tests.envoy import Envoy, free_port
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import Gateway, gateway, write_pods
from tests.integration.hasty_pod import HastyPod

KINDS = ("override-host", "original-dst")
MEMBERSHIP = "cluster.pods.membership_total"


async def until_envoy_knows(gate: Gateway, pods: int) -> None:
    """Wait until Envoy has this many pods."""
    async with asyncio.timeout(60):
        while await gate.envoy.stat(MEMBERSHIP) != pods:
            await asyncio.sleep(0.02)


async def served_by(gate: Gateway, count: int, model: str = "base") -> Counter[str]:
    """Send requests; return how many each pod served. Other statuses count by their number."""
    served: Counter[str] = Counter()
    for _ in range(count):
        response, _ = await gate.post({"model": model})
        served[response.headers.get("x-pod", str(response.status))] += 1
    return served


async def test_envoy_sends_each_request_to_the_pod_that_the_router_picked(
    tmp_path: Path, transport: str
) -> None:
    pods = [EchoPod(f"vllm-{number}", adapters=(f"only-{number}",)) for number in range(4)]
    async with gateway(tmp_path, pods, transport=transport) as gate:
        await until_envoy_knows(gate, 4)
        assert gate.app.endpoint_discovery.open_streams == 1
        for number in range(4):
            served = await served_by(gate, 5, f"only-{number}")
            assert served == {f"vllm-{number}": 5}


async def test_envoy_follows_the_pods_that_join_and_leave(tmp_path: Path, transport: str) -> None:
    pods = [EchoPod("vllm-0"), EchoPod("vllm-1", adapters=("late",))]
    async with gateway(tmp_path, pods, transport=transport) as gate:
        write_pods(gate.pods_file, pods[:1])
        await until_envoy_knows(gate, 1)
        write_pods(gate.pods_file, pods)
        await until_envoy_knows(gate, 2)
        assert gate.app.endpoint_discovery.rejected == 0
        async with asyncio.timeout(60):
            while await served_by(gate, 1, "late") != {"vllm-1": 1}:
                await asyncio.sleep(0.05)


async def test_the_answers_of_a_pod_that_leaves_are_not_cut(tmp_path: Path) -> None:
    pods = [EchoPod("vllm-0", adapters=("mine",)), EchoPod("vllm-1")]
    async with gateway(tmp_path, pods) as gate:
        answer = asyncio.create_task(gate.post({"model": "mine", "tokens": 15, "pause": 0.1}))
        async with asyncio.timeout(60):
            while not pods[0].received:
                await asyncio.sleep(0.01)
        write_pods(gate.pods_file, pods[1:])
        await until_envoy_knows(gate, 1)

        response, body = await answer

        assert (response.status, response.headers["x-pod"]) == (200, "vllm-0")
        assert body.endswith(b"[DONE]\n\n")


async def test_without_a_router_envoy_balances_over_the_last_pods_that_it_knew(
    tmp_path: Path, transport: str
) -> None:
    pods = [EchoPod(f"vllm-{number}") for number in range(3)]
    async with gateway(tmp_path, pods, transport=transport) as gate:
        await served_by(gate, 3)
        await gate.app.stop()

        served = await served_by(gate, 60)

        assert served.keys() == {"vllm-0", "vllm-1", "vllm-2"}
        assert served.total() == 60
    assert all(request.body == b'{"model": "base"}' for request in gate.received)


@pytest.mark.parametrize("mode", ["streamed", "full-duplex"])
async def test_envoy_sends_no_body_by_itself_that_it_has_not_buffered(
    tmp_path: Path, mode: str
) -> None:
    async with gateway(tmp_path, [EchoPod("vllm-0")], envoy_body_mode=mode) as gate:
        await gate.app.stop()
        response, answer = await gate.post({"model": "base"})
        assert response.status == 503
        assert json.loads(answer)["error"]["code"] == "router_unavailable"
        assert gate.received == []


@pytest.mark.parametrize("asked_for", ["request_headers", "request_body", "response_headers"])
async def test_a_body_that_envoy_sends_by_itself_is_whole(tmp_path: Path, asked_for: str) -> None:
    """A router fails at one of its answers, and the body arrives in pieces."""
    sent = [b"A" * 100, b"B" * 70_000, b"C" * 100]

    async def pieces() -> AsyncIterator[bytes]:
        for piece in sent:
            yield piece
            await asyncio.sleep(0.1)

    async with (
        failing_router(asked_for) as port,
        gateway(tmp_path, [EchoPod("vllm-0")], envoy_message_timeout_seconds=0.5) as gate,
    ):
        document = yaml.safe_load(bootstrap_yaml(gate.settings))
        asked = document["static_resources"]["clusters"][0]
        del asked["health_checks"]
        # Another cluster asks for the pods: the failing router knows none.
        pods = copy.deepcopy(asked) | {"name": "lists"}
        pods["load_assignment"]["cluster_name"] = "lists"
        document["static_resources"]["clusters"].append(pods)
        eds = document["static_resources"]["clusters"][1]["eds_cluster_config"]["eds_config"]
        (service,) = eds["api_config_source"]["grpc_services"]
        service["envoy_grpc"]["cluster_name"] = "lists"
        (locality,) = asked["load_assignment"]["endpoints"]
        locality["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] = port
        listener = document["static_resources"]["listeners"][0]["address"]["socket_address"]
        listener["port_value"] = free_port()
        document["admin"]["address"]["socket_address"]["port_value"] = free_port()
        async with Envoy(yaml.safe_dump(document), tmp_path, patient=True) as envoy:
            url = f"http://127.0.0.1:{envoy.port}/v1/files"
            async with gate.client.post(url, data=pieces()) as response:
                assert response.status == 200
        (received,) = gate.received
        assert received.body == b"".join(sent)


@asynccontextmanager
async def failing_router(asked_for: str) -> AsyncIterator[int]:
    """Run a router that changes nothing, and fails when it is asked for one answer."""

    async def process(_requests: object, context: grpc.aio.ServicerContext) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:
            kind = ProcessingRequest.FromString(data).WhichOneof("request")
            if kind == asked_for:
                await context.abort(grpc.StatusCode.INTERNAL, "failed")
            answer = ProcessingResponse()
            getattr(answer, kind).SetInParent()
            await context.write(answer.SerializeToString())

    server = grpc.aio.server()
    method = grpc.stream_stream_rpc_method_handler(process)
    handler = grpc.method_handlers_generic_handler(SERVICE, {"Process": method})
    server.add_generic_rpc_handlers((handler,))
    port: int = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fail_open", [True, False], ids=["open", "closed"])
async def test_no_client_can_choose_an_address_while_no_router_lives(
    tmp_path: Path, kind: str, fail_open: bool
) -> None:
    secret, pod = EchoPod("secret"), EchoPod("vllm-0")
    async with secret, gateway(tmp_path, [pod], envoy_pods=kind, envoy_fail_open=fail_open) as gate:
        await gate.post({"model": "base"})
        await gate.app.stop()
        for name in (
            gate.settings.target_pod_header,
            gate.settings.destination_header,
            "Target-Pod",
            "x-envoy-original-dst-host",
        ):
            response, _ = await gate.post({"model": "base"}, headers={name: secret.address})
            served = fail_open and kind == "override-host"
            assert response.status == (200 if served else 503)
            assert response.headers.get("x-pod", "none") in {"vllm-0", "none"}
    assert secret.received == []


async def test_envoy_does_not_contradict_the_router(tmp_path: Path) -> None:
    """Envoy ejects a pod after connections failed. What the router picks is sent there still."""
    # Its port stays its own while it is away.
    address = f"127.0.0.1:{free_port()}"
    pods = [EchoPod("vllm-0", adapters=("mine",), address=address), EchoPod("vllm-1")]
    async with gateway(tmp_path, pods, outlier_ejection=False) as gate:
        await pods[0].__aexit__(None, None, None)
        for _ in range(4):
            response, _ = await gate.post({"model": "mine"})
            assert response.status == 503
        async with asyncio.timeout(60):
            # Envoy counts after its answer.
            while await gate.envoy.stat("cluster.pods.outlier_detection.ejections_active") != 1:
                await asyncio.sleep(0.01)
        await pods[0].__aenter__()

        assert await served_by(gate, 3, "mine") == {"vllm-0": 3}


@pytest.mark.parametrize("fallbacks", [1, 3])
async def test_a_request_that_cannot_reach_its_pod_is_served_by_the_next(
    tmp_path: Path, transport: str, fallbacks: int
) -> None:
    pods = [EchoPod(f"vllm-{number}") for number in range(4)]
    changes = {"fallbacks": fallbacks, "outlier_ejection": False, "transport": transport}
    async with gateway(tmp_path, pods, **changes) as gate:
        await pods[2].__aexit__(None, None, None)

        served = await served_by(gate, 60)

        assert served.keys() == {"vllm-0", "vllm-1", "vllm-3"}
        assert await gate.envoy.stat("cluster.pods.upstream_rq_retry") > 5


@pytest.mark.parametrize("fallbacks", [0, 3])
async def test_a_request_is_never_sent_to_a_pod_that_does_not_serve_its_model(
    tmp_path: Path, fallbacks: int
) -> None:
    pods = [EchoPod("vllm-0", adapters=("mine",)), EchoPod("vllm-1"), EchoPod("vllm-2")]
    changes = {"fallbacks": fallbacks, "outlier_ejection": False}
    async with gateway(tmp_path, pods, **changes) as gate:
        await pods[0].__aexit__(None, None, None)
        for _ in range(5):
            response, answer = await gate.post({"model": "mine"})
            assert response.status == 503
            assert json.loads(answer)["error"]["code"] == "pod_unreachable"
        assert gate.received == []


@pytest.mark.parametrize(("idle", "lost"), [(0.5, 0), (600.0, 10)])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_pod_that_closes_idle_connections_costs_no_request(
    tmp_path: Path, kind: str, idle: float, lost: int
) -> None:
    pod = HastyPod("vllm-0")
    changes = {"envoy_pod_idle_seconds": idle, "envoy_pods": kind, "outlier_ejection": False}
    async with gateway(tmp_path, [pod], **changes) as gate:
        statuses: Counter[int] = Counter()
        for _ in range(2):
            answers = await asyncio.gather(*(gate.post({"model": "base"}) for _ in range(10)))
            statuses.update(response.status for response, _ in answers)
            if not lost:
                async with asyncio.timeout(60):
                    while await gate.envoy.stat("cluster.pods.upstream_cx_active"):
                        await asyncio.sleep(0.02)
            pod.lose_patience()
    assert statuses[503] <= lost
    assert bool(statuses[503]) == bool(lost), "the pod closed no connection"
    # A pod that has seen a request may be generating. So none of them was sent again.
    assert pod.closed == statuses[503]


@pytest.mark.parametrize("kind", KINDS)
async def test_errors_of_envoy_say_what_is_missing(tmp_path: Path, kind: str) -> None:
    pods = [EchoPod("vllm-0")]
    async with gateway(tmp_path, pods, envoy_pods=kind) as gate:
        await pods[0].__aexit__(None, None, None)
        response, answer = await gate.post({"model": "base"})
        assert response.status == 503
        assert json.loads(answer)["error"]["code"] == "pod_unreachable"

        write_pods(gate.pods_file, [])
        if kind == "override-host":
            await until_envoy_knows(gate, 0)
        await gate.app.stop()

        response, answer = await gate.post({"model": "base"})
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert json.loads(answer)["error"]["code"] == "no_pod_available"
        assert response.headers["content-type"] == "application/json"
