"""A value that is null has its default: ``settings:`` with nothing after it, for example."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from tests.chart import CHART
from tests.chart.rendering import Document, helm, one, render, router_settings
from tests.chart.test_values import behind_envoy_gateway, router, with_mode

WITH_A_MEANING = {
    "autoscaling.behavior",
    "autoscaling.targets.requestsPerSecond",
    "autoscaling.targets.loopLagSeconds",
    "autoscaling.targets.cpu",
}
"""Values whose null is not their default. values.yaml says what it means."""
EVERYTHING: dict[str, object] = {
    "autoscaling": {"enabled": True},
    "networkPolicy": {"enabled": True},
    "serviceMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboards": {"enabled": True},
}
MODES: dict[str, dict[str, object]] = {
    "no gateway": EVERYTHING,
    "Envoy Gateway": behind_envoy_gateway(),
    "sidecar": {**with_mode("sidecar"), "peering": {"redis": {"secretName": "redis"}}},
}


def paths(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Return the path of every value and every group of values."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    for name in above:
        schema = schema["properties"][name]
    for name, value in values.items():
        path = (*above, name)
        yield path
        if isinstance(value, dict) and value and "properties" in schema["properties"][name]:
            yield from paths(value, path)


def with_null(values: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return values with a null at a path."""
    first, *rest = path
    if not rest:
        return {**values, first: None}
    return {**values, first: with_null(values.get(first) or {}, tuple(rest))}


def without(values: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return values without what is at a path."""
    first, *rest = path
    if not rest:
        return {name: value for name, value in values.items() if name != first}
    return {**values, first: without(values.get(first) or {}, tuple(rest))}


def has(values: dict[str, Any], path: tuple[str, ...]) -> bool:
    """Return whether there is a value at a path."""
    first, *rest = path
    return first in values and (not rest or has(values[first], tuple(rest)))


def rendered(values: dict[str, Any]) -> list[Document] | str:
    """Return the objects without random keys, or what Helm says."""
    try:
        return [each for each in render(values) if each["kind"] != "Secret"]
    except helm.HelmError as refused:
        return str(refused)


@pytest.mark.parametrize("mode", MODES)
def test_values_that_are_null_are_as_good_as_absent(mode: str) -> None:
    """Each group alone, and then all single values at once."""
    given = MODES[mode]
    every = list(paths(yaml.safe_load((CHART / "values.yaml").read_text())))
    groups = {path[:length] for path in every for length in range(1, len(path))}
    single = [path for path in every if path not in groups]
    as_given = rendered(given)
    for path in sorted(groups):
        absent = rendered(without(given, path)) if has(given, path) else as_given
        assert rendered(with_null(given, path)) == absent, path

    emptied = given
    for path in single:
        if ".".join(path) not in WITH_A_MEANING and not has(given, path):
            emptied = with_null(emptied, path)
    assert rendered(emptied) == as_given


def test_a_null_setting_is_not_set() -> None:
    settings = router_settings(render({"settings": {"log_level": None, "admin_host": None}}))
    assert "log_level" not in settings
    assert settings["admin_host"] == "::"


SETTINGS = yaml.safe_load((CHART / "values.schema.json").read_text())["properties"]["settings"]


@pytest.mark.parametrize(
    "mode", [*MODES, "Envoy Gateway, original-dst", "Envoy Gateway with adapters"]
)
def test_null_settings_are_as_good_as_absent(mode: str) -> None:
    """Also where the chart tells a gateway of them: how long requests may wait, for example."""
    given = MODES.get(mode) or behind_envoy_gateway(
        **({"destination": "original-dst"} if "original-dst" in mode else {})
    )
    if "adapters" in mode:
        given = {**given, "adapters": {"configMapName": "ours"}}

    nulls = {**given, "settings": dict.fromkeys(SETTINGS["properties"])}

    assert rendered(nulls) == rendered(given)


def test_a_part_of_what_kubernetes_defines_can_be_removed() -> None:
    documents = render({"resources": {"limits": None}})
    assert set(router(documents)["resources"]) == {"requests"}


def test_false_and_zero_are_kept() -> None:
    documents = render(
        {"podDisruptionBudget": {"enabled": False}, "drain": {"delaySeconds": 0}, "replicas": 0}
    )
    assert one(documents, "Deployment")["spec"]["replicas"] == 0
    assert "lifecycle" not in router(documents)
    assert "PodDisruptionBudget" not in {each["kind"] for each in documents}


def test_every_template_fills_the_values_first() -> None:
    for file in (CHART / "templates").rglob("*"):
        if file.suffix in {".yaml", ".txt"}:
            first, *_ = file.read_text().splitlines()
            assert first == '{{- include "lora-router.fillValues" . -}}', file.name
