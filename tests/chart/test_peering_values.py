"""How the chart makes its routers peers, rendered with the real Helm engine."""

import base64
from pathlib import Path

import pytest

from tests.chart.rendering import Document, one, render, router_settings, secrets
from tests.chart.test_values import in_force, pod_template, router

TLS = {"tls": {"secretName": "router-tls"}}


def volume(documents: list[Document]) -> Document:
    [found] = [each for each in pod_template(documents)["spec"]["volumes"] if "peers" in str(each)]
    return dict(found["secret"])


def test_routers_find_each_other_through_a_headless_service(tmp_path: Path) -> None:
    documents = render(namespace="routers")

    service = one(documents, "Service", "-peers")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert (
        service["spec"]["selector"].items() <= pod_template(documents)["metadata"]["labels"].items()
    )
    settings = in_force(documents, tmp_path)
    assert settings.peer_service == f"routers/{service['metadata']['name']}"
    [port] = service["spec"]["ports"]
    assert (port["name"], port["port"]) == ("grpc", settings.grpc_port)


def test_the_permission_to_follow_it_is_in_its_namespace() -> None:
    documents = render({"discovery": {"namespaces": ["far"]}}, namespace="routers")

    role = one(documents, "Role", "-peers")
    binding = one(documents, "RoleBinding", "-peers")
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "routers"
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    account = one(documents, "ServiceAccount")["metadata"]["name"]
    assert [each["name"] for each in binding["subjects"]] == [account]


def test_the_router_reads_the_key_that_the_chart_created(tmp_path: Path) -> None:
    documents = render()

    secret = one(documents, "Secret", "-peers")
    mounted = volume(documents)
    assert mounted["secretName"] == secret["metadata"]["name"]
    [item] = mounted["items"]
    [mount] = [each for each in router(documents)["volumeMounts"] if each["name"] == "peers"]
    settings = in_force(documents, tmp_path)
    assert str(settings.peer_secret_file) == f"{mount['mountPath']}/{item['path']}"
    key = base64.b64decode(secret["data"][item["key"]]).decode()
    assert len(key) >= 32
    assert key.isalnum()


def test_no_key_is_created_where_one_is_named() -> None:
    documents = render({"peering": {"secretName": "mine", "secretKey": "key"}})

    assert secrets(documents) == ["admin"]
    assert volume(documents)["secretName"] == "mine"
    assert volume(documents)["items"] == [{"key": "key", "path": "secret"}]


def test_two_renderings_differ_in_the_key_alone_and_pods_do_not_depend_on_it() -> None:
    first, second = render(), render()

    def but_the_key(documents: list[Document]) -> list[Document]:
        return [each for each in documents if each["kind"] != "Secret"]

    for suffix in ("-peers", "-admin"):
        assert one(first, "Secret", suffix) != one(second, "Secret", suffix)
    assert but_the_key(first) == but_the_key(second)
    named = {"peering": {"secretName": "mine"}, "adminToken": {"secretName": "mine"}}
    assert render(named) == render(named)


def test_without_peering_nothing_of_it_is_installed(tmp_path: Path) -> None:
    documents = render({"peering": {"enabled": False}})

    assert not in_force(documents, tmp_path).has_peers
    assert "peer" not in str(documents)
    assert secrets(documents) == ["admin"]


def test_a_list_of_peers_takes_the_place_of_the_service(tmp_path: Path) -> None:
    documents = render({"settings": {"peers": "a.test:50052,b.test:50052"}})

    settings = in_force(documents, tmp_path)
    assert settings.peers is not None
    assert settings.peer_service is None
    assert settings.peer_secret_file is not None
    assert "endpointslices" not in str(documents)
    assert one(documents, "Service")["metadata"]["name"] == "test-lora-router"


@pytest.mark.parametrize("asked", [False, True])
def test_over_tls_peers_trust_the_authority_of_the_routers_own_certificate(
    asked: bool, tmp_path: Path
) -> None:
    tls = {**TLS["tls"], "requireClientCertificate": asked}
    settings = in_force(render({"tls": tls}, namespace="routers"), tmp_path)

    assert str(settings.peer_tls_ca_file) == "/etc/lora-router-tls/ca.crt"
    # The certificate has the name of the Service that Envoy calls, not that of the peers.
    assert settings.peer_tls_server_name == "test-lora-router.routers.svc"


def test_the_name_in_the_certificate_can_be_given(tmp_path: Path) -> None:
    settings = in_force(render({"tls": {**TLS["tls"], "hostname": "router.test"}}), tmp_path)
    assert settings.peer_tls_server_name == "router.test"


def test_names_of_objects_stay_within_63_characters() -> None:
    documents = render({"fullnameOverride": "r" * 63})

    service = one(documents, "Service", "-peers")["metadata"]["name"]
    assert len(service) <= 63
    assert router_settings(documents)["peer_service"] == f"models/{service}"


def test_prometheus_scrapes_each_router_once() -> None:
    documents = render({"serviceMonitor": {"enabled": True}})

    selector = one(documents, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    chosen = [
        each["metadata"]["name"]
        for each in documents
        if each["kind"] == "Service" and selector.items() <= each["metadata"]["labels"].items()
    ]
    assert chosen == ["test-lora-router"]
