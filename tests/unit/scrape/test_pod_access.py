"""Pods behind TLS and keys: real sockets, certificates of the test's own, files that change."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from pydantic import SecretStr

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import HealthRules
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.pod import Pod
from lora_router.log_limit import LogLimit
from lora_router.scrape.health_check import HealthCheck
from lora_router.scrape.page_reader import ScrapeError
from lora_router.scrape.pod_access import AccessOptions, PodAccess, PodAccessError
from lora_router.scrape.pod_pages import PodPages
from lora_router.scrape.read_health import ReadHealth
from lora_router.supervision import Supervisor
from tests.integration.certificates import Certificates
from tests.integration.echo_pod import EchoPod
from tests.waiting import until

PAGE = 'vllm:num_requests_running{engine="0"} 3\n'
MODELS = '{"object":"list","data":[{"id":"base"},{"id":"a","parent":"base"}]}'


class SecurePod:
    """A pod behind TLS that records the keys it was sent."""

    def __init__(self, certificates: Certificates, *, mutual: bool = False) -> None:
        self.certificates = certificates
        self.keys: dict[str, str | None] = {}
        self.asked: list[str] = []
        self.address = ""
        self._mutual = mutual

    @asynccontextmanager
    async def running(self) -> AsyncIterator["SecurePod"]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        context = self.certificates.server_context(mutual=self._mutual)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        self.address = f"127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        self.keys[request.path] = request.headers.get("authorization")
        return web.Response(text=MODELS if request.path.endswith("models") else PAGE)

    @property
    def pod(self) -> Pod:
        return Pod(
            name="a",
            address=self.address,
            metrics_url=f"https://{self.address}/metrics",
            models_url=f"https://{self.address}/v1/models",
            scheme="https",
        )


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


async def running_on(pod: Pod, access: PodAccess) -> float | None:
    """Read both pages of a pod; return how many requests run there."""
    pages = PodPages(5.0, access=access)
    health = ReadHealth("a", "metrics", LogLimit(1.0))
    try:
        models = await pages.models(pod, health)
        assert set(models.adapters) == {"a"}
        return (await pages.metrics(pod, health)).running
    finally:
        await pages.close()


class TestVerification:
    async def test_a_pod_whose_authority_is_known_is_read(self, certificates: Certificates) -> None:
        async with SecurePod(certificates).running() as server:
            access = PodAccess(AccessOptions(ca_file=certificates.client_ca))

            assert await running_on(server.pod, access) == 3

    async def test_the_authorities_of_the_system_do_not_know_it(
        self, certificates: Certificates
    ) -> None:
        async with SecurePod(certificates).running() as server:
            with pytest.raises(ScrapeError, match="CERTIFICATE_VERIFY_FAILED") as caught:
                await running_on(server.pod, PodAccess())

        assert caught.value.cause == "connect"
        assert not caught.value.unreachable
        assert server.asked == []

    async def test_the_name_that_is_set_is_looked_for_in_place_of_the_address(
        self, certificates: Certificates
    ) -> None:
        async with SecurePod(certificates).running() as server:
            right = AccessOptions(ca_file=certificates.client_ca, server_name="localhost")
            wrong = AccessOptions(ca_file=certificates.client_ca, server_name="pods.test")

            assert await running_on(server.pod, PodAccess(right)) == 3
            with pytest.raises(ScrapeError, match=r"pods\.test"):
                await running_on(server.pod, PodAccess(wrong))

    async def test_pods_without_tls_are_read_all_the_same(self, certificates: Certificates) -> None:
        options = AccessOptions(ca_file=certificates.client_ca, server_name="pods.test")
        async with EchoPod("plain", adapters=("a",)) as server:
            url = f"http://{server.address}"
            pod = Pod("plain", server.address, f"{url}/metrics", f"{url}/v1/models")

            assert await running_on(pod, PodAccess(options)) == 0

    async def test_verification_can_be_skipped_which_is_said(
        self, certificates: Certificates, caplog: pytest.LogCaptureFixture
    ) -> None:
        access = PodAccess(AccessOptions(skip_verify=True, server_name="pods.test"))
        access.warn()
        async with SecurePod(certificates).running() as server:
            assert await running_on(server.pod, access) == 3

        [record] = caplog.records
        assert record.levelno == logging.WARNING
        assert "pod_tls_skip_verify: certificates of pods are not verified" in record.message
        assert access.status() == {"pod_tls_warning": record.message}

    async def test_a_pod_can_ask_for_a_certificate(self, certificates: Certificates) -> None:
        async with SecurePod(certificates, mutual=True).running() as server:
            trusting = AccessOptions(ca_file=certificates.client_ca)
            proving = AccessOptions(
                ca_file=certificates.client_ca,
                certificate_file=certificates.gateway_certificate,
                key_file=certificates.gateway_key,
            )

            with pytest.raises(ScrapeError):
                await running_on(server.pod, PodAccess(trusting))
            assert await running_on(server.pod, PodAccess(proving)) == 3


class TestKeys:
    async def test_each_page_gets_its_own_key(
        self, certificates: Certificates, tmp_path: Path
    ) -> None:
        key, token = tmp_path / "key", tmp_path / "token"
        key.write_text("the-key\n")
        token.write_text("the-token\n")
        access = PodAccess(
            AccessOptions(
                api_key_file=key, metrics_token_file=token, ca_file=certificates.client_ca
            )
        )
        async with SecurePod(certificates).running() as server:
            await running_on(server.pod, access)

        assert server.keys == {"/v1/models": "Bearer the-key", "/metrics": "Bearer the-token"}

    async def test_the_api_key_alone_does_not_go_with_the_metrics(
        self, certificates: Certificates
    ) -> None:
        options = AccessOptions(api_key=SecretStr("k"), ca_file=certificates.client_ca)
        async with SecurePod(certificates).running() as server:
            await running_on(server.pod, PodAccess(options))

        assert server.keys == {"/v1/models": "Bearer k", "/metrics": None}

    async def test_a_probe_has_the_key_and_trusts_the_same_pods(
        self, certificates: Certificates
    ) -> None:
        options = AccessOptions(api_key=SecretStr("k"), ca_file=certificates.client_ca)
        fleet = Fleet(outliers=Outliers(HealthRules(), time.monotonic))
        check = HealthCheck(fleet, Supervisor(), access=PodAccess(options))
        async with SecurePod(certificates).running() as server:
            fleet.replace([server.pod])
            [state] = fleet
            await check.start()
            try:
                assert await check._answers(state, 5.0) is True
            finally:
                await check.stop()

        assert server.keys == {"/v1/completions": "Bearer k"}

    @pytest.mark.parametrize("content", ["", " \n", "two words", "käse", "a\0b"])
    def test_what_is_no_token_is_refused_and_not_shown(self, content: str, tmp_path: Path) -> None:
        path = tmp_path / "key"
        path.write_text(content)
        with pytest.raises(PodAccessError, match=r"pod_api_key_file: .*key: must") as caught:
            PodAccess(AccessOptions(api_key_file=path))

        assert not content.strip() or content not in str(caught.value)

    def test_a_token_has_a_length(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text("x" * 20_000)
        with pytest.raises(PodAccessError, match=r"pod_metrics_token_file: .*longer than 16384"):
            PodAccess(AccessOptions(metrics_token_file=path))

    def test_no_key_is_shown(self, tmp_path: Path) -> None:
        path = tmp_path / "key"
        path.write_text("s3cret")
        access = PodAccess(AccessOptions(api_key_file=path, metrics_token_file=path))

        assert "s3cret" not in repr(access.current)
        assert "s3cret" not in str(access.status())


class TestFiles:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [(None, "cannot be read: No such file"), (b"", "it is empty"), (b"x", "contains no PEM")],
    )
    def test_authorities_that_cannot_be_used_are_refused(
        self, content: bytes | None, reason: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "ca.crt"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(PodAccessError, match=f"pod_tls_ca_file: .*{reason}"):
            PodAccess(AccessOptions(ca_file=path))

    def test_a_certificate_without_its_key_is_refused(self, certificates: Certificates) -> None:
        options = AccessOptions(
            certificate_file=certificates.gateway_certificate, key_file=certificates.key
        )
        with pytest.raises(PodAccessError, match=r"pod_tls_cert_file: .*not a PEM certificate"):
            PodAccess(options)

    async def test_a_renewed_token_is_used_without_a_restart(
        self, certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        token = tmp_path / "token"
        token.write_text("old-token")
        access = PodAccess(
            AccessOptions(metrics_token_file=token, ca_file=certificates.client_ca), interval=0.01
        )
        supervisor = Supervisor()
        access.start(supervisor)
        try:
            async with SecurePod(certificates).running() as server:
                await running_on(server.pod, access)
                assert server.keys["/metrics"] == "Bearer old-token"
                before = access.current
                token.write_text("new-token")
                await until(lambda: access.current is not before)
                await running_on(server.pod, access)
                assert server.keys["/metrics"] == "Bearer new-token"
        finally:
            await supervisor.stop()

        assert "old-token" not in caplog.text
        assert "new-token" not in caplog.text

    async def test_another_authority_is_trusted_without_a_restart(
        self, certificates: Certificates, tmp_path: Path
    ) -> None:
        path = tmp_path / "pods.crt"
        trustme.CA().cert_pem.write_to_path(path)
        access = PodAccess(AccessOptions(ca_file=path))
        async with SecurePod(certificates).running() as server:
            with pytest.raises(ScrapeError):
                await running_on(server.pod, access)
            path.write_bytes(certificates.client_ca.read_bytes())
            await access.look()

            assert await running_on(server.pod, access) == 3

    async def test_a_file_that_is_gone_leaves_what_was_read_last_in_use(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path, now = tmp_path / "key", [0.0]
        path.write_text("k")
        access = PodAccess(AccessOptions(api_key_file=path), clock=lambda: now[0])
        before = access.current
        path.unlink()
        await access.look()
        now[0] = 7.0
        await access.look()

        assert access.current is before
        status = access.status()["pod_access_error"]
        assert isinstance(status, str)
        assert status.startswith("pod_api_key_file: ")
        assert status.endswith("for 7 s")
        assert access.refused_seconds == 7.0
        assert caplog.text.count("what was read last stays in use") == 1

        path.write_text("k")
        await access.look()
        assert access.status() == {}
        assert access.refused_seconds == 0.0
