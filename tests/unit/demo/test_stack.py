"""The processes of a live fleet, before they run."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lora_router.config.sources import load_settings
from lora_router.demo.plan import PODS, SLOTS, demo_plan
from lora_router.demo.router_process import RouterProcess, sums
from lora_router.demo.stack import free_ports, pod_command
from lora_router.simulator.__main__ import parse_arguments
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.simulated_pod import PodOptions

PAGE = """\
# TYPE lora_router_decision_seconds histogram
lora_router_decision_seconds_bucket{algorithm="random",le="+Inf"} 3.0
lora_router_decision_seconds_count{algorithm="random"} 3.0
lora_router_decision_seconds_count{algorithm="least-request"} 4.0
# TYPE lora_router_peers gauge
lora_router_peers 1.0
"""


@pytest.mark.parametrize(
    "options",
    [
        demo_plan().pods[0],
        PodOptions("pod-7", base="llama", preload=True),
        PodOptions(
            "pod-9",
            prompt_tokens_details=True,
            engine=EngineOptions(
                kv_cache_tokens=9000,
                block_tokens=32,
                prefix_caching=True,
                chunk_tokens=512,
                preemption=True,
            ),
        ),
        PodOptions("pod-8", adapters=("a", "b"), engine=EngineOptions(loads_block=False)),
    ],
)
def test_the_command_of_a_pod_says_all_of_its_options(options: PodOptions) -> None:
    _python, _m, _module, *arguments = pod_command(options)

    assert parse_arguments(arguments).pods == (options,)


def test_the_demo_has_the_same_pods_whatever_the_number_of_routers() -> None:
    one, four = demo_plan(), demo_plan(4)

    assert four == replace(one, routers=4)
    assert len(one.pods) == PODS
    assert {pod.engine.max_loras for pod in one.pods} == {SLOTS}


def test_the_demo_has_as_many_slots_as_it_is_told() -> None:
    assert {pod.engine.max_loras for pod in demo_plan(slots=2).pods} == {2}
    assert demo_plan(slots=2).slots == 2


def test_a_router_has_its_own_ports_and_the_settings_of_all(tmp_path: Path) -> None:
    router = RouterProcess("router-2", 50052, 8081, tmp_path / "router-2.yaml")
    router.configure({"endpoints": "pods.yaml", "peers": "127.0.0.1:50051,127.0.0.1:50052"})
    (tmp_path / "pods.yaml").write_text(yaml.safe_dump({"pods": []}))

    settings = load_settings(file=router.config, environ={}, flags={}).settings

    assert (settings.grpc_host, settings.grpc_port, settings.admin_port) == (
        "127.0.0.1",
        50052,
        8081,
    )
    assert router.address in str(settings.peers)


def test_metrics_are_summed_over_their_labels() -> None:
    found = sums(PAGE)

    assert found["lora_router_decision_seconds_count"] == 7.0
    assert found["lora_router_peers"] == 1.0


def test_free_ports_are_all_different() -> None:
    assert len(set(free_ports(30))) == 30
