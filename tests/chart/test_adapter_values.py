"""Adapters that the routers load, rendered with the real Helm engine."""

from pathlib import Path

import pytest
import yaml

from lora_router.discovery.adapters_list import parse_adapters
from lora_router.replication.loader_lease import loader_lease_name
from tests.chart import CHART
from tests.chart.rendering import Document, one, render
from tests.chart.test_values import in_force, pod_template, router

ADAPTERS = [{"name": "sql", "base_model": "llama", "source": "/models/sql", "pods": 2}]
MODEL_ADAPTERS = {"adapters": {"sources": ["org"], "modelAdapters": {"enabled": True}}}
AIBRIX = "model.aibrix.ai"


def rules(documents: list[Document], kind: str, name: str) -> list[Document]:
    [role] = [
        each for each in documents if each["kind"] == kind and each["metadata"]["name"] == name
    ]
    found: list[Document] = role["rules"]
    return found


def test_declared_adapters_are_a_file_that_the_router_reads(tmp_path: Path) -> None:
    documents = render({"adapters": {"list": ADAPTERS, "sources": ["/models"]}})
    file = one(documents, "ConfigMap", "-adapters")["data"]["adapters.yaml"]
    [adapter] = parse_adapters(file).adapters
    assert (adapter.name, adapter.pods.copies) == ("sql", 2)
    settings = in_force(documents, tmp_path)
    assert settings.adapters_file is not None
    [mount] = [each for each in router(documents)["volumeMounts"] if each["name"] == "adapters"]
    assert str(settings.adapters_file) == f"{mount['mountPath']}/adapters.yaml"
    assert "subPath" not in mount  # Kubernetes would never update the file.
    assert settings.adapter_sources == ["/models"]


def test_a_change_of_the_adapters_replaces_no_pods() -> None:
    one_list = render({"adapters": {"list": ADAPTERS}})
    other = render({"adapters": {"list": [*ADAPTERS, {**ADAPTERS[0], "name": "chat"}]}})
    assert pod_template(one_list) == pod_template(other)


def test_a_config_map_of_ones_own_takes_the_place_of_lists() -> None:
    documents = render({"adapters": {"configMapName": "ours"}})
    volumes = pod_template(documents)["spec"]["volumes"]
    [volume] = [each for each in volumes if each["name"] == "adapters"]
    assert volume["configMap"]["name"] == "ours"
    assert "test-lora-router-adapters" not in str(documents)


@pytest.mark.parametrize("scope", ["namespace", "cluster"])
def test_model_adapters_are_followed_and_only_their_status_is_written(
    scope: str, tmp_path: Path
) -> None:
    documents = render({**MODEL_ADAPTERS, "discovery": {"scope": scope}})
    assert in_force(documents, tmp_path).model_adapters
    kind = "ClusterRole" if scope == "cluster" else "Role"
    name = "models-test-lora-router-8edcc26c" if scope == "cluster" else "test-lora-router"
    assert [each for each in rules(documents, kind, name) if each["apiGroups"] == [AIBRIX]] == [
        {"apiGroups": [AIBRIX], "resources": ["modeladapters"], "verbs": ["list", "watch"]},
        {"apiGroups": [AIBRIX], "resources": ["modeladapters/status"], "verbs": ["patch"]},
    ]
    assert AIBRIX not in str([each["rules"] for each in render() if "rules" in each])


def test_a_lease_says_which_router_loads(tmp_path: Path) -> None:
    documents = render(MODEL_ADAPTERS)
    settings = in_force(documents, tmp_path)
    name = loader_lease_name(settings.routers_name)
    assert rules(documents, "Role", "test-lora-router-loader")[1] == {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [name],
        "verbs": ["get", "update", "watch"],
    }
    without: list[Document] = [
        {**MODEL_ADAPTERS, "replication": "lease"},
        {**MODEL_ADAPTERS, "replicas": 1, "peering": {"enabled": False}},
        {},
    ]
    for values in without:
        assert "-loader" not in str(render(values))


def test_the_definition_is_created_on_demand_and_outlives_the_release() -> None:
    assert "CustomResourceDefinition" not in str(render(MODEL_ADAPTERS))
    model_adapters = {"enabled": True, "createDefinition": True}
    documents = render({"adapters": {"sources": ["org"], "modelAdapters": model_adapters}})
    definition = one(documents, "CustomResourceDefinition")
    assert definition["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    file = yaml.safe_load((CHART / "files" / "modeladapters.yaml").read_text())
    assert definition["spec"] == file["spec"]


def test_envoy_waits_as_long_as_a_first_use_may_take() -> None:
    gateway = {
        "mode": "envoy-gateway",
        "envoyGateway": {"backends": [{"name": "vllm", "port": 8000}]},
    }
    settings = {"first_use_seconds": 90, "max_hold_seconds": 10}

    def timeout(values: Document) -> str:
        documents = render({"gateway": gateway, "settings": settings, **values})
        policy = one(documents, "EnvoyExtensionPolicy")
        return str(policy["spec"]["extProc"][0]["messageTimeout"])

    assert (timeout({}), timeout(MODEL_ADAPTERS)) == ("15s", "95s")
