"""Pods that serve over TLS behind Envoy Gateway."""

from pathlib import Path

import pytest

from tests.integration.certificates import Certificates
from tests.integration.echo_pod import EchoPod
from tests.kube.binaries import GATEWAY_TRANSLATOR, why_not
from tests.kube.gateway_install import gateway_values, installed
from tests.kube.installed import Releases
from tests.kube.server import KubeClient, KubeServer

_missing = why_not(GATEWAY_TRANSLATOR)
pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(_missing is not None, reason=str(_missing)),
    pytest.mark.usefixtures("resources"),
]


@pytest.mark.parametrize("trusted", [True, False], ids=["their authority", "another authority"])
async def test_pods_are_called_over_tls_if_their_certificate_is_trusted(
    trusted: bool,
    kube: KubeServer,
    admin: KubeClient,
    namespace: str,
    releases: Releases,
    folder: Path,
) -> None:
    for name in ("trusted", "strange"):
        (folder / name).mkdir()
    known = Certificates(folder / "trusted")
    serves = known if trusted else Certificates(folder / "strange")
    tls = serves.server_context(mutual=False)
    pods = [EchoPod("one", ("a1",), tls=tls), EchoPod("two", ("a2",), tls=tls)]
    service = (namespace, "base")
    async with installed(
        *(kube, admin, releases, folder, {service: pods}, gateway_values(service)),
        pod_certificates=known,
    ) as gateway:
        if trusted:
            assert await gateway.post({"model": "a2"}) == (200, "two")
            assert await gateway.post({"model": "a1"}) == (200, "one")
        else:
            assert (await gateway.post({"model": "a1"}))[0] >= 500
            assert pods[0].received == []
