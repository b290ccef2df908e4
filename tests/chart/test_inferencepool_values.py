"""The effect of ``gateway.mode=inferencepool``, rendered with the real Helm engine."""

from pathlib import Path

import pytest

from tests.chart import CHART
from tests.chart.rendering import Document, helm, kinds, one, render
from tests.chart.test_values import in_force

CHART_LABELS = {"app": "vllm"}


def pool_mode(**values: object) -> dict[str, object]:
    """Return values for an InferencePool that the chart creates."""
    pool = {"matchLabels": CHART_LABELS, **values}
    return {"gateway": {"mode": "inferencepool", "inferencePool": pool}}


def rules(documents: list[Document], suffix: str) -> list[Document]:
    found: list[Document] = one(documents, "Role", suffix)["rules"]
    return found


def test_what_is_installed_besides() -> None:
    found = kinds(render(pool_mode()))
    for kind in kinds(render()):
        found.remove(kind)
    assert found == ["InferencePool", "Role", "RoleBinding"]


def test_the_pool_names_the_routers_service_and_its_port() -> None:
    documents = render(pool_mode(targetPorts=[8000, 8001]) | {"settings": {"grpc_port": 9002}})

    pool, service = one(documents, "InferencePool"), one(documents, "Service")
    picker = pool["spec"]["endpointPickerRef"]
    assert picker["name"] == service["metadata"]["name"]
    assert picker["port"]["number"] == 9002
    assert picker["failureMode"] == "FailOpen"
    assert pool["metadata"]["namespace"] == service["metadata"]["namespace"]
    [port] = [each for each in service["spec"]["ports"] if each["name"] == "grpc"]
    assert (port["port"], port["appProtocol"]) == (9002, "kubernetes.io/h2c")
    assert pool["spec"]["selector"] == {"matchLabels": CHART_LABELS}
    assert pool["spec"]["targetPorts"] == [{"number": 8000}, {"number": 8001}]


@pytest.mark.parametrize(
    "values",
    [
        {"tls": {"secretName": "router-tls"}},
        {"settings": {"grpc_tls_self_signed": True}, "peering": {"enabled": False}},
    ],
)
def test_with_tls_the_port_is_marked_as_those_of_other_pickers(values: dict[str, object]) -> None:
    documents = render(pool_mode() | values)

    port = one(documents, "Service")["spec"]["ports"][0]
    assert port["appProtocol"] == "http2"
    [container] = one(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_router_follows_that_pool_and_nothing_else(tmp_path: Path) -> None:
    settings = in_force(render(pool_mode(name="llama"), namespace="ml"), tmp_path)

    assert settings.inference_pool == "ml/llama"
    assert settings.endpoints is None


def test_it_may_see_that_pool_its_objectives_and_its_pods() -> None:
    documents = render(pool_mode(name="llama"))

    assert rules(documents, "-pool") == [
        {
            "apiGroups": ["inference.networking.k8s.io"],
            "resources": ["inferencepools"],
            "resourceNames": ["llama"],
            "verbs": ["list", "watch"],
        },
        {
            "apiGroups": ["inference.networking.x-k8s.io"],
            "resources": ["inferenceobjectives"],
            "verbs": ["list", "watch"],
        },
    ]
    assert rules(documents, "lora-router") == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
    ]
    rewrites = render(pool_mode() | {"settings": {"inference_model_rewrites": True}})
    assert rules(rewrites, "-pool")[2] == {
        "apiGroups": ["inference.networking.x-k8s.io"],
        "resources": ["inferencemodelrewrites"],
        "verbs": ["list", "watch"],
    }
    assert "Role" not in kinds(render(pool_mode() | {"rbac": {"create": False}}))


def test_a_pool_of_ones_own_is_only_followed(tmp_path: Path) -> None:
    documents = render(pool_mode(create=False, name="mine", matchLabels={}))

    assert "InferencePool" not in kinds(documents)
    assert in_force(documents, tmp_path).inference_pool == "models/mine"
    assert rules(documents, "-pool")[0]["resourceNames"] == ["mine"]


def test_a_route_leads_to_the_pool() -> None:
    documents = render(
        pool_mode(gatewayName="llm", gatewayNamespace="gateways", listeners=["http", "https"])
    )

    route = one(documents, "HTTPRoute")["spec"]
    assert route["parentRefs"] == [
        {"name": "llm", "namespace": "gateways", "sectionName": name} for name in ("http", "https")
    ]
    [rule] = route["rules"]
    assert rule["backendRefs"] == [
        {
            "group": "inference.networking.k8s.io",
            "kind": "InferencePool",
            "name": one(documents, "InferencePool")["metadata"]["name"],
        }
    ]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]


def test_a_route_without_listeners_attaches_to_all() -> None:
    [parent] = one(render(pool_mode(gatewayName="llm")), "HTTPRoute")["spec"]["parentRefs"]
    assert parent == {"name": "llm", "namespace": "models"}


def test_the_network_policy_allows_the_ports_of_the_pool() -> None:
    documents = render(pool_mode(targetPorts=[8000, 8001]) | {"networkPolicy": {"enabled": True}})

    allowed = one(documents, "NetworkPolicy")["spec"]["egress"]
    ports = [[port["port"] for port in rule["ports"]] for rule in allowed]
    assert [8000, 8001] in ports


@pytest.mark.parametrize("null", ["targetPorts", "failureMode", "pathPrefixes", "appProtocol"])
def test_null_is_the_default(null: str) -> None:
    usual = render(pool_mode(gatewayName="llm"))
    other = render(pool_mode(gatewayName="llm", **{null: None}))
    for kind in ("InferencePool", "HTTPRoute"):
        assert one(other, kind) == one(usual, kind)


@pytest.mark.parametrize("create", [True, False])
def test_the_notes_say_what_is_left_to_do(create: bool) -> None:
    values = pool_mode(name="llama", create=create)
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name="test", namespace="models")
    [notes] = [text for name, text in files.items() if name.endswith("NOTES.txt")]

    assert "routes to the pods of InferencePool llama in models." in notes
    assert "get inferencepools.inference.networking.k8s.io llama" in notes
    assert "No HTTPRoute leads to it yet" in notes
    assert ("must name the Service test-lora-router and the port 50052" in notes) is not create
