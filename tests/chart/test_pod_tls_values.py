"""Pods that serve over TLS: the router, the sidecar and Envoy Gateway call them so."""

from pathlib import Path
from typing import Any

from tests.chart.rendering import Document, one, render
from tests.chart.test_values import (
    behind_envoy_gateway,
    in_force,
    pod_template,
    router,
    with_mode,
)

TLS: dict[str, object] = {"enabled": True, "caConfigMapName": "pods-ca", "hostname": "pods.test"}


def mounts(container: dict[str, Any]) -> dict[str, str]:
    """Return the names of the mounted volumes by their paths."""
    return {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}


def volumes(documents: list[Document]) -> dict[str, Any]:
    """Return the volumes by their names."""
    return {volume["name"]: volume for volume in pod_template(documents)["spec"]["volumes"]}


def test_the_router_reads_pods_over_tls(tmp_path: Path) -> None:
    documents = render({"podTls": TLS})

    settings = in_force(documents, tmp_path)
    assert settings.pod_scheme == "https"
    assert settings.pod_tls_server_name == "pods.test"
    folder = str(settings.pod_tls_ca_file).removesuffix("/ca.crt")
    volume = volumes(documents)[mounts(router(documents))[folder]]
    assert volume["configMap"] == {"name": "pods-ca"}


def test_without_an_authority_those_of_the_system_count(tmp_path: Path) -> None:
    documents = render({"podTls": {"enabled": True}})

    assert in_force(documents, tmp_path).pod_tls_ca_file is None
    assert "pods-ca" not in volumes(documents)


def test_the_sidecar_calls_pods_over_tls(tmp_path: Path) -> None:
    documents = render({"podTls": TLS, **with_mode("sidecar")})

    settings = in_force(documents, tmp_path)
    assert settings.envoy_pod_ca_file == settings.pod_tls_ca_file
    _, envoy = pod_template(documents)["spec"]["initContainers"]
    assert mounts(envoy)["/etc/lora-router-pods"] == "pods-ca"


def test_envoy_gateway_is_told_whom_to_trust_for_each_service() -> None:
    far = {"name": "vllm", "namespace": "far", "port": 8000, "referenceGrant": True}
    documents = render(
        {
            **behind_envoy_gateway(backends=[{"name": "llama", "port": 8000}, far]),
            "discovery": {"namespaces": ["models", "far"]},
            "podTls": TLS,
        }
    )

    policies = [each for each in documents if each["kind"] == "BackendTLSPolicy"]
    targets = [
        (policy["metadata"]["namespace"], policy["spec"]["targetRefs"][0]["name"])
        for policy in policies
    ]
    assert targets == [("models", "llama"), ("far", "vllm")]
    for policy in policies:
        assert policy["spec"]["validation"]["hostname"] == "pods.test"
        [authority] = policy["spec"]["validation"]["caCertificateRefs"]
        assert authority["name"] == "pods-ca"


def test_envoy_gateway_may_trust_the_authorities_of_the_system() -> None:
    tls = {"enabled": True, "hostname": "pods.test"}
    policy = one(render({**behind_envoy_gateway(), "podTls": tls}), "BackendTLSPolicy")
    assert policy["spec"]["validation"]["wellKnownCACertificates"] == "System"


def test_files_that_settings_name_can_be_mounted() -> None:
    documents = render(
        {
            **with_mode("sidecar"),
            "extraVolumes": [{"name": "tokens", "secret": {"secretName": "pods"}}],
            "extraVolumeMounts": [{"name": "tokens", "mountPath": "/tokens"}],
        }
    )
    _, envoy = pod_template(documents)["spec"]["initContainers"]
    for container in (router(documents), envoy):
        assert mounts(container)["/tokens"] == "tokens"
    assert volumes(documents)["tokens"]["secret"] == {"secretName": "pods"}
