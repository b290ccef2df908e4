"""Envoy and the router over TLS, configured by ``lora-router envoy-config``."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lora_router.cli.commands import app as cli
from lora_router.probe import ProbeError, ProbeOptions, probe
from tests.envoy import free_port
from tests.integration.certificates import Certificates
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import gateway
from tests.integration.test_probe import refusal


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def settings_of(certificates: Certificates, *, mutual: bool) -> dict[str, object]:
    """Return the settings of both sides."""
    settings = {
        "grpc_tls_cert_file": certificates.certificate,
        "grpc_tls_key_file": certificates.key,
        "envoy_router_ca_file": certificates.client_ca,
    }
    if mutual:
        settings |= {
            "grpc_tls_client_ca_file": certificates.client_ca,
            "envoy_client_cert_file": certificates.gateway_certificate,
            "envoy_client_key_file": certificates.gateway_key,
        }
    return {name: str(path) for name, path in settings.items()}


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mutual"])
@pytest.mark.parametrize("name", [None, "localhost"])
async def test_requests_are_routed_over_tls(
    tmp_path: Path, certificates: Certificates, transport: str, mutual: bool, name: str | None
) -> None:
    changes = settings_of(certificates, mutual=mutual)
    if name is not None:
        changes["envoy_router_name"] = name
    pods = [EchoPod("vllm-0", adapters=("sql-lora",)), EchoPod("vllm-1")]
    async with gateway(tmp_path, pods, transport=transport, **changes) as gate:
        response, _ = await gate.post({"model": "sql-lora"})
        assert (response.status, response.headers["x-pod"]) == (200, "vllm-0")


@pytest.mark.parametrize("wrong", ["name", "authority"])
async def test_a_router_that_is_not_who_it_should_be_is_asked_nothing(
    tmp_path: Path, certificates: Certificates, wrong: str
) -> None:
    changes = settings_of(certificates, mutual=False)
    if wrong == "name":
        changes["envoy_router_name"] = "another"
    else:
        stranger = tmp_path / "stranger.crt"
        certificates.stranger.cert_pem.write_to_path(stranger)
        changes["envoy_router_ca_file"] = str(stranger)
    changes |= {"patient": False}  # No list of pods comes.
    async with gateway(tmp_path, [EchoPod("vllm-0")], **changes) as gate:
        response, _ = await gate.post({"model": "base"})
        assert response.status == 503
        assert gate.received == []


@pytest.mark.parametrize("left_out", ["envoy_router_ca_file", "envoy_client"])
def test_what_envoy_needs_for_tls_is_asked_for(certificates: Certificates, left_out: str) -> None:
    given = settings_of(certificates, mutual=True)
    flags = [
        part
        for name, value in given.items()
        if not name.startswith(left_out)
        for part in ("--set", f"{name}={value}")
    ]
    result = CliRunner().invoke(cli, ["envoy-config", *flags])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"lora-router: {left_out}")
    assert "required, because the router" in result.stderr


async def test_a_router_with_tls_is_probed(tmp_path: Path, certificates: Certificates) -> None:
    changes = settings_of(certificates, mutual=False)
    async with gateway(tmp_path, [EchoPod("vllm-0")], **changes) as gate:
        target = f"127.0.0.1:{gate.app.transport.port}"
        options = ProbeOptions(target, ca=certificates.client_ca, timeout=60)
        assert len(await probe(options)) == 1
        assert "UNAVAILABLE" in await refusal(ProbeOptions(target))
    with pytest.raises(ProbeError, match=r"no\.crt: cannot be read: No such file"):
        await probe(ProbeOptions(target, ca=tmp_path / "no.crt"))


@pytest.mark.parametrize(("service", "page"), [("readiness", "readyz"), ("liveness", "healthz")])
def test_by_default_a_router_with_tls_is_asked_for_its_page(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, service: str, page: str
) -> None:
    port = free_port()
    monkeypatch.setenv("LORA_ROUTER_ADMIN_PORT", str(port))
    monkeypatch.setenv("LORA_ROUTER_GRPC_TLS_CERT_FILE", str(certificates.certificate))
    monkeypatch.setenv("LORA_ROUTER_GRPC_TLS_KEY_FILE", str(certificates.key))
    result = CliRunner().invoke(cli, ["probe", "--service", service, "--timeout", "0.2"])
    assert result.exit_code == 1
    assert f"lora-router: http://127.0.0.1:{port}/{page}" in result.stderr
