"""What the chart scales by, rendered with the real Helm engine."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart import CHART
from tests.chart.rendering import Document, kinds, one, render
from tests.chart.test_values import router

DOCS = Path(__file__).parents[2] / "docs" / "kubernetes.md"
README = Path(__file__).parents[2] / "README.md"
PROMETHEUS = {"serverAddress": "http://prometheus.monitoring:9090"}


def scaled(**changes: object) -> list[Document]:
    return render({"autoscaling": {"enabled": True, **changes}})


def metrics(documents: list[Document]) -> dict[str, Any]:
    """Return what the HorizontalPodAutoscaler aims at, by the name of the metric."""
    found = {}
    for each in one(documents, "HorizontalPodAutoscaler")["spec"]["metrics"]:
        if each["type"] == "Pods":
            found[each["pods"]["metric"]["name"]] = each["pods"]["target"]
        else:
            found[each["containerResource"]["name"]] = each["containerResource"]["target"]
    return found


def triggers(documents: list[Document]) -> dict[str, Any]:
    found = one(documents, "ScaledObject")["spec"]["triggers"]
    return {each["name"]: each for each in found}


@pytest.mark.parametrize("source", ["custom-metrics", "keda", "cpu"])
def test_a_scaled_deployment_does_not_say_how_many(source: str) -> None:
    assert one(render(), "Deployment")["spec"]["replicas"] == 2
    documents = scaled(source=source, keda=PROMETHEUS)
    deployment = one(documents, "Deployment")
    assert "replicas" not in deployment["spec"]
    kind = "ScaledObject" if source == "keda" else "HorizontalPodAutoscaler"
    target = one(documents, kind)["spec"]["scaleTargetRef"]
    assert target["name"] == deployment["metadata"]["name"]


def test_requests_and_lag_decide_and_cpu_where_they_are_missing() -> None:
    documents = scaled()

    assert metrics(documents) == {
        "lora_router_requests_per_second": {"type": "AverageValue", "averageValue": "1000"},
        "lora_router_loop_lag_seconds": {"type": "AverageValue", "averageValue": "100m"},
        "cpu": {"type": "AverageValue", "averageValue": "700m"},
    }
    [cpu] = [
        each["containerResource"]
        for each in one(documents, "HorizontalPodAutoscaler")["spec"]["metrics"]
        if each["type"] == "ContainerResource"
    ]
    assert cpu["container"] == router(documents)["name"]


def test_each_target_can_be_changed_or_left_out() -> None:
    documents = scaled(
        targets={"requestsPerSecond": None, "loopLagSeconds": 0.0505, "cpu": None},
        customMetrics={"loopLagSeconds": "router_lag"},
    )

    assert metrics(documents) == {"router_lag": {"type": "AverageValue", "averageValue": "51m"}}


def test_by_cpu_alone() -> None:
    assert metrics(scaled(source="cpu", targets={"cpu": 1.5})) == {
        "cpu": {"type": "AverageValue", "averageValue": "1.5"}
    }


def test_keda_asks_prometheus_for_the_routers_of_this_release() -> None:
    documents = scaled(source="keda", keda=PROMETHEUS)

    assert "HorizontalPodAutoscaler" not in kinds(documents)
    found = triggers(documents)
    assert set(found) == {"requests", "loop-lag", "cpu"}
    series = 'namespace="models",pod=~"test-lora-router-[a-z0-9]+-[a-z0-9]+"'
    requests, lag = found["requests"]["metadata"], found["loop-lag"]["metadata"]
    # A held request counts twice: when it begins to wait, and with its outcome.
    routed = f'{series},outcome!="held"'
    assert requests["query"] == f"sum(rate(lora_router_requests_total{{{routed}}}[2m]))"
    assert lag["query"] == f"avg(lora_router_loop_lag_seconds{{{series}}})"
    assert (requests["threshold"], lag["threshold"]) == ("1000", "0.1")
    # A sum is divided by the number of routers, an average is not.
    assert found["requests"]["metricType"] == "AverageValue"
    assert found["loop-lag"]["metricType"] == "Value"
    assert found["cpu"]["metadata"]["containerName"] == router(documents)["name"]


@pytest.mark.parametrize("length", [*range(40, 64)])
def test_keda_finds_the_routers_of_a_release_with_a_long_name(length: int) -> None:
    """Kubernetes cuts the name of a pod, but for a suffix of five characters, after 58."""
    name = "llama-3-8b-production-eu-west-1-team-of-many-people-and-machines"[:length].strip("-")
    scaling = {"enabled": True, "source": "keda", "keda": PROMETHEUS}
    documents = render({"autoscaling": scaling, "fullnameOverride": name})

    queries = str(triggers(documents)["requests"]["metadata"]["query"])
    [pattern] = re.findall(r'pod=~"([^"]+)"', queries)

    pod = f"{name}-7d9f8c6b5x-"[:58] + "2k9qz"
    assert re.fullmatch(pattern, pod)
    assert not re.fullmatch(pattern, f"other-{pod}")


def test_without_data_keda_does_not_remove_routers() -> None:
    for name, trigger in triggers(scaled(source="keda", keda=PROMETHEUS)).items():
        if name != "cpu":
            assert trigger["metadata"]["ignoreNullValues"] == "false"


def test_keda_can_prove_to_prometheus_who_it_is() -> None:
    keda = {**PROMETHEUS, "authenticationName": "prometheus"}
    found = triggers(scaled(source="keda", keda=keda))
    assert found["requests"]["authenticationRef"] == {"name": "prometheus"}
    assert found["loop-lag"]["authenticationRef"] == {"name": "prometheus"}


@pytest.mark.parametrize("source", ["custom-metrics", "keda"])
def test_one_stall_starts_no_router(source: str) -> None:
    spec = one(
        scaled(source=source, keda=PROMETHEUS),
        "ScaledObject" if source == "keda" else "HorizontalPodAutoscaler",
    )["spec"]
    behavior = (
        spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        if source == "keda"
        else spec["behavior"]
    )
    # The lag of a stall is reported for up to 70 s, and scraped every 15 s.
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] > 85


def test_the_page_names_the_rules_that_the_metrics_need() -> None:
    [text] = re.findall(r"```yaml\n(rules:\n.*?)```", DOCS.read_text(), re.DOTALL)
    rules = yaml.safe_load(text)["rules"]

    values = yaml.safe_load((CHART / "values.yaml").read_text())["autoscaling"]["customMetrics"]
    assert {rule["name"]["as"] for rule in rules} == set(values.values())
    series = {rule["seriesQuery"].partition("{")[0] for rule in rules}
    queries = str(triggers(scaled(source="keda", keda=PROMETHEUS)))
    for name in series:
        assert name in queries
        assert name in README.read_text()
