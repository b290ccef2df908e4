"""What several settings must agree on, and how a contradiction is reported."""

from pathlib import Path

import pytest

from lora_router.config.settings import Settings
from lora_router.config.sources import SettingsError, load_settings


def problem(
    environ: dict[str, str] | None = None,
    flags: dict[str, object] | None = None,
    file: Path | None = None,
) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(file=file, environ=environ or {}, flags=flags or {})
    return str(caught.value)


def test_each_contradiction_has_a_line_with_the_values_and_where_they_are_from(
    tmp_path: Path,
) -> None:
    file = tmp_path / "router.yaml"
    file.write_text("# ours\noutlier_max_ejection_seconds: 0.5\n")

    said = problem(
        {"LORA_ROUTER_GRPC_TLS_CERT_FILE": "/x"},
        {"target_pod_header": "model"},
        file,
    )

    assert said.splitlines() == [
        "grpc_tls_cert_file and grpc_tls_key_file: set both or neither "
        "(LORA_ROUTER_GRPC_TLS_CERT_FILE=/x)",
        "outlier_max_ejection_seconds: must be at least outlier_min_ejection_seconds, 1 "
        f"({file}: line 2: outlier_max_ejection_seconds: 0.5)",
        "two headers have the name 'model': all names must differ (--target-pod-header model)",
    ]


def test_a_secret_in_a_contradiction_is_not_shown() -> None:
    said = problem({"LORA_ROUTER_PEERING": "redis://:secret-word@h", "LORA_ROUTER_PEERS": "h:1"})

    assert "secret-word" not in said
    assert "(LORA_ROUTER_PEERING=(not shown); LORA_ROUTER_PEERS=h:1)" in said


@pytest.mark.parametrize("host", ["::", "0.0.0.0", "127.0.0.1", "::ffff:127.0.0.1"])
def test_envoy_cannot_listen_for_clients_on_its_admin_port(host: str) -> None:
    said = problem({"LORA_ROUTER_ENVOY_LISTEN_PORT": "9901", "LORA_ROUTER_ENVOY_LISTEN_HOST": host})

    assert said == (
        "envoy_listen_port and envoy_admin_port: both are 9901: they must differ "
        "(LORA_ROUTER_ENVOY_LISTEN_PORT=9901)"
    )


def test_envoy_may_have_one_port_on_two_addresses_and_any_port_twice() -> None:
    for values in (
        {"envoy_listen_host": "10.0.0.1", "envoy_listen_port": 9901},
        {"envoy_listen_port": 0, "envoy_admin_port": 0},
    ):
        Settings.model_validate(values)


def test_a_hold_is_refused_for_which_envoy_would_not_wait() -> None:
    said = problem({"LORA_ROUTER_MAX_HOLD_SECONDS": "3596", "LORA_ROUTER_FIRST_USE_SECONDS": "1e5"})

    assert said.splitlines() == [
        "LORA_ROUTER_MAX_HOLD_SECONDS=3596: must be seconds, from 0 to 3595",
        "LORA_ROUTER_FIRST_USE_SECONDS=1e5: must be seconds, from 0 to 3595",
    ]


def test_a_variable_may_have_one_spelling_only() -> None:
    said = problem({"LORA_ROUTER_GRPC_PORT": "1", "lora_router_grpc_port": "2"})

    assert said == (
        "LORA_ROUTER_GRPC_PORT and lora_router_grpc_port: two spellings of one variable, with "
        "different values: set one of them"
    )
    same = {"LORA_ROUTER_GRPC_PORT": "1", "lora_router_grpc_port": "1"}
    assert load_settings(file=None, environ=same, flags={}).settings.grpc_port == 1


def test_a_variable_that_is_no_setting_is_suspicious_in_any_case() -> None:
    loaded = load_settings(
        file=None, environ={"lora_router_grpc_prot": "1", "Lora_Router_Grpc_Port": "2"}, flags={}
    )

    assert loaded.settings.grpc_port == 2
    assert loaded.warnings == (
        "lora_router_grpc_prot: unknown setting; did you mean 'grpc_port'?; the variable is "
        "ignored",
    )


@pytest.mark.parametrize(
    ("written", "port"), [("010", 10), ("1_000", 1000), ("+5", 5), ("0x10", 16), ("0b11", 3)]
)
def test_a_number_in_a_file_is_what_was_written(written: str, port: int, tmp_path: Path) -> None:
    file = tmp_path / "router.yaml"
    file.write_text(f"grpc_port: {written}\n")

    assert load_settings(file=file, environ={}, flags={}).settings.grpc_port == port


@pytest.mark.parametrize("name", ["envoy_message_timeout_seconds", "grpc_port"])
def test_a_time_of_day_in_a_file_is_no_number(name: str, tmp_path: Path) -> None:
    file = tmp_path / "router.yaml"
    file.write_text(f"{name}: 1:30\n")

    assert problem(file=file).startswith(f"{file}: line 1: {name}: 1:30: must be ")
