"""A fleet of several model servers behind the real Envoy."""

from collections import Counter
from pathlib import Path

import yaml

from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import Gateway, gateway
from tests.waiting import until

TGI = "tgi_batch_current_size 64\ntgi_queue_size 40\n"
TRITON = (
    'nv_trt_llm_request_metrics{model="m",request_type="scheduled"} 0\n'
    'nv_trt_llm_request_metrics{model="m",request_type="waiting"} 0\n'
)
TRTLLM = "trtllm_num_requests_running 0\ntrtllm_num_requests_waiting 0\n"


def write(gate: Gateway, **more: dict[str, object]) -> None:
    """Write the pods file, with further keys for some pods."""
    listed = [
        {"name": pod.name, "address": pod.address} | more.get(pod.name, {}) for pod in gate.pods
    ]
    gate.pods_file.write_text(yaml.safe_dump({"pods": listed}))


async def test_each_engine_is_read_and_used(tmp_path: Path) -> None:
    pods = [
        EchoPod("vllm", adapters=("sql-lora",)),
        EchoPod("tgi", page=TGI),
        EchoPod("triton", page=TRITON, lists_models=False),
        EchoPod("trtllm", page=TRTLLM),
        EchoPod("unknown", page=""),
    ]
    async with gateway(tmp_path, pods) as gate:
        label = {"model.aibrix.ai/name": "base"}
        write(gate, triton={"labels": label}, trtllm={"engine": "trtllm"})
        await until(lambda: "/prometheus/metrics" in pods[3].keys, 60)
        await until(lambda: len(gate.app.fleet.serving("base").pods) == len(pods), 60)
        details = gate.app.readiness().details

        for number in range(40):
            response, _ = await gate.post({"model": "base", "user": f"{number}"})
            assert response.status == 200
        assert (await gate.post({"model": "sql-lora"}))[0].headers["x-pod"] == "vllm"

    assert details["without_load"] == {"unknown": "unknown"}
    reached = Counter(request.pod for request in gate.received)
    # The one server that is busy gets nothing. The one that cannot be read counts as idle.
    assert set(reached) == {"vllm", "triton", "trtllm", "unknown"}
