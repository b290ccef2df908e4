"""The bootstrap that ``envoy-config`` prints. Integration tests run it in a real Envoy."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from lora_router.config.settings import Settings
from lora_router.envoy.bootstrap import bootstrap_json, bootstrap_yaml
from tests.envoy import BINARY


def document(**settings: object) -> dict[str, object]:
    loaded: dict[str, object] = json.loads(bootstrap_json(Settings.model_validate(settings)))
    return loaded


def dig(value: object, *path: str | int) -> object:
    for key in path:
        value = value[key]  # type: ignore[index]
    return value


pytestmark = pytest.mark.envoy

MANAGER = ("static_resources", "listeners", 0, "filter_chains", 0, "filters", 0, "typed_config")
EXT_PROC = (*MANAGER, "http_filters", 0, "typed_config")
ACCESS_LOG = (*MANAGER, "access_log", 0)
FIELDS = ("typed_config", "log_format", "json_format")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"envoy_router_address": "router.svc.cluster.local:50052", "max_hold_seconds": 0},
        {"envoy_router_address": "[::1]:50052", "envoy_listen_host": "::"},
        {"envoy_router_address": "10.0.0.1:50052,10.0.0.2:50052,routers.svc:50052"},
        {"fallbacks": 0, "envoy_pods": "original-dst"},
        {"fallbacks": 3, "envoy_pods": "override-host"},
        {"target_pod_header": "x-pod", "destination_header": "x-to"},
        {"path_prefixes": "/llm,/eu-1/a.b/,/~+x"},
        {"path_prefixes": "/llm,/eu-1/a.b/,/~+x", "envoy_body_mode": "full-duplex"},
        {"path_prefixes": "/llm", "envoy_body_mode": "streamed", "tokens": "on"},
        {"max_hold_seconds": 3595, "envoy_message_timeout_seconds": 3600},
        {"first_use_seconds": 3595, "adapter_sources": ["s3://lora"]},
        {"envoy_message_timeout_seconds": 0.001, "envoy_pod_idle_seconds": 0.001},
    ],
    ids=str,
)
def test_envoy_accepts_it(tmp_path: Path, settings: dict[str, object]) -> None:
    text = bootstrap_yaml(Settings.model_validate(settings))
    assert rejection(tmp_path / "e.yaml", text) == ""


def test_envoy_accepts_it_as_json(tmp_path: Path) -> None:
    assert rejection(tmp_path / "e.json", bootstrap_json(Settings.model_validate({}))) == ""


@pytest.mark.parametrize("fail_open", [True, False], ids=["open", "closed"])
@pytest.mark.parametrize("pods", ["override-host", "original-dst"])
@pytest.mark.parametrize("mode", ["buffered", "streamed", "full-duplex"])
def test_envoy_accepts_every_kind(tmp_path: Path, mode: str, pods: str, fail_open: bool) -> None:
    values = {"envoy_body_mode": mode, "envoy_pods": pods, "envoy_fail_open": fail_open}
    text = bootstrap_yaml(Settings.model_validate(values))

    assert rejection(tmp_path / "e.yaml", text) == ""


def rejection(file: Path, text: str) -> str:
    """Return why Envoy rejects a bootstrap; empty: it accepts it, and warns of nothing."""
    file.write_text(text)
    checked = subprocess.run(
        [BINARY, "--mode", "validate", "-c", file, "-l", "warning"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return checked.stderr if checked.returncode or "deprecated" in checked.stderr else ""


def test_what_chooses_an_address_is_removed_before_any_filter_runs() -> None:
    made = document(target_pod_header="x-pod", destination_header="x-to", pool_header="x-pool")

    mutations = dig(
        made, *MANAGER, "early_header_mutation_extensions", 0, "typed_config", "mutations"
    )

    removed = {mutation["remove"] for mutation in mutations}  # type: ignore[attr-defined]
    assert removed == {"x-pod", "x-to", "x-pool", "model", "x-envoy-original-dst-host"}


def test_it_fails_open_unless_it_must_not() -> None:
    assert dig(document(), *EXT_PROC, "failure_mode_allow") is True
    closed = document(envoy_fail_open=False)
    assert "failure_mode_allow" not in dig(closed, *EXT_PROC)  # type: ignore[operator]


@pytest.mark.parametrize("mode", ["streamed", "full-duplex"])
def test_it_fails_closed_where_envoy_has_not_the_whole_body(mode: str) -> None:
    closed = document(envoy_body_mode=mode)
    assert "failure_mode_allow" not in dig(closed, *EXT_PROC)  # type: ignore[operator]


def test_envoy_waits_longer_than_a_hold() -> None:
    made = document(max_hold_seconds=60, envoy_message_timeout_seconds=1.5)

    assert dig(made, *EXT_PROC, "message_timeout") == "1.500s"
    assert dig(made, *EXT_PROC, "max_message_timeout") == "65s"


@pytest.mark.parametrize("mode", ["buffered", "streamed", "full-duplex"])
def test_the_router_sees_how_each_answer_begins_and_when_it_ends(mode: str) -> None:
    made = document(envoy_body_mode=mode)

    processing = dig(made, *EXT_PROC, "processing_mode")
    assert dig(processing, "response_header_mode") == "SEND"
    assert dig(processing, "response_trailer_mode") == "SEND"
    assert "response_body_mode" not in processing  # type: ignore[operator]
    attributes = dig(made, *EXT_PROC, "response_attributes")
    assert attributes == ["upstream.address", "response.code", "response.code_details"]


def read_paths(**settings: object) -> set[object]:
    """The paths of which Envoy sends all answers to the router."""
    routes = dig(document(**settings), *MANAGER, "route_config", "virtual_hosts", 0, "routes")
    return {
        dig(each, "match", "path_separated_prefix")
        for each in routes  # type: ignore[attr-defined]
        if "typed_per_filter_config" in each
    }


@pytest.mark.parametrize("mode", ["streamed", "full-duplex"])
def test_answers_that_state_tokens_reach_the_router_where_it_cannot_ask_for_them(mode: str) -> None:
    assert "/v1/responses" in read_paths(envoy_body_mode=mode)
    assert "/v1/messages" not in read_paths(envoy_body_mode=mode)

    paths = read_paths(envoy_body_mode=mode, tokens="on", paths={"/mine": "routed"})

    assert {"/v1/responses", "/v1/messages", "/v1/chat/completions", "/mine"} <= paths
    assert not paths & {"/tokenize", "/v1/models", "/health"}


def test_the_router_asks_for_answers_where_it_can() -> None:
    assert read_paths(tokens="on") == set()


def test_several_routers_are_one_cluster() -> None:
    made = document(envoy_router_address="10.0.0.1:50052, [::1]:50053")
    cluster = dig(made, "static_resources", "clusters", 0)

    listed = dig(cluster, "load_assignment", "endpoints", 0, "lb_endpoints")
    addresses = [
        dig(each, "endpoint", "address", "socket_address")
        for each in listed  # type: ignore[attr-defined]
    ]
    assert addresses == [
        {"address": "10.0.0.1", "port_value": 50052},
        {"address": "::1", "port_value": 50053},
    ]
    assert dig(cluster, "health_checks", 0, "no_traffic_interval") == "1s"


def test_an_address_of_several_workers_gets_several_connections_and_is_not_taken_out() -> None:
    cluster = dig(document(workers=2), "static_resources", "clusters", 0)
    options = dig(cluster, "typed_extension_protocol_options")
    (http,) = options.values()  # type: ignore[attr-defined]
    http2 = dig(http, "explicit_http_config", "http2_protocol_options")

    assert dig(http2, "max_concurrent_streams") == 25
    assert "outlier_detection" not in cluster  # type: ignore[operator]


def test_of_several_addresses_with_workers_one_is_taken_out_for_a_moment_only() -> None:
    made = document(workers=2, envoy_router_address="10.0.0.1:50052, 10.0.0.2:50052")
    detection = dig(made, "static_resources", "clusters", 0, "outlier_detection")

    assert dig(detection, "base_ejection_time") == "0.250s"
    assert dig(detection, "interval") == "0.250s"


def test_only_requests_that_no_pod_has_seen_are_sent_again() -> None:
    made = document()
    route = dig(made, *MANAGER, "route_config", "virtual_hosts", 0, "routes", 0, "route")

    retried = str(dig(route, "retry_policy", "retry_on")).split(",")
    assert set(retried) == {"connect-failure", "refused-stream", "reset-before-request"}


@pytest.mark.parametrize("pods", ["original-dst", "override-host"])
def test_idle_connections_to_pods_are_closed_before_the_pods_do_it(pods: str) -> None:
    made = document(envoy_pod_idle_seconds=2.5, envoy_pods=pods)
    options = dig(
        made, "static_resources", "clusters", 1, "typed_extension_protocol_options"
    ).popitem()[1]  # type: ignore[attr-defined]

    assert dig(options, "common_http_protocol_options", "idle_timeout") == "2.500s"


def test_memory_and_connections_of_envoy_are_bounded() -> None:
    made = document(envoy_max_connections=7, envoy_max_heap_bytes=100_000_000)

    monitors = ("overload_manager", "resource_monitors")
    assert dig(made, *monitors, 0, "typed_config", "max_heap_size_bytes") == "100000000"
    assert dig(made, *monitors, 1, "typed_config", "max_active_downstream_connections") == "7"
    assert dig(made, "admin", "ignore_global_conn_limit") is True


def test_nothing_bounds_the_requests_in_flight_by_accident() -> None:
    for cluster in dig(document(), "static_resources", "clusters"):  # type: ignore[attr-defined]
        (threshold,) = cluster["circuit_breakers"]["thresholds"]
        assert threshold["max_requests"] == 2**31 - 1
    route = dig(document(), *MANAGER, "route_config", "virtual_hosts", 0, "routes", 0, "route")
    assert dig(route, "timeout") == "0s"
    assert dig(document(), *MANAGER, "stream_idle_timeout") == "0s"


def test_bodies_that_the_router_must_judge_reach_it_and_fit_into_a_message() -> None:
    listener = ("static_resources", "listeners", 0, "per_connection_buffer_limit_bytes")

    assert dig(document(), *listener) == 33 * 1024 * 1024
    tight = document(grpc_max_message_size_bytes=1_000_000)
    assert 1_000_000 - 65_536 < int(str(dig(tight, *listener))) < 1_000_000


@pytest.mark.parametrize(
    "settings", [{}, {"path_prefixes": "/eu-1/a.b/,/~+x", "envoy_body_mode": "full-duplex"}]
)
def test_yaml_and_json_say_the_same(settings: dict[str, object]) -> None:
    loaded = Settings.model_validate(settings)

    assert json.loads(bootstrap_json(loaded)) == yaml.safe_load(bootstrap_yaml(loaded))


def test_without_a_router_that_leads_envoy_asks_any() -> None:
    def threshold(**settings: object) -> object:
        clusters = dig(document(**settings), "static_resources", "clusters")
        assert isinstance(clusters, list)
        [cluster] = [each for each in clusters if each["name"] == "lora-router"]
        return dig(cluster, "common_lb_config", "healthy_panic_threshold").get("value", 0)  # type: ignore[attr-defined]

    lease = {"replication": "lease", "peers": "a:1", "grpc_host": "127.0.0.1"}
    assert threshold(envoy_fail_open=True) == 0
    assert threshold(envoy_fail_open=False) == 1
    assert threshold(envoy_fail_open=True, **lease) == 1


def test_each_error_of_envoy_has_anthropics_shape_on_anthropics_paths() -> None:
    mappers = dig(document(path_prefixes=["/llm"]), *MANAGER, "local_reply_config", "mappers")
    assert isinstance(mappers, list)
    for anthropic, other in zip(mappers[::2], mappers[1::2], strict=True):
        by_path, match = anthropic["filter"]["and_filter"]["filters"]
        assert match == other["filter"]
        pattern = dig(by_path, "header_filter", "header", "string_match", "safe_regex", "regex")
        assert isinstance(pattern, str)
        for path in ("/v1/messages", "/llm/v1/messages/", "/v1/messages/count_tokens?beta=true"):
            assert re.fullmatch(pattern, path)
        for path in ("/v1/chat/completions", "/v1/messagesx", "/other/v1/messages"):
            assert not re.fullmatch(pattern, path)
        assert anthropic.get("status_code") == other.get("status_code")
        document_of = ("body_format_override", "json_format")
        assert set(dig(anthropic, *document_of)) == {"type", "error"}  # type: ignore[call-overload]
        assert set(dig(other, *document_of)) == {"error"}  # type: ignore[call-overload]


def test_envoy_leaves_it_to_the_router_to_refuse_many_headers() -> None:
    limit = (*MANAGER, "common_http_protocol_options", "max_headers_count")

    assert dig(document(), *limit) == 1000
    assert dig(document(gateway_max_headers=5000), *limit) == 5000


@pytest.mark.parametrize("mode", ["buffered", "streamed", "full-duplex"])
def test_envoy_removes_the_prefixes_of_the_settings_the_longest_first(mode: str) -> None:
    made = document(path_prefixes="/,/llm,/llm/eu-1/", envoy_body_mode=mode)

    routes = dig(made, *MANAGER, "route_config", "virtual_hosts", 0, "routes")
    assert isinstance(routes, list)
    for route in routes:
        path = route["match"].get("path_separated_prefix", "/")
        prefix = next((each for each in ("/llm/eu-1", "/llm") if path.startswith(each)), "")
        rewrite = route["route"].get("regex_rewrite")
        assert (rewrite is not None) == bool(prefix)
        if rewrite is not None:
            sent = re.sub(rewrite["pattern"]["regex"], rewrite["substitution"], f"{prefix}/v1/x")
            assert sent == "/v1/x"
    last = [dict(route["match"]) for route in routes[-3:]]
    assert last == [
        {"path_separated_prefix": "/llm/eu-1"},
        {"path_separated_prefix": "/llm"},
        {"prefix": "/"},
    ]


class TestAccessLog:
    def test_a_line_has_the_decision_beside_status_and_times(self) -> None:
        printed = document(model_header="x-model")

        assert dig(printed, *ACCESS_LOG, "name") == "envoy.access_loggers.stdout"
        fields = dig(printed, *ACCESS_LOG, *FIELDS)
        assert isinstance(fields, dict)
        assert fields["pod"] == "%DYNAMIC_METADATA(io.lora_router:pod)%"
        assert fields["held_ms"] == "%DYNAMIC_METADATA(io.lora_router:held_ms)%"
        assert fields["model"] == "%REQ(x-model)%"
        assert {"status", "duration", "response_duration", "request_id"} <= set(fields)

    def test_no_query_is_logged(self) -> None:
        assert dig(document(), *ACCESS_LOG, *FIELDS, "path") == "%PATH(NQ)%"

    def test_it_can_be_switched_off(self) -> None:
        manager = dig(document(envoy_access_log="off"), *MANAGER)

        assert isinstance(manager, dict)
        assert not manager.get("access_log")

    def test_the_routers_metadata_are_accepted(self) -> None:
        accepted = dig(document(), *EXT_PROC, "metadata_options", "receiving_namespaces", "untyped")

        assert accepted == ["envoy.lb", "io.lora_router"]
