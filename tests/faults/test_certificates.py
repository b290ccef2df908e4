"""The router's certificate is renewed under load: new connections get it, and no stream ends."""

import asyncio
import ssl
import time
from pathlib import Path

import pytest

from tests.faults.field import Field, field
from tests.faults.figures import Figures
from tests.faults.plan import PLAN
from tests.faults.running import running_answers
from tests.faults.verdict import verdict
from tests.integration.certificates import Certificates


@pytest.mark.parametrize("transport", ["builtin", "grpcio"])
async def test_a_renewed_certificate_is_used_and_costs_nothing(
    tmp_path: Path, figures: Figures, transport: str
) -> None:
    certificates = Certificates(tmp_path)
    async with field(
        tmp_path,
        pods=2,
        transport=transport,
        grpc_tls_cert_file=str(certificates.certificate),
        grpc_tls_key_file=str(certificates.key),
        envoy_router_ca_file=str(certificates.client_ca),
    ) as gateway:
        old = await presented(gateway)
        async with gateway.load(rate=PLAN.rate) as load, running_answers(gateway, 10) as answers:
            await load.for_(0.5)
            at = time.monotonic()
            renew(certificates)
            async with asyncio.timeout(60):
                while await presented(gateway) == old:
                    await asyncio.sleep(0.2)
            await load.for_(1)
        await gateway.until_idle()
    found = verdict([*load.seen, *answers.seen], at)
    figures.add("Routers fail", f"the certificate is renewed, transport {transport}", found)

    assert (found.lost, found.cut, found.failed_before) == (0, 0, 0), found


async def presented(gateway: Field) -> str:
    """Return the certificate that a new connection gets."""
    address = ("127.0.0.1", gateway.router.grpc_port)
    return await asyncio.to_thread(ssl.get_server_certificate, address)


def renew(certificates: Certificates) -> None:
    """Replace the files as cert-manager's volume does: each one whole."""
    issued = certificates.authority.issue_cert("localhost", "127.0.0.1")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    for file, content in (
        (certificates.key, issued.private_key_pem.bytes()),
        (certificates.certificate, chain),
    ):
        written = file.with_suffix(".new")
        written.write_bytes(content)
        written.rename(file)
