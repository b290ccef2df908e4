"""Certificates are renewed while requests run, through a real Envoy and for both transports."""

import asyncio
import signal
import ssl
from pathlib import Path

import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lora_router.app import App
from lora_router.probe import ProbeError, ProbeOptions, probe
from tests.integration.certificates import Certificates
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import gateway
from tests.integration.served import Served
from tests.integration.test_envoy_tls import settings_of
from tests.waiting import until


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def renew(certificates: Certificates, authority: trustme.CA) -> None:
    """Write a new certificate and key for the router."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(certificates.key)
    certificates.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))


async def presented(port: int, certificates: Certificates) -> bytes:
    """Return the certificate that a new connection gets, in DER."""
    context = ssl.create_default_context(cafile=str(certificates.client_ca))
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(certificates.gateway_certificate, certificates.gateway_key)
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert isinstance(shown, bytes)
        return shown
    finally:
        writer.close()


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mutual"])
async def test_a_renewed_certificate_is_used_and_no_stream_is_dropped(
    tmp_path: Path, certificates: Certificates, transport: str, mutual: bool
) -> None:
    changes = settings_of(certificates, mutual=mutual)
    pod = EchoPod("vllm-0")
    async with gateway(tmp_path, [pod], transport=transport, **changes) as gate:
        first = await presented(gate.app.transport.port, certificates)
        assert gate.app.certificates is not None
        url = f"{gate.url}/v1/completions"
        document = {"model": "base", "tokens": 20, "pause": 0.05}
        async with gate.client.post(url, json=document) as response:
            await response.content.readline()
            assert gate.app.transport.open_streams == 1

            for _ in range(3):
                before = await presented(gate.app.transport.port, certificates)
                renew(certificates, certificates.authority)
                gate.app.refresh()
                while await presented(gate.app.transport.port, certificates) == before:
                    await asyncio.sleep(0.01)
                # Envoy's open connection goes on.
                assert (await gate.post({"model": "base"}))[0].status == 200

            assert (await response.read()).endswith(b"[DONE]\n\n")
        assert pod.aborted == 0
        assert await presented(gate.app.transport.port, certificates) != first
        page = gate.app.telemetry.page().decode()
        assert "lora_router_tls_files_refused_seconds 0.0" in page
        await until(lambda: gate.in_flight == 0)


async def test_authorities_for_clients_are_replaced_not_added(
    tmp_path: Path, certificates: Certificates, transport: str
) -> None:
    """A client whose authority is no longer in the file is refused."""
    authorities = tmp_path / "clients.crt"
    certificates.authority.cert_pem.write_to_path(authorities)
    changes = settings_of(certificates, mutual=True)
    changes["grpc_tls_client_ca_file"] = str(authorities)
    async with gateway(tmp_path, [EchoPod("vllm-0")], transport=transport, **changes) as gate:
        assert (await gate.post({"model": "base"}))[0].status == 200
        assert gate.app.certificates is not None
        used = gate.app.transport.tls
        assert await accepts(gate.app, certificates, certificates.authority)
        assert not await accepts(gate.app, certificates, certificates.stranger)

        certificates.stranger.cert_pem.write_to_path(authorities)
        gate.app.refresh()
        await until(lambda: gate.app.transport.tls is not used)

        assert await accepts(gate.app, certificates, certificates.stranger)
        assert not await accepts(gate.app, certificates, certificates.authority)
        # Envoy's open connection, whose client certificate was accepted, goes on.
        assert (await gate.post({"model": "base"}))[0].status == 200


async def accepts(app: App, certificates: Certificates, authority: trustme.CA) -> bool:
    """Return whether the router answers a client with a certificate of this authority."""
    credentials = certificates.credentials(client=authority)
    target = f"localhost:{app.transport.port}"
    async with grpc.aio.secure_channel(target, credentials) as channel:
        try:
            await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service="liveness"), timeout=60
            )
        except grpc.aio.AioRpcError:
            return False
        return True


async def test_a_hangup_renews_the_certificate(
    tmp_path: Path, certificates: Certificates, transport: str
) -> None:
    (tmp_path / "pods.yaml").write_text("pods: []")
    config: dict[str, object] = {"transport": transport, **settings_of(certificates, mutual=False)}
    served = Served(tmp_path, config)
    async with served.run() as process:
        await served.until_ready()
        before = await presented(served.grpc_port, certificates)
        renew(certificates, certificates.authority)
        process.send_signal(signal.SIGHUP)

        async with asyncio.timeout(60):
            while await presented(served.grpc_port, certificates) == before:
                await asyncio.sleep(0.01)


async def test_half_a_renewal_keeps_the_old_certificate(
    tmp_path: Path, certificates: Certificates, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    changes = settings_of(certificates, mutual=False)
    async with gateway(tmp_path, [EchoPod("vllm-0")], transport=transport, **changes) as gate:
        before = await presented(gate.app.transport.port, certificates)
        certificates.key.write_bytes(certificates.gateway_key.read_bytes())
        assert gate.app.certificates is not None
        gate.app.refresh()
        await until(lambda: "tls_error" in gate.app.readiness().details)

        assert gate.app.readiness().ready
        assert "key values mismatch" in caplog.text
        assert await presented(gate.app.transport.port, certificates) == before
        assert (await gate.post({"model": "base"}))[0].status == 200
        target = f"localhost:{gate.app.transport.port}"
        options = ProbeOptions(target, "liveness", ca=certificates.client_ca, timeout=60)
        assert await probe(options)


async def test_a_router_that_drains_takes_no_new_certificate(
    tmp_path: Path, certificates: Certificates, transport: str
) -> None:
    changes = settings_of(certificates, mutual=False)
    async with gateway(tmp_path, [EchoPod("vllm-0")], transport=transport, **changes) as gate:
        watch = gate.app.certificates
        assert watch is not None
        await gate.app.stop()
        renew(certificates, certificates.authority)
        await watch.look()

        target = f"localhost:{gate.app.transport.port}"
        with pytest.raises(ProbeError):
            await probe(ProbeOptions(target, ca=certificates.client_ca, timeout=0.3))
