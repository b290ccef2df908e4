"""Which carrier, which router leads and how many workers, rendered with the real Helm engine."""

from pathlib import Path

import pytest

from tests.chart.rendering import Document, one, render, secrets
from tests.chart.test_network_policy import policy, rules_with
from tests.chart.test_values import (
    behind_envoy_gateway,
    in_force,
    pod_template,
    router,
    with_mode,
)

REDIS = {"peering": {"redis": {"secretName": "redis"}}}
LEASE = {"replication": "lease"}


def environment(documents: list[Document]) -> dict[str, Document]:
    return {each["name"]: each for each in router(documents)["env"]}


def names(documents: list[Document], kind: str) -> list[str]:
    return [each["metadata"]["name"] for each in documents if each["kind"] == kind]


def test_a_redis_takes_the_place_of_streams_between_routers(tmp_path: Path) -> None:
    documents = render(REDIS)

    address = environment(documents)["LORA_ROUTER_PEERING"]
    assert address["valueFrom"] == {"secretKeyRef": {"name": "redis", "key": "url"}}
    assert names(documents, "Service") == ["test-lora-router"]
    assert names(documents, "Role") == ["test-lora-router"]
    settings = in_force(documents, tmp_path)
    assert settings.peer_service is None
    assert settings.peer_secret_file is not None


def test_releases_that_use_the_same_redis_are_different_fleets(tmp_path: Path) -> None:
    prefixes = {
        in_force(render(REDIS, namespace=place), tmp_path).peering_prefix for place in ("a", "b")
    }
    assert len(prefixes) == 2


def test_a_redis_over_tls_is_trusted_by_its_own_authority(tmp_path: Path) -> None:
    tls = {"tls": {"secretName": "router-tls"}}
    own = in_force(render({**REDIS, **tls}), tmp_path)
    assert own.peer_tls_ca_file is None

    given = {"peering": {"redis": {"secretName": "redis", "caConfigMapName": "ca"}}}
    documents = render({**given, **tls})
    settings = in_force(documents, tmp_path)
    [mount] = [each for each in router(documents)["volumeMounts"] if each["name"] == "redis"]
    assert str(settings.peer_tls_ca_file) == f"{mount['mountPath']}/ca.crt"
    [volume] = [
        each for each in pod_template(documents)["spec"]["volumes"] if each["name"] == "redis"
    ]
    assert volume["configMap"] == {"name": "ca"}


def test_a_network_policy_opens_the_way_to_the_redis_and_closes_that_to_routers() -> None:
    values = {**REDIS, "networkPolicy": {"enabled": True}}
    rules = policy(render(values))["egress"]
    assert len(rules_with(rules, 6379)) == 1
    assert rules_with(rules, 50052) == []


def test_with_a_lease_the_router_holds_one_of_the_releases_name(tmp_path: Path) -> None:
    documents = render(LEASE)

    settings = in_force(documents, tmp_path)
    assert settings.replication == "lease"
    role = one(documents, "Role", "-lease")
    create, hold = role["rules"]
    assert create == {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["create"],
    }
    assert hold["resourceNames"] == [settings.lease_name]
    assert hold["verbs"] == ["get", "update", "watch"]
    assert one(documents, "RoleBinding", "-lease")["roleRef"]["name"] == role["metadata"]["name"]


@pytest.mark.parametrize("tls", [{}, {"tls": {"secretName": "router-tls"}}])
def test_a_standby_that_could_lead_is_ready_for_kubernetes(tls: dict[str, object]) -> None:
    documents = render({**LEASE, **tls})

    probe = router(documents)["readinessProbe"]["httpGet"]
    assert probe == {"path": "/readyz?exclude=leader", "port": "admin"}
    arguments = one(documents, "Pod")["spec"]["containers"][0]["args"]
    assert arguments[-1].endswith("/readyz?exclude=leader")
    assert "--grpc" not in arguments


def test_a_leader_leaves_at_once_and_serves_while_envoys_notice(tmp_path: Path) -> None:
    documents = render({**LEASE, "drain": {"delaySeconds": 7, "timeoutSeconds": 40}})

    assert "lifecycle" not in router(documents)
    assert in_force(documents, tmp_path).drain_delay_seconds == 7
    grace = pod_template(documents)["spec"]["terminationGracePeriodSeconds"]
    assert grace == 7 + 40 + 10


def test_without_a_leader_envoy_asks_any_router() -> None:
    [processor] = one(render(LEASE | behind_envoy_gateway()), "EnvoyExtensionPolicy")["spec"][
        "extProc"
    ]
    assert processor["failOpen"] is True
    assert processor["backendSettings"]["healthCheck"]["panicThreshold"] == 1


def test_without_a_lease_nothing_of_it_is_installed(tmp_path: Path) -> None:
    documents = render(with_mode("none"))

    assert "leases" not in str(documents)
    assert in_force(documents, tmp_path).replication == "active-active"


@pytest.mark.parametrize("peering", [True, False])
@pytest.mark.parametrize("workers", [1, 4])
def test_workers_are_what_the_router_is_told(workers: int, peering: bool, tmp_path: Path) -> None:
    documents = render({"workers": workers, "peering": {"enabled": peering}})
    settings = in_force(documents, tmp_path)
    assert (settings.workers, settings.has_peers) == (workers, peering)


@pytest.mark.parametrize("values", [{"replicas": 7}, {**REDIS, "replicas": 31}])
def test_as_many_pods_as_a_rollout_has_peers_for(values: dict[str, object], tmp_path: Path) -> None:
    assert in_force(render({"workers": 4} | values), tmp_path).workers == 4


@pytest.mark.parametrize("replicas", [1, 2])
def test_envoy_spreads_over_workers_and_keeps_an_address_of_which_one_died(replicas: int) -> None:
    values = {"workers": 2, "replicas": replicas, "peering": {"enabled": False}}
    [processor] = one(render(values | behind_envoy_gateway()), "EnvoyExtensionPolicy")["spec"][
        "extProc"
    ]

    settings = processor["backendSettings"]
    assert settings["http2"]["maxConcurrentStreams"] == 25
    passive = settings["healthCheck"].get("passive")
    if replicas == 1:
        assert passive is None
    else:
        assert (passive["interval"], passive["baseEjectionTime"]) == ("250ms", "250ms")


def test_a_key_is_mounted_only_where_there_are_peers() -> None:
    assert "peers" in secrets(render(REDIS))
    assert "peers" not in secrets(render({"workers": 2, "peering": {"enabled": False}}))
