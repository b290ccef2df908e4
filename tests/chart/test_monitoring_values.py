"""Alerts for the Prometheus operator, and dashboards for Grafana's sidecar."""

import json

import yaml

from tests.chart import CHART
from tests.chart.rendering import Document, one, render

GRAFANA = CHART.parents[1] / "grafana"
ALERTS = yaml.safe_load((GRAFANA / "alerts.yaml").read_text())["groups"]


def dashboards(documents: list[Document]) -> dict[str, Document]:
    """The documents in ConfigMaps that the sidecar finds, by file name."""
    return {
        name: json.loads(text)
        for each in documents
        if each["kind"] == "ConfigMap"
        and each["metadata"]["labels"].get("grafana_dashboard") == "1"
        for name, text in each["data"].items()
    }


def test_neither_is_there_by_default() -> None:
    documents = render()

    assert "PrometheusRule" not in {each["kind"] for each in documents}
    assert not dashboards(documents)


def test_the_rule_has_the_alerts_of_the_file() -> None:
    rule = one(render({"prometheusRule": {"enabled": True}}), "PrometheusRule")

    assert rule["spec"]["groups"] == ALERTS


def test_alerts_can_be_left_out_and_added_and_link_to_a_published_runbook() -> None:
    every = [each["alert"] for group in ALERTS for each in group["rules"]]
    own = {"alert": "Mine", "expr": "up == 0"}
    rule = one(
        render(
            {
                "prometheusRule": {
                    "enabled": True,
                    "labels": {"release": "prometheus"},
                    "disabled": ["LoraRouterDown", "LoraRouterNoLeader"],
                    "extraRules": [own],
                    "runbookUrl": "https://docs.test/runbook",
                }
            }
        ),
        "PrometheusRule",
    )

    rules = [each for group in rule["spec"]["groups"] for each in group["rules"]]
    left = [name for name in every if name not in {"LoraRouterDown", "LoraRouterNoLeader"}]
    assert [each["alert"] for each in rules] == [*left, "Mine"]
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    for each in rules[:-1]:
        url = f"https://docs.test/runbook#{each['alert'].lower()}"
        assert each["annotations"]["runbook_url"] == url


def test_a_group_without_alerts_is_left_out() -> None:
    first, *others = ALERTS
    disabled = [each["alert"] for each in first["rules"]]
    values = {"prometheusRule": {"enabled": True, "disabled": disabled}}

    assert one(render(values), "PrometheusRule")["spec"]["groups"] == others


def test_each_dashboard_is_a_config_map_with_the_file_of_that_name() -> None:
    documents = render({"dashboards": {"enabled": True}})

    files = {f"lora-router-{path.name}": path.read_text() for path in GRAFANA.glob("*.json")}
    assert len(files) == 4
    assert dashboards(documents) == {name: json.loads(text) for name, text in files.items()}


def test_the_links_of_dashboards_lead_to_the_given_addresses() -> None:
    values: dict[str, object] = {
        "fullnameOverride": "r" * 63,
        "dashboards": {
            "enabled": True,
            "annotations": {"grafana_folder": "Inference"},
            "runbookUrl": "https://docs.test/runbook",
            "pageUrl": "https://router.test/",
        },
    }
    documents = render(values)

    for document in dashboards(documents).values():
        variables = {each["name"]: each for each in document["templating"]["list"]}
        assert variables["runbook"]["query"] == "https://docs.test/runbook"
        assert variables["page"]["query"] == "https://router.test/"
    found = [each["metadata"] for each in documents if "dashboard" in each["metadata"]["name"]]
    assert len(found) == 4
    assert all(len(each["name"]) <= 63 for each in found)
    assert all(each["annotations"] == {"grafana_folder": "Inference"} for each in found)


def test_the_label_pod_of_a_metric_stays_the_model_server() -> None:
    monitor = one(render({"serviceMonitor": {"enabled": True}}), "ServiceMonitor")

    assert monitor["spec"]["endpoints"][0]["honorLabels"] is True
