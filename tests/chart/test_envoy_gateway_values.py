"""The effect of the values below ``gateway.envoyGateway``, rendered with the real Helm engine."""

from pathlib import Path
from typing import Any

import pytest

from lora_router.config.settings import Settings
from lora_router.envoy.access_log import log_fields
from lora_router.envoy.bootstrap import bootstrap
from tests.chart.rendering import Document, kinds, one, render, router_settings
from tests.chart.test_values import behind_envoy_gateway, in_force, with_mode

LLAMA = {"name": "llama", "port": 8000, "model": "llama-3-8b"}
QWEN = {"name": "qwen", "port": 80, "model": "qwen"}
FAR = {"name": "llama", "namespace": "far", "port": 8000}
BOTH = {"discovery": {"namespaces": ["models", "far"]}}


def rules(documents: list[Document]) -> list[Document]:
    found: list[Document] = one(documents, "HTTPRoute")["spec"]["rules"]
    return found


def processor(documents: list[Document]) -> Document:
    [found] = one(documents, "EnvoyExtensionPolicy")["spec"]["extProc"]
    return dict(found)


def seconds(duration: str) -> float:
    if duration.endswith("ms"):
        return float(duration.removesuffix("ms")) / 1000
    return float(duration.removesuffix("s"))


def test_no_feature_of_envoy_gateway_has_to_be_switched_on() -> None:
    installed = set(kinds(render(behind_envoy_gateway()))) - set(kinds(render()))

    assert installed == {
        "BackendTrafficPolicy",
        "ClientTrafficPolicy",
        "EnvoyExtensionPolicy",
        "HTTPRoute",
    }
    assert "EnvoyPatchPolicy" in kinds(render(behind_envoy_gateway(destination="original-dst")))


def test_envoy_reads_the_pod_and_the_fallbacks_where_the_router_writes_them(
    tmp_path: Path,
) -> None:
    documents = render(behind_envoy_gateway() | {"settings": {"destination_header": "x-to"}})

    policy = one(documents, "BackendTrafficPolicy")["spec"]
    assert policy["loadBalancer"]["endpointOverride"] == {"extractFrom": [{"header": "x-to"}]}
    settings = in_force(documents, tmp_path)
    assert settings.destination_header == "x-to"
    assert policy["retry"]["numRetries"] == settings.fallbacks


@pytest.mark.parametrize("destination", ["endpoint-override", "original-dst"])
def test_a_rate_limit_is_part_of_the_policy_of_the_route(destination: str) -> None:
    limit = {"type": "Global", "global": {"rules": [{"limit": {"requests": 9, "unit": "Hour"}}]}}

    without = render(behind_envoy_gateway(destination=destination))
    documents = render(behind_envoy_gateway(destination=destination, rateLimit=limit))

    policy = one(documents, "BackendTrafficPolicy")["spec"]
    assert policy.pop("rateLimit") == limit
    assert policy == one(without, "BackendTrafficPolicy")["spec"]


@pytest.mark.parametrize(("given", "tokens"), [(True, "on"), ("all", "all"), (False, "off")])
def test_a_switch_is_what_yaml_reads_it_as(given: object, tokens: str, tmp_path: Path) -> None:
    documents = render(behind_envoy_gateway() | {"settings": {"tokens": given}})

    assert in_force(documents, tmp_path).tokens == tokens
    [metadata] = [processor(documents)["metadata"]]
    assert "io.lora_router" in metadata["writableNamespaces"]


@pytest.mark.parametrize("tokens", ["off", "on", "all"])
def test_the_access_log_has_what_the_printed_one_has_with_tokens(tokens: str) -> None:
    values = behind_envoy_gateway(createGateway=True, accessLog=True)

    documents = render(values | {"settings": {"tokens": tokens}})

    [setting] = one(documents, "EnvoyProxy")["spec"]["telemetry"]["accessLog"]["settings"]
    assert setting["format"]["json"] == log_fields(Settings.model_validate({"tokens": tokens}))


@pytest.mark.parametrize("fallbacks", [0, 2])
def test_there_are_as_many_retries_as_fallbacks(fallbacks: int) -> None:
    documents = render(behind_envoy_gateway() | {"settings": {"fallbacks": fallbacks}})
    assert one(documents, "BackendTrafficPolicy")["spec"]["retry"]["numRetries"] == fallbacks


def test_no_retry_follows_anything_that_a_pod_has_seen() -> None:
    for destination in ("endpoint-override", "original-dst"):
        documents = render(behind_envoy_gateway(destination=destination))
        retry = one(documents, "BackendTrafficPolicy")["spec"]["retry"]
        assert retry["retryOn"] == {
            "triggers": ["connect-failure", "refused-stream", "reset-before-request"]
        }


def test_one_service_is_named_by_one_rule(tmp_path: Path) -> None:
    documents = render(behind_envoy_gateway(backends=[LLAMA]))

    [rule] = rules(documents)
    assert rule["backendRefs"] == [{"name": "llama", "port": 8000}]
    assert in_force(documents, tmp_path).pool_header is None


def test_each_of_several_services_has_a_rule_for_the_routers_header(tmp_path: Path) -> None:
    documents = render(behind_envoy_gateway(backends=[LLAMA, QWEN, FAR]) | BOTH)

    *chosen, rest = rules(documents)
    headers = [match["headers"] for rule in chosen for match in rule["matches"]]
    assert headers == [
        [{"type": "Exact", "name": "x-lora-router-pool", "value": "models/llama-3-8b"}],
        [{"type": "Exact", "name": "x-lora-router-pool", "value": "models/qwen"}],
        [{"type": "RegularExpression", "name": "x-lora-router-pool", "value": "far/.*"}],
    ]
    assert [rule["backendRefs"] for rule in chosen] == [
        [{"name": "llama", "port": 8000}],
        [{"name": "qwen", "port": 80}],
        [{"name": "llama", "namespace": "far", "port": 8000}],
    ]
    assert rest["backendRefs"] == [
        reference for rule in chosen for reference in rule["backendRefs"]
    ]
    assert in_force(documents, tmp_path).pool_header == "x-lora-router-pool"


def test_a_client_cannot_choose_among_the_services(tmp_path: Path) -> None:
    values = behind_envoy_gateway(backends=[LLAMA, QWEN]) | {"settings": {"pool_header": "x-pool"}}
    documents = render(values)

    headers = one(documents, "ClientTrafficPolicy")["spec"]["headers"]
    assert "x-pool" in headers["earlyRequestHeaders"]["remove"]
    assert in_force(documents, tmp_path).pool_header == "x-pool"


def test_another_namespace_allows_the_route_where_that_is_asked_for() -> None:
    assert "ReferenceGrant" not in kinds(render(behind_envoy_gateway(backends=[FAR]) | BOTH))

    granted = [{**FAR, "referenceGrant": True}, {**LLAMA, "referenceGrant": True}]
    grant = one(render(behind_envoy_gateway(backends=granted) | BOTH), "ReferenceGrant")
    assert grant["metadata"]["namespace"] == "far"
    assert grant["spec"] == {
        "from": [
            {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "models"}
        ],
        "to": [{"group": "", "kind": "Service", "name": "llama"}],
    }


def test_a_service_can_be_created_over_the_pods_that_the_router_sees() -> None:
    selected = {"selector": "model.aibrix.ai/name=llama, tier == gpu", "port": 8001}
    documents = render(
        behind_envoy_gateway(backends=[], createService=True) | {"discovery": selected}
    )

    [created] = [
        each
        for each in documents
        if each["kind"] == "Service" and each["metadata"]["name"].endswith("-pods")
    ]
    assert created["spec"]["selector"] == {"model.aibrix.ai/name": "llama", "tier": "gpu"}
    [port] = created["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (8001, 8001)
    assert rules(documents)[0]["backendRefs"] == [
        {"name": created["metadata"]["name"], "port": 8001}
    ]
    assert router_settings(documents)["kubernetes_selector"] == selected["selector"]


def test_a_created_service_follows_settings_that_override_values() -> None:
    settings = {"kubernetes_selector": "app=vllm", "kubernetes_port": 9000}
    documents = render(
        behind_envoy_gateway(backends=[], createService=True) | {"settings": settings}
    )

    [created] = [each for each in documents if "-pods" in each["metadata"]["name"]]
    assert created["spec"]["selector"] == {"app": "vllm"}
    assert created["spec"]["ports"][0]["targetPort"] == 9000
    assert rules(documents)[0]["backendRefs"][0]["port"] == 9000


def test_a_service_is_created_in_each_namespace_and_may_be_named_by_the_route() -> None:
    discovery = {"selector": "app=vllm", "namespaces": ["models", "far"]}
    documents = render(
        behind_envoy_gateway(backends=[], createService=True) | {"discovery": discovery}
    )

    created = [each["metadata"] for each in documents if each["kind"] == "Service"]
    services = {
        each["namespace"]: each["name"] for each in created if each["name"].endswith("-pods")
    }
    assert list(services) == ["models", "far"]
    named = {ref.get("namespace", "models"): ref["name"] for ref in destinations(documents)}
    assert named == services
    grant = one(documents, "ReferenceGrant")
    assert grant["metadata"]["namespace"] == "far"
    assert grant["spec"]["to"][0]["name"] == services["far"]


def destinations(documents: list[Document]) -> list[dict[str, Any]]:
    return [ref for rule in rules(documents) for ref in rule["backendRefs"]]


def test_two_releases_of_one_name_share_no_object() -> None:
    """They are in two namespaces, and both have objects in the Gateway's and that of the pods."""
    values = behind_envoy_gateway(backends=[], createService=True, gatewayNamespace="infra")
    values["discovery"] = {"selector": "app=vllm", "namespaces": ["models"]}

    blue, green = (
        {
            (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
            for each in render(values, namespace=namespace)
        }
        for namespace in ("blue", "green")
    )

    assert not blue & green


@pytest.mark.parametrize(
    ("changes", "open_"),
    [
        ({}, True),
        ({"failOpen": False}, False),
        ({"createClientTrafficPolicy": False}, True),
        ({"destination": "original-dst"}, False),
        ({"destination": "original-dst", "failOpen": True}, True),
    ],
)
def test_it_fails_open_where_no_client_can_choose_an_address(
    changes: dict[str, object], open_: bool
) -> None:
    called = processor(render(behind_envoy_gateway(**changes)))

    assert called["failOpen"] is open_
    assert called["backendSettings"]["healthCheck"]["panicThreshold"] == (0 if open_ else 1)


def test_failed_connections_take_a_router_out_and_answers_do_not() -> None:
    tls = {"secretName": "router-tls", "caConfigMapName": "ca"}
    for values in (behind_envoy_gateway(), {**behind_envoy_gateway(), "tls": tls}):
        check = processor(render(values))["backendSettings"]["healthCheck"]
        assert check["passive"]["splitExternalLocalOriginErrors"] is True
        assert check["passive"]["consecutiveLocalOriginFailures"] == 2
        assert check["passive"]["consecutive5XxErrors"] == 2147483647
        # Envoy's gRPC health checks do not negotiate HTTP/2 over Envoy Gateway's TLS.
        assert ("active" in check) is ("tls" not in values)


@pytest.mark.parametrize("destination", ["endpoint-override", "original-dst"])
def test_responses_are_seen(destination: str) -> None:
    mode = processor(render(behind_envoy_gateway(destination=destination)))["processingMode"]

    assert mode["request"] == {"body": "Buffered"}
    assert mode["response"] == {
        "attributes": ["upstream.address", "response.code", "response.code_details"]
    }


def test_envoy_gateway_strips_what_clients_must_not_set(tmp_path: Path) -> None:
    values = behind_envoy_gateway(destination="original-dst")
    documents = render(values | {"settings": {"target_pod_header": "x-pod"}})
    settings = in_force(documents, tmp_path)

    removed = one(documents, "ClientTrafficPolicy")["spec"]["headers"]["earlyRequestHeaders"]
    assert removed["remove"] == [
        settings.target_pod_header,
        settings.destination_header,
        settings.model_header,
        "x-envoy-original-dst-host",
    ]
    cluster, *_ = one(documents, "EnvoyPatchPolicy")["spec"]["jsonPatches"]
    config = cluster["operation"]["value"]["original_dst_lb_config"]
    assert config == {"use_http_header": True, "http_header_name": "x-pod"}


def test_a_gateway_of_ours_takes_routes_of_the_release_alone() -> None:
    def allowed(**changes: object) -> object:
        values = behind_envoy_gateway(createGateway=True, **changes)
        [listener] = one(render(values), "Gateway")["spec"]["listeners"]
        return listener["allowedRoutes"]["namespaces"]

    assert allowed() == {"from": "Same"}
    assert allowed(gatewayNamespace="gateways") == {
        "from": "Selector",
        "selector": {"matchLabels": {"kubernetes.io/metadata.name": "models"}},
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_body_bytes": 1048576},
        {"max_hold_seconds": 90.5},
        {"max_hold_seconds": 0},
        {"envoy_pod_idle_seconds": 0.25},
    ],
)
def test_envoy_gateway_has_the_limits_of_envoy_config(
    changes: dict[str, object], tmp_path: Path
) -> None:
    documents = render(behind_envoy_gateway() | {"settings": changes})
    settings = in_force(documents, tmp_path)
    ours = bootstrap(settings).static_resources
    assert ours is not None

    limit = one(documents, "ClientTrafficPolicy")["spec"]["connection"]["bufferLimit"]
    assert limit == ours.listeners[0].per_connection_buffer_limit_bytes
    # There is no max_message_timeout: the timeout has room for the longest hold.
    assert seconds(processor(documents)["messageTimeout"]) == settings.max_hold_seconds + 5
    times = one(documents, "BackendTrafficPolicy")["spec"]["timeout"]["http"]
    assert seconds(times["connectionIdleTimeout"]) == settings.envoy_pod_idle_seconds


@pytest.mark.parametrize(("settings", "hold"), [({}, "35s"), ({"max_hold_seconds": 90.5}, "96s")])
def test_any_address_has_room_for_the_longest_hold_in_the_patch(
    settings: dict[str, Any], hold: str
) -> None:
    documents = render(behind_envoy_gateway(destination="original-dst") | {"settings": settings})

    *_, held = one(documents, "EnvoyPatchPolicy")["spec"]["jsonPatches"]
    assert held["operation"]["path"] == "/typed_config/max_message_timeout"
    assert held["operation"]["value"] == hold
    assert processor(documents)["messageTimeout"] == "5s"


@pytest.mark.parametrize(
    ("timeout", "text"),
    [
        (5, "5s"),
        (0.25, "250ms"),
        (1.5, "1500ms"),
        (99.999, "99999ms"),
        (100.5, "100s500ms"),
        (3600, "3600s"),
        (0.0011, "2ms"),
    ],
)
def test_times_are_written_as_the_gateway_api_has_them(timeout: float, text: str) -> None:
    values = behind_envoy_gateway()
    values["gateway"]["messageTimeoutSeconds"] = timeout  # type: ignore[index]
    documents = render(values | {"settings": {"max_hold_seconds": 0}})
    assert processor(documents)["messageTimeout"] == text


@pytest.mark.parametrize(
    ("idle", "text"), [(86400, "86400s"), (0.001, "1ms"), (3000.25, "3000s250ms")]
)
def test_a_time_has_at_most_five_digits_in_a_row(idle: float, text: str) -> None:
    values = behind_envoy_gateway() | {"settings": {"envoy_pod_idle_seconds": idle}}
    timeout = one(render(values), "BackendTrafficPolicy")["spec"]["timeout"]
    assert timeout["http"]["connectionIdleTimeout"] == text


def test_other_modes_install_none_of_it() -> None:
    for mode in ("none", "sidecar"):
        installed = set(kinds(render(with_mode(mode))))
        assert not installed & {"HTTPRoute", "BackendTrafficPolicy", "EnvoyExtensionPolicy"}
