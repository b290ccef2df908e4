"""The bootstrap that ``envoy-config`` prints. Integration tests run it in a real Envoy."""

import subprocess
from pathlib import Path

import pytest
import yaml

from lora_router.config.settings import Settings
from lora_router.envoy.bootstrap import bootstrap_json, bootstrap_yaml
from tests.envoy import BINARY


def document(**settings: object) -> dict[str, object]:
    loaded: dict[str, object] = yaml.safe_load(bootstrap_yaml(Settings.model_validate(settings)))
    return loaded


def dig(value: object, *path: str | int) -> object:
    for key in path:
        value = value[key]  # type: ignore[index]
    return value


pytestmark = pytest.mark.envoy

MANAGER = ("static_resources", "listeners", 0, "filter_chains", 0, "filters", 0, "typed_config")
EXT_PROC = (*MANAGER, "http_filters", 0, "typed_config")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"envoy_body_mode": "streamed"},
        {"envoy_body_mode": "full-duplex"},
        {"envoy_router_address": "router.svc.cluster.local:50052", "max_hold_seconds": 0},
        {"envoy_router_address": "[::1]:50052", "envoy_listen_host": "::"},
        {"target_pod_header": "x-pod", "destination_header": "x-to"},
    ],
    ids=str,
)
def test_envoy_accepts_it(tmp_path: Path, settings: dict[str, object]) -> None:
    loaded = Settings.model_validate(settings)
    for name, text in (("e.yaml", bootstrap_yaml(loaded)), ("e.json", bootstrap_json(loaded))):
        file = tmp_path / name
        file.write_text(text)
        checked = subprocess.run(
            [BINARY, "--mode", "validate", "-c", file, "-l", "warning"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert checked.returncode == 0, checked.stderr


def test_what_chooses_an_address_is_removed_before_any_filter_runs() -> None:
    made = document(target_pod_header="x-pod", destination_header="x-to")

    mutations = dig(
        made, *MANAGER, "early_header_mutation_extensions", 0, "typed_config", "mutations"
    )

    removed = {mutation["remove"] for mutation in mutations}  # type: ignore[attr-defined]
    assert removed == {"x-pod", "x-to", "model", "x-envoy-original-dst-host"}


def test_it_fails_closed_and_waits_longer_than_a_hold() -> None:
    made = document(max_hold_seconds=60, envoy_message_timeout_seconds=1.5)

    assert "failure_mode_allow" not in dig(made, *EXT_PROC)  # type: ignore[operator]
    assert dig(made, *EXT_PROC, "message_timeout") == "1.500s"
    assert dig(made, *EXT_PROC, "max_message_timeout") == "65s"


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


def test_yaml_and_json_say_the_same() -> None:
    settings = Settings()

    assert yaml.safe_load(bootstrap_json(settings)) == yaml.safe_load(bootstrap_yaml(settings))
