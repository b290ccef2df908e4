"""Names of objects: YAML takes none for a number or a boolean, and no two releases share one."""

from hashlib import sha256
from typing import Any

import pytest

from tests.chart.rendering import Document, render

WORDS = ("123", "no", "on", "true", "0x10", "1e3", "null", "2026-11-28")
"""What YAML 1.1 or 1.2 takes for something else than text. Each may be the name of an object."""


def values_with(name: str) -> dict[str, dict[str, Any]]:
    """Return values for each way to install the chart, with the name wherever one is free."""
    common: dict[str, Any] = {
        "serviceAccount": {"create": False, "name": name},
        "priorityClassName": name,
        "imagePullSecrets": [{"name": name}],
        "adminToken": {"enabled": True, "secretName": name, "secretKey": name},
        "podApiKey": {"secretName": name, "secretKey": name},
        "networkPolicy": {
            "enabled": True,
            "gatewayNamespaceLabels": {"team": name},
            "monitoringNamespaceLabels": {"team": name},
        },
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True},
        "commonLabels": {"team": name},
    }
    pod_tls = {"enabled": True, "caConfigMapName": name, "hostname": name}
    tls = {"secretName": name, "caConfigMapName": name, "hostname": name}
    envoy_gateway = {
        "gatewayName": name,
        "gatewayClassName": name,
        "listeners": [name],
        "createGateway": True,
        "accessLog": True,
        "backends": [{"name": name, "port": 8000, "namespace": "more", "referenceGrant": True}],
    }
    # Names of metrics begin with a letter.
    metric = name if name.isalpha() else "metric"
    everywhere = {"discovery": {"namespaces": ["more", "models"]}}
    return {
        "a sidecar": {
            **common,
            "adapters": {"configMapName": name},
            "podTls": {"enabled": True, "caConfigMapName": name},
            "gateway": {"mode": "sidecar", "sidecar": {"image": name}},
        },
        "a redis": {
            **common,
            "tls": tls,
            "peering": {
                "secretName": name,
                "secretKey": name,
                "redis": {"secretName": name, "secretKey": name, "caConfigMapName": name},
            },
            "discovery": {"scope": "cluster"},
            "autoscaling": {
                "enabled": True,
                "source": "keda",
                "keda": {"serverAddress": "http://p", "authenticationName": name},
            },
        },
        "metrics of its own": {
            **common,
            "autoscaling": {
                "enabled": True,
                "source": "custom-metrics",
                "customMetrics": dict.fromkeys(("requestsPerSecond", "loopLagSeconds"), metric),
                "targets": {"requestsPerSecond": 100, "loopLagSeconds": 1},
            },
        },
        "Envoy Gateway": {
            **common,
            **everywhere,
            "tls": tls,
            "podTls": pod_tls,
            "settings": {"destination_header": name, "target_pod_header": f"{name}-t"},
            "gateway": {
                "mode": "envoy-gateway",
                "envoyGateway": {**envoy_gateway, "gatewayNamespace": name},
            },
        },
        "any address": {
            **common,
            "settings": {"target_pod_header": name, "model_header": f"{name}-m"},
            "gateway": {
                "mode": "envoy-gateway",
                "envoyGateway": {**envoy_gateway, "destination": "original-dst"},
            },
        },
        "a pool": {
            **common,
            "gateway": {
                "mode": "inferencepool",
                "inferencePool": {
                    "name": name,
                    "matchLabels": {"app": name},
                    "gatewayName": name,
                    "listeners": [name],
                },
            },
        },
    }


def kinds_of_values(found: object) -> object:
    """Return the shape of a document: the kind of each value, without keys that may be names."""
    if isinstance(found, dict):
        return [kinds_of_values(value) for value in found.values()]
    if isinstance(found, list):
        return [kinds_of_values(value) for value in found]
    return type(found).__name__


def keys(found: object) -> set[str]:
    """Return the kinds of all keys."""
    if isinstance(found, dict):
        inside = (keys(value) for value in found.values())
        return {type(key).__name__ for key in found}.union(*inside)
    return set().union(*map(keys, found)) if isinstance(found, list) else set()


@pytest.mark.parametrize("case", values_with(""))
def test_a_name_that_yaml_takes_for_something_else_stays_text(case: str) -> None:
    def rendered(name: str) -> list[Document]:
        values = values_with(name)[case]
        return render(values, namespace=name, release=name)

    expected = kinds_of_values(rendered("plain"))
    for word in WORDS:
        documents = rendered(word)
        assert kinds_of_values(documents) == expected, word
        assert keys(documents) == {"str"}, word


def test_releases_that_see_all_namespaces_have_their_own_permissions() -> None:
    def binding(release: str, namespace: str) -> str:
        documents = render(
            {"discovery": {"scope": "cluster"}}, release=release, namespace=namespace
        )
        [name] = [
            each["metadata"]["name"] for each in documents if each["kind"] == "ClusterRoleBinding"
        ]
        [role] = [each["metadata"]["name"] for each in documents if each["kind"] == "ClusterRole"]
        assert name == role
        return str(name)

    one, other = binding("b-lora-router", "a"), binding("lora-router", "a-b")

    assert one == f"a-b-lora-router-{sha256(b'a').hexdigest()[:8]}"
    assert one != other
