"""The effect of the chart's values, rendered with the real Helm engine."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lora_router.config.report import settings_schema
from lora_router.config.settings import Settings
from lora_router.config.sources import load_settings
from lora_router.listening import everywhere
from tests.chart import CHART
from tests.chart.combinations import COMBINATIONS
from tests.chart.rendering import (
    Document,
    helm,
    kinds,
    one,
    render,
    router_settings,
)
from tests.envoy import BINARY
from tests.scripts import load_script


def in_force(documents: list[Document], folder: Path) -> Settings:
    """Read the rendered settings as the router does."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(router_settings(documents)))
    container = router(documents)
    environ = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    return load_settings(file=file, environ=environ, flags={}).settings


def pod_template(documents: list[Document]) -> dict[str, Any]:
    template: dict[str, Any] = one(documents, "Deployment")["spec"]["template"]
    return template


def router(documents: list[Document]) -> dict[str, Any]:
    [container] = pod_template(documents)["spec"]["containers"]
    return dict(container)


def with_mode(mode: str, **more: object) -> dict[str, object]:
    return {"gateway": {"mode": mode, **more}}


def behind_envoy_gateway(**changes: object) -> dict[str, object]:
    """Return values for one Service of the pods, with changes below gateway.envoyGateway."""
    ours = {"backends": [{"name": "vllm", "port": 8000}]}
    return with_mode("envoy-gateway", envoyGateway=ours | changes)


def test_helm_finds_nothing_to_complain_of() -> None:
    for values in COMBINATIONS.values():
        report = helm.lint(CHART, values, strict=True)
        assert report["errors"] == []
        assert [found for found in report["messages"] if found["severity"] > 1] == []


def test_the_schema_knows_the_settings_and_the_adapters_of_this_version() -> None:
    module = load_script(CHART.parent / "write_schema.py")

    text = (CHART / "values.schema.json").read_text()
    assert module.up_to_date(text) == text, "run `make schema`"
    assert module.RULES.read_text() == module.rules(), "run `make schema`"
    assert module.ALGORITHMS.read_text() == module.algorithms(), "run `make schema`"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_requests_per_pod", 0),
        ("max_seconds_per_token", 61),
        ("adapter_loads_at_once", 257),
        ("scrape_concurrency", 0),
    ],
)
def test_helm_refuses_a_number_out_of_the_bounds_of_its_setting(name: str, value: int) -> None:
    with pytest.raises(helm.HelmError, match=f"(?s){name}.*(minimum|maximum)"):
        render({"settings": {name: value}})


def test_the_schema_states_bounds_as_json_schema_calls_them() -> None:
    schema = settings_schema()
    assert schema["max_requests_per_pod"]["minimum"] == 1
    assert schema["max_seconds_per_token"]["maximum"] == 60
    assert not [name for name, each in schema.items() if {"ge", "gt", "le", "lt"} & each.keys()]


def test_the_schema_knows_every_value_and_no_other() -> None:
    with helm.Chart.load(CHART) as chart:
        schema, values = chart.schema, chart.values
    assert schema is not None

    def compare(schema: dict[str, Any], values: dict[str, Any], where: str) -> None:
        if "properties" not in schema or not values:
            return
        assert set(schema["properties"]) - {"global"} == set(values), where
        for name, value in values.items():
            if isinstance(value, dict):
                compare(schema["properties"][name], value, f"{where}.{name}")

    compare(schema, values, "")


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_the_router_understands_its_settings(values: dict[str, object], tmp_path: Path) -> None:
    in_force(render(values), tmp_path)


def test_what_is_installed_by_default() -> None:
    assert kinds(render()) == [
        "ConfigMap",
        "Deployment",
        "Pod",
        "PodDisruptionBudget",
        "Role",
        "Role",
        "RoleBinding",
        "RoleBinding",
        "Secret",
        "Secret",
        "Service",
        "Service",
        "ServiceAccount",
    ]


def test_the_threshold_is_what_aibrix_calls_it(tmp_path: Path) -> None:
    documents = render({"loraAffinityThreshold": 0.75})

    assert {"name": "AIBRIX_LORA_AFFINITY_THRESHOLD", "value": "0.75"} in router(documents)["env"]
    assert in_force(documents, tmp_path).lora_affinity_threshold == 0.75
    for extreme in (0, 1, 1e-7):
        settings = in_force(render({"loraAffinityThreshold": extreme}), tmp_path)
        assert settings.lora_affinity_threshold == extreme


def test_settings_win_over_what_the_chart_says_itself(tmp_path: Path) -> None:
    documents = render(
        {
            "drain": {"timeoutSeconds": 10},
            "settings": {"drain_timeout_seconds": 99.5, "grpc_port": 1234, "admin_port": 1235},
        }
    )

    settings = in_force(documents, tmp_path)
    assert (settings.drain_timeout_seconds, settings.grpc_port) == (99.5, 1234)
    ports = {port["name"]: port["containerPort"] for port in router(documents)["ports"]}
    assert ports == {"grpc": 1234, "admin": 1235}
    assert [port["port"] for port in one(documents, "Service")["spec"]["ports"]] == [1234, 1235]
    assert router(documents)["readinessProbe"]["grpc"]["port"] == 1234


def test_changed_settings_make_new_pods_and_others_do_not() -> None:
    def checksum(values: dict[str, object]) -> str:
        return str(pod_template(render(values))["metadata"]["annotations"]["checksum/config"])

    assert checksum({}) == checksum({"replicas": 5})
    assert checksum({}) != checksum({"settings": {"log_level": "debug"}})


def test_namespaces_are_those_that_the_roles_are_in(tmp_path: Path) -> None:
    documents = render({"discovery": {"namespaces": ["a", "b"]}}, namespace="routers")

    assert in_force(documents, tmp_path).kubernetes_namespaces == ["a", "b"]
    roles = [document for document in documents if document["kind"] == "RoleBinding"]
    places = [role["metadata"]["namespace"] for role in roles if "peers" not in str(role)]
    assert places == ["a", "b"]
    assert {role["subjects"][0]["namespace"] for role in roles} == {"routers"}
    own = in_force(render(namespace="routers"), tmp_path)
    assert own.kubernetes_namespaces == ["routers"]
    cluster = render({"discovery": {"scope": "cluster"}}, namespace="routers")
    assert in_force(cluster, tmp_path).kubernetes_namespaces == []
    assert "ClusterRoleBinding" in kinds(cluster)
    assert one(cluster, "Role")["metadata"]["name"] == "test-lora-router-peers"


def test_a_setting_that_overrides_the_namespaces_decides_where_the_roles_are() -> None:
    documents = render(
        {"settings": {"kubernetes_namespaces": ["a"]}, "networkPolicy": {"enabled": True}}
    )

    bound = {
        each["metadata"]["namespace"]
        for each in documents
        if each["kind"] == "Role" and "pods" in str(each["rules"])
    }
    assert bound == {"a"}
    egress = str(one(documents, "NetworkPolicy")["spec"]["egress"])
    assert "'kubernetes.io/metadata.name': 'a'" in egress


def test_the_key_of_the_pods_is_a_file_that_follows_its_secret(tmp_path: Path) -> None:
    documents = render({"podApiKey": {"secretName": "vllm", "secretKey": "token"}})

    file = in_force(documents, tmp_path).pod_api_key_file
    mounts = {each["name"]: each["mountPath"] for each in router(documents)["volumeMounts"]}
    assert str(file) == f"{mounts['pod-key']}/key"
    [volume] = [
        each for each in pod_template(documents)["spec"]["volumes"] if each["name"] == "pod-key"
    ]
    assert volume["secret"]["secretName"] == "vllm"
    assert volume["secret"]["items"] == [{"key": "token", "path": "key"}]
    assert not [each for each in router(documents)["env"] if "valueFrom" in each]


def test_commands_in_the_container_find_the_admin_port() -> None:
    """They do not read the settings file."""
    container = router(render({"settings": {"admin_port": 9090}}))
    environ = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert environ["LORA_ROUTER_ADMIN_PORT"] == "9090"


def test_the_pod_of_helm_test_can_be_scheduled_and_pulled_as_the_router() -> None:
    shared = {
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"operator": "Exists"}],
    }
    documents = render({**shared, "serviceAccount": {"name": "pulls"}})

    for spec in (one(documents, "Pod")["spec"], pod_template(documents)["spec"]):
        assert {name: spec[name] for name in shared} == shared
        assert spec["serviceAccountName"] == "pulls"


@pytest.mark.parametrize(
    ("tag", "label"),
    [
        ("v1", "v1"),
        ("v1.2.3-" + "a" * 55 + ".1", "v1.2.3-" + "a" * 55),
        ("a" * 60 + "-_-" + "b" * 9, "a" * 60),
    ],
)
def test_a_long_tag_is_still_a_label(tag: str, label: str) -> None:
    labels = one(render({"image": {"tag": tag}}), "Deployment")["metadata"]["labels"]
    assert labels["app.kubernetes.io/version"] == label


@pytest.mark.parametrize(
    ("workers", "limit", "needed"),
    [
        (1, "316Mi", ""),
        (1, "300Mi", "316Mi"),
        (1, "0.25Gi", "316Mi"),
        (1, "500M", ""),
        (3, "1Gi", ""),
        (4, "1Gi", "1324Mi"),
        (4, "1073741824", "1324Mi"),
        (4, "2Gi", ""),
    ],
)
def test_the_notes_warn_of_workers_that_do_not_fit_into_the_memory(
    workers: int, limit: str, needed: str
) -> None:
    values = {"workers": workers, "resources": {"limits": {"memory": limit}}}
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name="test", namespace="models")
    [notes] = [text for name, text in files.items() if name.endswith("NOTES.txt")]

    who = "A router" if workers == 1 else f"{workers} workers"
    warnings = [line for line in notes.splitlines() if "may need" in line]
    assert [f"{who} may need {needed} of memory" in line for line in warnings] == (
        [True] if needed else []
    )


@pytest.mark.parametrize("name", ["lora-placement", "lora-placment"])
def test_the_notes_warn_of_an_algorithm_that_the_image_may_not_have(name: str) -> None:
    with helm.Chart.load(CHART) as chart:
        files = chart.render({"settings": {"algorithm": name}}, name="test", namespace="models")
    [notes] = [text for name, text in files.items() if name.endswith("NOTES.txt")]

    assert ("settings.algorithm is" in notes) == (name not in built_in())


def built_in() -> list[str]:
    names: list[str] = json.loads((CHART / "files/algorithms.json").read_text())
    return names


def test_a_release_with_a_dot_in_its_name_has_names_without() -> None:
    documents = render(release="team.a")
    assert one(documents, "Service")["metadata"]["name"] == "team-a-lora-router"


def test_to_list_and_watch_pods_and_its_peers_is_all_that_it_may() -> None:
    for values in ({}, {"discovery": {"scope": "cluster"}}):
        roles = [document for document in render(values) if document["kind"].endswith("Role")]
        rules = sorted((str(role["rules"]), role["metadata"].get("namespace")) for role in roles)
        pods = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
        slices = {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["list", "watch"],
        }
        place = None if "discovery" in values else "models"
        assert rules == [(str([pods]), place), (str([slices]), "models")]


@pytest.mark.parametrize("mode", ["none", "sidecar"])
def test_all_containers_are_confined(mode: str) -> None:
    documents = render(with_mode(mode))
    specs = [pod_template(documents)["spec"], one(documents, "Pod")["spec"]]

    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 65532
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"] + spec.get("initContainers", []):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("mode", ["none", "sidecar"])
@pytest.mark.parametrize("name", ["long drain", "settings", "neither"])
def test_the_grace_period_has_room_for_the_drain(mode: str, name: str, tmp_path: Path) -> None:
    changes: dict[str, dict[str, object]] = {
        "long drain": {"drain": {"delaySeconds": 20, "timeoutSeconds": 600}},
        "settings": {"settings": {"drain_delay_seconds": 7.5, "drain_timeout_seconds": 70.5}},
        "neither": {"drain": {"delaySeconds": 0, "timeoutSeconds": 0}},
    }
    documents = render({**changes[name], **with_mode(mode)})

    settings = in_force(documents, tmp_path)
    hook = router(documents).get("lifecycle", {}).get("preStop", {})
    sleep = hook.get("sleep", {}).get("seconds", 0)
    needed = sleep + settings.drain_delay_seconds + settings.drain_timeout_seconds
    grace = pod_template(documents)["spec"]["terminationGracePeriodSeconds"]
    assert needed + 5 <= grace <= needed + 12
    assert hook == {} or sleep > 0  # The API server refuses a sleep of no time.


def test_probes_ask_what_they_mean() -> None:
    container = router(render())

    assert container["startupProbe"]["grpc"]["service"] == "liveness"
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "admin"}
    assert container["readinessProbe"]["grpc"]["service"] == "readiness"


def test_over_tls_probes_ask_the_pages_and_the_certificate_is_mounted(tmp_path: Path) -> None:
    documents = render({"tls": {"secretName": "router-tls"}})

    container = router(documents)
    assert container["startupProbe"]["httpGet"] == {"path": "/healthz", "port": "admin"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "admin"}
    settings = in_force(documents, tmp_path)
    [mount] = [each for each in container["volumeMounts"] if each["name"] == "tls"]
    assert str(settings.grpc_tls_cert_file) == f"{mount['mountPath']}/tls.crt"
    assert str(settings.grpc_tls_key_file) == f"{mount['mountPath']}/tls.key"
    assert settings.grpc_tls_client_ca_file is None
    volumes = pod_template(documents)["spec"]["volumes"]
    [volume] = [each for each in volumes if each["name"] == mount["name"]]
    assert volume["secret"]["secretName"] == "router-tls"
    assert "appProtocol" not in one(documents, "Service")["spec"]["ports"][0]
    assert "--grpc" not in one(documents, "Pod")["spec"]["containers"][0]["args"]


def test_a_certificate_of_envoys_is_asked_for_where_that_is_wanted(tmp_path: Path) -> None:
    tls = {"secretName": "router-tls", "requireClientCertificate": True}
    settings = in_force(render({"tls": tls}), tmp_path)
    assert str(settings.grpc_tls_client_ca_file) == "/etc/lora-router-tls/ca.crt"


def test_envoy_gateway_is_told_whom_to_trust() -> None:
    tls = {"secretName": "router-tls", "caConfigMapName": "ca"}
    policy = one(render({**behind_envoy_gateway(), "tls": tls}), "BackendTLSPolicy")
    assert policy["spec"]["targetRefs"][0]["name"] == "test-lora-router"
    assert policy["spec"]["validation"]["hostname"] == "test-lora-router.models.svc"
    assert policy["spec"]["validation"]["caCertificateRefs"][0]["name"] == "ca"


def test_a_sidecar_ends_after_the_router_and_reads_the_same_settings() -> None:
    documents = render(
        {**with_mode("sidecar"), "extraEnv": [{"name": "LORA_ROUTER_MAX_BODY_BYTES", "value": "9"}]}
    )
    write, envoy = pod_template(documents)["spec"]["initContainers"]

    assert envoy["restartPolicy"] == "Always"
    assert "restartPolicy" not in write
    assert write["env"] == router(documents)["env"]
    assert write["args"][-2:] == ["--output", "/etc/envoy/envoy.yaml"]
    assert "/etc/envoy/envoy.yaml" in envoy["args"]
    ports = one(documents, "Service")["spec"]["ports"]
    assert {"name": "http", "port": 80, "targetPort": "http"} in ports


def test_the_service_says_that_its_grpc_is_http2_without_tls() -> None:
    grpc, _ = one(render(), "Service")["spec"]["ports"]
    assert grpc["appProtocol"] == "kubernetes.io/h2c"


def test_selectors_choose_the_routers_pods_alone() -> None:
    documents = render({"autoscaling": {"enabled": True}, "networkPolicy": {"enabled": True}})
    mine = pod_template(documents)["metadata"]["labels"]
    test_pod = one(documents, "Pod")["metadata"]["labels"]
    selectors = [
        one(documents, "Service")["spec"]["selector"],
        one(documents, "Deployment")["spec"]["selector"]["matchLabels"],
        one(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]

    for selector in selectors:
        assert selector.items() <= mine.items()
        assert not selector.items() <= test_pod.items()


def quantity(text: str) -> int:
    units = {"Mi": 2**20, "Gi": 2**30}
    return int(text[:-2]) * units[text[-2:]]


def test_memory_limits_have_room_for_what_may_be_buffered(tmp_path: Path) -> None:
    documents = render(with_mode("sidecar"))
    settings = in_force(documents, tmp_path)
    _, envoy = pod_template(documents)["spec"]["initContainers"]

    limit = quantity(router(documents)["resources"]["limits"]["memory"])
    assert settings.max_buffered_bytes <= limit // 2
    assert settings.envoy_max_heap_bytes <= 0.8 * quantity(envoy["resources"]["limits"]["memory"])


def test_a_sidecar_gets_a_configuration_that_envoy_takes(tmp_path: Path) -> None:
    documents = render(with_mode("sidecar", sidecar={"port": 18080}))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(router_settings(documents)))
    write, _ = pod_template(documents)["spec"]["initContainers"]
    arguments = [text.replace("/etc/lora-router", str(tmp_path)) for text in write["args"]]
    arguments = [text.replace("/etc/envoy", str(tmp_path)) for text in arguments]

    subprocess.run([sys.executable, "-m", "lora_router", *arguments], check=True)
    file = tmp_path / "envoy.yaml"
    subprocess.run([BINARY, "--mode", "validate", "-c", file], check=True, capture_output=True)
    [listener] = yaml.safe_load(file.read_text())["static_resources"]["listeners"]
    address = listener["address"]["socket_address"]
    assert (address["address"], address["port_value"]) == (everywhere("::"), 18080)
