"""Labels: those of the chart, those of values, and who selects by them."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart import CHART
from tests.chart.combinations import COMBINATIONS
from tests.chart.rendering import Document, helm, one, render
from tests.chart.test_values import behind_envoy_gateway, pod_template

OURS = {
    "app.kubernetes.io/name": "theirs",
    "app.kubernetes.io/component": "theirs",
    "app.kubernetes.io/managed-by": "theirs",
}


class EachKeyOnce(yaml.CSafeLoader):
    """Refuses a mapping with the same key twice, as Flux does."""


def _mapping(loader: EachKeyOnce, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    doubled = {key for key in keys if keys.count(key) > 1}
    assert not doubled, doubled
    return loader.construct_mapping(node, deep=True)


EachKeyOnce.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def files(values: dict[str, object]) -> Iterator[str]:
    """Return the text of each rendered file."""
    with helm.Chart.load(CHART) as chart:
        rendered = chart.render(values, name="test", namespace="models")
    return (text for name, text in rendered.items() if not name.endswith("NOTES.txt"))


@pytest.mark.parametrize(
    "values",
    [
        *COMBINATIONS.values(),
        {
            "commonLabels": {**OURS, "team": "a", "release": "b"},
            "podLabels": {**OURS, "team": "pods"},
            "podAnnotations": {"checksum/config": "theirs"},
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus", **OURS}},
        },
        {**behind_envoy_gateway(), "commonLabels": OURS},
    ],
)
def test_no_key_is_there_twice(values: dict[str, object]) -> None:
    for text in files(values):
        for _ in yaml.load_all(text, Loader=EachKeyOnce):
            pass


def test_the_more_specific_label_counts_and_the_charts_own_always() -> None:
    documents = render(
        {
            "commonLabels": {**OURS, "team": "all", "cost": "1"},
            "podLabels": {"team": "pods", **OURS},
            "serviceMonitor": {"enabled": True, "labels": {"team": "monitoring"}},
        }
    )

    pods = pod_template(documents)["metadata"]["labels"]
    assert (pods["team"], pods["cost"]) == ("pods", "1")
    assert pods["app.kubernetes.io/name"] == "lora-router"
    assert pods["app.kubernetes.io/component"] == "router"
    assert one(documents, "ServiceMonitor")["metadata"]["labels"]["team"] == "monitoring"
    assert one(documents, "ConfigMap")["metadata"]["labels"]["team"] == "all"
    for document in documents:
        labels = document["metadata"]["labels"]
        assert labels["app.kubernetes.io/managed-by"] == "Helm", document["kind"]


@pytest.mark.parametrize("common", [{}, OURS], ids=["as it comes", "labels that collide"])
def test_the_service_monitor_selects_the_service_of_the_routers_alone(
    common: dict[str, object],
) -> None:
    discovery = {"selector": "model.aibrix.ai/name=llama"}
    documents = render(
        {
            **behind_envoy_gateway(backends=[], createService=True),
            "discovery": discovery,
            "serviceMonitor": {"enabled": True},
            "commonLabels": common,
        }
    )

    monitor = one(documents, "ServiceMonitor")
    [service] = selected(documents, monitor["spec"]["selector"]["matchLabels"])
    assert service["metadata"]["name"] == "test-lora-router"
    assert service["metadata"]["namespace"] == monitor["metadata"]["namespace"]
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


def selected(documents: list[Document], labels: dict[str, str]) -> list[Document]:
    """Return the Services with these labels."""
    services = [each for each in documents if each["kind"] == "Service"]
    assert len(services) == 3
    return [each for each in services if labels.items() <= each["metadata"]["labels"].items()]
