"""Pods behind TLS: the router reads them, and Envoy sends requests to them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lora_router.cli.commands import app as cli
from tests.integration.certificates import Certificates
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import gateway
from tests.waiting import until


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def settings_of(certificates: Certificates, *, mutual: bool) -> dict[str, object]:
    settings: dict[str, object] = {
        "pod_scheme": "https",
        "pod_tls_ca_file": str(certificates.client_ca),
        "envoy_pod_ca_file": str(certificates.client_ca),
    }
    if mutual:
        for owner in ("pod_tls", "envoy_pod"):
            settings[f"{owner}_cert_file"] = str(certificates.gateway_certificate)
            settings[f"{owner}_key_file"] = str(certificates.gateway_key)
    return settings


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mutual"])
@pytest.mark.parametrize("envoy_pods", ["override-host", "original-dst"])
async def test_pods_are_read_and_reached_over_tls(
    tmp_path: Path, certificates: Certificates, mutual: bool, envoy_pods: str
) -> None:
    key, token = tmp_path / "key", tmp_path / "token"
    key.write_text("the-key")
    token.write_text("the-token")
    context = certificates.server_context(mutual=mutual)
    pods = [
        EchoPod("vllm-0", adapters=("sql-lora",), tls=context),
        EchoPod("vllm-1", tls=context),
    ]
    changes = settings_of(certificates, mutual=mutual) | {
        "envoy_pods": envoy_pods,
        "pod_tls_server_name": "localhost",
        "pod_api_key_file": str(key),
        "pod_metrics_token_file": str(token),
    }
    async with gateway(tmp_path, pods, **changes) as gate:
        response, _ = await gate.post({"model": "sql-lora"})
        assert (response.status, response.headers["x-pod"]) == (200, "vllm-0")
        await until(lambda: len(pods[0].keys) == 2)

    assert pods[0].keys == {"/v1/models": "Bearer the-key", "/metrics": "Bearer the-token"}
    assert [received.path for received in gate.received] == ["/v1/chat/completions"]


async def test_envoy_sends_nothing_to_a_pod_of_another_authority(
    tmp_path: Path, certificates: Certificates
) -> None:
    stranger = tmp_path / "stranger.crt"
    certificates.stranger.cert_pem.write_to_path(stranger)
    changes = settings_of(certificates, mutual=False) | {"envoy_pod_ca_file": str(stranger)}
    pods = [EchoPod("vllm-0", tls=certificates.server_context(mutual=False))]
    async with gateway(tmp_path, pods, **changes) as gate:
        response, _ = await gate.post({"model": "base"})

        assert response.status == 503
        assert gate.received == []


async def test_unverified_pods_are_said(tmp_path: Path, certificates: Certificates) -> None:
    pods = [EchoPod("vllm-0", tls=certificates.server_context(mutual=False))]
    changes = {"pod_scheme": "https", "pod_tls_skip_verify": True}
    async with gateway(tmp_path, pods, **changes) as gate:
        response, _ = await gate.post({"model": "base"})

        assert response.status == 200
        assert "pod_tls_skip_verify" in str(gate.app.readiness().details["pod_tls_warning"])


@pytest.mark.parametrize("left_out", ["envoy_pod_ca_file", "envoy_pod_cert_file"])
def test_what_envoy_needs_for_tls_to_pods_is_asked_for(
    certificates: Certificates, left_out: str
) -> None:
    given = settings_of(certificates, mutual=True)
    without = {left_out, "envoy_pod_key_file"} if "cert" in left_out else {left_out}
    flags = [
        part
        for name, value in given.items()
        if name not in without
        for part in ("--set", f"{name}={value}")
    ]
    result = CliRunner().invoke(cli, ["envoy-config", *flags])

    assert result.exit_code == 2
    assert result.stderr.startswith(f"lora-router: {left_out}")
    assert "required, because pods" in result.stderr
