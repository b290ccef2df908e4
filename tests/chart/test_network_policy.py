"""The chart's NetworkPolicy, rendered with the real Helm engine."""

from typing import Any

from tests.chart.combinations import COMBINATIONS
from tests.chart.rendering import Document, one, render
from tests.chart.test_values import pod_template

GATEWAY = {"kubernetes.io/metadata.name": "envoy-gateway-system"}
MONITORING = {"monitoring": "true"}


def policy(documents: list[Document]) -> dict[str, Any]:
    found: dict[str, Any] = one(documents, "NetworkPolicy")["spec"]
    return found


def rules_with(rules: list[Document], port: int) -> list[Document]:
    return [rule for rule in rules if any(each["port"] == port for each in rule["ports"])]


def selected(rules: list[Document], side: str, kind: str) -> list[dict[str, str]]:
    return [each[kind]["matchLabels"] for rule in rules for each in rule[side] if kind in each]


def narrow() -> list[Document]:
    return render(COMBINATIONS["a narrow network policy"])


def test_it_is_off_by_default() -> None:
    assert "NetworkPolicy" not in {each["kind"] for each in render()}


def test_gateways_and_the_other_routers_reach_the_grpc_port() -> None:
    documents = narrow()
    rules = rules_with(policy(documents)["ingress"], 50052)

    assert selected(rules, "from", "namespaceSelector") == [GATEWAY]
    mine = pod_template(documents)["metadata"]["labels"]
    pods = selected(rules, "from", "podSelector")
    assert any(labels.items() <= mine.items() for labels in pods)


def test_only_monitoring_reaches_the_admin_port() -> None:
    rules = rules_with(policy(narrow())["ingress"], 8080)

    assert selected(rules, "from", "namespaceSelector") == [MONITORING]


def test_routers_reach_each_other_but_no_other_pods_on_the_grpc_port() -> None:
    documents = narrow()
    [rule] = rules_with(policy(documents)["egress"], 50052)

    mine = pod_template(documents)["metadata"]["labels"]
    [labels] = selected([rule], "to", "podSelector")
    assert labels.items() <= mine.items()
    assert len(rule["to"]) == 1


def test_without_peering_routers_cannot_reach_each_other() -> None:
    values = COMBINATIONS["a narrow network policy"] | {"peering": {"enabled": False}}
    rules = policy(render(values))

    assert rules_with(rules["egress"], 50052) == []
    mine = pod_template(render(values))["metadata"]["labels"]
    pods = selected(rules_with(rules["ingress"], 50052), "from", "podSelector")
    assert not any(labels.items() <= mine.items() for labels in pods)


def test_the_routers_reach_the_model_servers_in_their_namespaces() -> None:
    discovery = {"namespaces": ["models", "far"], "port": 8001}
    documents = render({"networkPolicy": {"enabled": True}, "discovery": discovery})

    [rule] = rules_with(policy(documents)["egress"], 8001)
    assert selected([rule], "to", "namespaceSelector") == [
        {"kubernetes.io/metadata.name": "models"},
        {"kubernetes.io/metadata.name": "far"},
    ]
    cluster = render({"networkPolicy": {"enabled": True}, "discovery": {"scope": "cluster"}})
    [rule] = rules_with(policy(cluster)["egress"], 8000)
    assert rule["to"] == [{"namespaceSelector": {}}]


def test_the_addresses_of_the_api_server_can_be_named() -> None:
    [rule] = rules_with(policy(narrow())["egress"], 6443)
    assert rule["to"] == [
        {"ipBlock": {"cidr": "192.0.2.10/32"}},
        {"ipBlock": {"cidr": "2001:db8::/64"}},
    ]

    [rule] = rules_with(policy(render({"networkPolicy": {"enabled": True}}))["egress"], 6443)
    assert "to" not in rule


def test_rules_of_ones_own_are_added() -> None:
    assert policy(narrow())["egress"][-1]["to"] == [{"ipBlock": {"cidr": "198.51.100.0/24"}}]


def test_it_lets_helm_test_in() -> None:
    documents = narrow()
    rules = policy(documents)["ingress"]
    labels = one(documents, "Pod")["metadata"]["labels"]

    for port in (50052, 8080):
        pods = selected(rules_with(rules, port), "from", "podSelector")
        assert any(each.items() <= labels.items() for each in pods)
