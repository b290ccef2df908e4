"""docs/autoscaling.md and its examples agree with the router and with the simulated autoscaler."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lora_router.simulator.fleet_table import ROWS
from lora_router.simulator.scenario import shipped_scenario
from lora_router.telemetry.catalog import METRICS
from tests.pages import DOCS

PAGE = (DOCS / "autoscaling.md").read_text()
EXAMPLES = DOCS.parent / "deploy/examples"
FILES = ("vllm-keda.yaml", "vllm-hpa.yaml", "prometheus-adapter.yaml")


def example(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((EXAMPLES / name).read_text())
    return document


@pytest.mark.parametrize("name", FILES)
def test_every_metric_of_an_example_is_one_of_the_router(name: str) -> None:
    # The one that prometheus-adapter makes.
    made = {"lora_router_requests"}
    named = set(re.findall(r"\blora_router_\w+", (EXAMPLES / name).read_text())) - made
    assert named
    assert named <= METRICS.keys()


def test_the_page_names_every_example() -> None:
    for name in FILES:
        assert f"(../deploy/examples/{name})" in PAGE


def test_both_autoscalers_have_the_targets_and_windows_that_were_simulated() -> None:
    keda, hpa = example("vllm-keda.yaml")["spec"], example("vllm-hpa.yaml")["spec"]
    simulated = shipped_scenario("rise-and-fall").fleet(1.0).autoscaler
    assert simulated is not None

    targets = [trigger["metadata"]["threshold"] for trigger in keda["triggers"]]
    assert targets == [metric["external"]["target"]["averageValue"] for metric in hpa["metrics"]]
    assert float(targets[0]) == simulated.slots_per_pod
    behavior = keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior == hpa["behavior"]
    windows = [behavior[way]["stabilizationWindowSeconds"] for way in ("scaleUp", "scaleDown")]
    assert windows == [simulated.up_window_seconds, simulated.down_window_seconds]
    limits = (keda["minReplicaCount"], keda["maxReplicaCount"])
    assert limits == (hpa["minReplicas"], hpa["maxReplicas"])
    assert limits == (simulated.min_pods, simulated.max_pods)
    assert "averageValue" not in str(keda), "KEDA calls it threshold"


def test_the_adapter_serves_what_the_autoscaler_asks_for() -> None:
    rules = example("prometheus-adapter.yaml")["rules"]["external"]
    asked = [
        each["external"]["metric"]["name"] for each in example("vllm-hpa.yaml")["spec"]["metrics"]
    ]
    assert [rule["name"]["as"] for rule in rules] == asked
    slots, requests = (rule["metricsQuery"] for rule in rules)
    assert slots.startswith("max("), "each router reports the whole fleet"
    assert requests.count("sum(") == 2, "each router reports its own requests"


def test_without_data_no_pod_is_removed() -> None:
    for trigger in example("vllm-keda.yaml")["spec"]["triggers"]:
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        assert trigger["metricType"] == "AverageValue", "fallback works with no other"


def test_the_table_is_that_of_the_scenario() -> None:
    table = PAGE.partition("<!-- table: begin")[2].partition("<!-- table: end")[0]
    starts = re.findall(r"^\| (\d+) \|", table, re.MULTILINE)
    seconds = shipped_scenario("rise-and-fall").seconds
    assert starts == [f"{number * seconds / ROWS:.0f}" for number in range(ROWS)]
    assert "`make autoscaling-table`" in PAGE


def test_every_link_leads_to_a_file() -> None:
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (DOCS / Path(target)).exists(), target
