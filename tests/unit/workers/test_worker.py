"""One worker, and what the parent tells it and asks of it."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2

from lora_router.config.settings import Settings
from lora_router.extproc.transport import PROCESS_PATH
from lora_router.extproc.transport_error import TlsFileError
from lora_router.fleet.pod import Pod
from lora_router.grpc_server import frames
from lora_router.grpc_server.frames import FrameReader, frame
from lora_router.peering.secret import SecretError
from lora_router.scrape.pod_access import PodAccessError
from lora_router.supervision import Supervisor
from lora_router.workers import messages
from lora_router.workers.descriptors import CONNECTION, descriptor_pair, send_descriptor
from lora_router.workers.framing import FramedProtocol
from lora_router.workers.kept import NOTHING, Kept
from lora_router.workers.kept_tls import KeptTls
from lora_router.workers.messages import Status
from lora_router.workers.worker import Worker
from tests.integration.certificates import Certificates
from tests.unit.grpc_server.peer import block
from tests.waiting import until


class Control(FramedProtocol):
    """What a worker sent to its parent."""

    def __init__(self) -> None:
        super().__init__(lambda _data: None, lambda: None, max_bytes=1000)
        self.sent: list[messages.FromWorker] = []

    def send(self, message: bytes) -> None:
        self.sent.append(messages.from_worker(message))


class Site:
    """A worker without a process of its own."""

    def __init__(self, settings: Settings, kept: Kept = NOTHING) -> None:
        self.control = Control()
        self.parent, theirs = descriptor_pair()
        self.worker = Worker(1, settings, self.control, theirs, "host", kept=kept)
        self._theirs = theirs

    def answers(self) -> list[messages.Metrics]:
        return [each for each in self.control.sent if isinstance(each, messages.Metrics)]

    @property
    def status(self) -> Status:
        return [each for each in self.control.sent if isinstance(each, Status)][-1]

    def close(self) -> None:
        self.parent.close()
        self._theirs.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(Settings(workers=2, drain_timeout_seconds=1.0))
    await site.worker.start()
    yield site
    await site.worker.stop()
    site.close()


@pytest.mark.slow
async def test_it_becomes_ready_when_the_parent_has_read_the_pods(site: Site) -> None:
    worker = site.worker
    assert (site.status.ready, site.status.reason) == (
        False,
        "the list of pods has not been read yet",
    )
    worker.receive(messages.Pods((Pod("p", "10.0.0.1:8000", "", "", models=("m",)),), ()))
    worker.receive(messages.Synced())
    worker.receive(messages.Warm(0))
    await until(lambda: site.status.ready)
    assert worker.fleet.serving("m").pods


@pytest.mark.slow
async def test_it_serves_the_connections_that_it_is_handed(site: Site) -> None:
    mine, theirs = socket.socketpair()
    with mine:
        assert send_descriptor(site.parent, CONNECTION, theirs)
        theirs.close()
        await until(lambda: site.status.received == 1)
        assert site.status.connections == 1
    await until(lambda: site.status.connections == 0)


@pytest.mark.slow
async def test_a_connection_for_which_it_has_no_descriptor_left_is_counted(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.parent.send(CONNECTION)  # What arrives when the kernel has closed the descriptor.
    await until(lambda: site.status.received == 1)
    assert site.status.connections == 0
    assert any(each.short for each in site.control.sent if isinstance(each, Status))
    assert site.worker.transport.bounds.refused_connections == 1
    assert "a gRPC connection is lost" in caplog.text
    # Meanwhile it has some again.
    await until(lambda: not site.status.short)


@pytest.mark.slow
async def test_it_reports_again_and_again(site: Site) -> None:
    before = len(site.control.sent)
    await until(lambda: len(site.control.sent) > before + 1)


async def test_it_answers_with_its_metrics(site: Site) -> None:
    site.worker.receive(messages.AskMetrics(7))
    answers = site.answers
    await until(lambda: any(answer.is_last for answer in answers()))
    assert {answer.number for answer in answers()} == {7}
    names = {family.name for answer in answers() for family in answer.families}
    assert "lora_router_open_streams" in names


@pytest.mark.slow
async def test_a_drain_makes_it_unready_and_ends_it(site: Site) -> None:
    site.worker.receive(messages.Synced())
    site.worker.receive(messages.Warm(0))
    await until(lambda: site.status.ready)
    site.worker.receive(messages.Drain())
    await asyncio.wait_for(site.worker.drained(), 60)
    assert (site.status.ready, site.status.reason) == (False, "shutting down")
    server = site.worker._transport.server
    assert server.health.state("readiness") == health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.slow
async def test_while_the_tls_files_are_unusable_it_starts_with_what_the_parent_kept(
    tmp_path: Path,
) -> None:
    certificates = Certificates(tmp_path)
    files = certificates.files(mutual=True)
    kept = KeptTls(files, Supervisor())
    with pytest.raises(TlsFileError):
        KeptTls(replace(files, key=files.certificate), Supervisor()).start()
    kept.start()
    certificates.certificate.write_bytes(certificates.certificate.read_bytes()[:200])
    message = messages.encode(messages.Start(1, b"", "host", Kept(kept.contents)))
    start = messages.from_parent(message)
    assert isinstance(start, messages.Start)
    assert b"PRIVATE KEY" not in repr(start).encode()
    settings = Settings(
        workers=2,
        grpc_tls_cert_file=files.certificate,
        grpc_tls_key_file=files.key,
        grpc_tls_client_ca_file=files.client_ca,
        drain_timeout_seconds=1.0,
    )
    with_nothing = Site(settings)
    with pytest.raises(TlsFileError):
        await with_nothing.worker.start()
    site = Site(settings, start.kept)
    await site.worker.start()
    try:
        used = site.worker.transport.tls
        assert used is not None
        assert used.contents == kept.contents
        assert used.context.verify_mode is ssl.CERT_REQUIRED
        await until(lambda: "tls_error" in json.loads(site.status.details))
    finally:
        await site.worker.stop()
        site.close()
        with_nothing.close()


@pytest.mark.slow
async def test_if_the_parent_ends_during_a_drain_the_streams_end_with_a_status() -> None:
    """A stream that is cut makes the gateway fail its request."""
    site = Site(Settings(workers=2, drain_delay_seconds=0, drain_timeout_seconds=600))
    await site.worker.start()
    mine, theirs = socket.socketpair()
    mine.setblocking(False)
    with mine:
        send_descriptor(site.parent, CONNECTION, theirs)
        theirs.close()
        call = frame(frames.HEADERS, frames.END_HEADERS, 1, block(PROCESS_PATH))
        mine.send(frames.PREFACE + frames.settings({}) + call)
        server = site.worker._transport.server
        await until(lambda: site.worker.transport.open_streams == 1)
        site.worker.receive(messages.Drain())
        await until(lambda: server.health.state("readiness") is not None)

        stopping = asyncio.create_task(site.worker.stop())
        ended = []
        async with asyncio.timeout(60):
            reader = FrameReader()
            list(reader.feed(frames.PREFACE))
            while data := await asyncio.get_running_loop().sock_recv(mine, 65536):
                ended += [each[2] for each in reader.feed(data) if ends(*each[:2])]
        assert ended == [1]
    await stopping
    site.close()


def ends(kind: int, flags: int) -> bool:
    """Return whether a frame ends a stream with a status."""
    return kind == frames.HEADERS and bool(flags & frames.END_STREAM)


@pytest.mark.slow
async def test_it_is_a_router_of_its_own_among_the_peers_of_other_hosts(tmp_path: Path) -> None:
    here = "127.0.0.1:1"
    site = Site(Settings(workers=2, peers=here, grpc_host="127.0.0.1", drain_timeout_seconds=1.0))
    worker = site.worker
    await worker.start()
    try:
        assert "-worker-1-" in site.status.name
        assert (site.status.peers, site.status.links) == ((), ())
        worker.receive(messages.Addresses(((here, "127.0.0.1"),)))
        worker.receive(messages.Speak(speaks=True))
        worker.receive(messages.Tell(b""))
        one, other = socket.socketpair()
        for tag, end in ((b"o2", one), (b"r2", other)):
            assert send_descriptor(site.parent, tag, end)
            end.close()
        # A worker is linked when it has both.
        await until(lambda: site.status.links == (2,))
        # Nobody is at that address: it does not wait for ever.
        worker.receive(messages.Synced())
        worker.receive(messages.Warm(0))
        await until(lambda: site.status.ready)
        assert json.loads(site.status.details)["router"] == site.status.name
    finally:
        await worker.stop()
        site.close()


async def test_while_keys_and_secrets_are_unusable_it_starts_with_what_the_parent_kept(
    tmp_path: Path,
) -> None:
    key, secret = tmp_path / "key", tmp_path / "secret"
    for file in (key, secret):
        file.write_text("short and bad\n")
    settings = Settings(
        workers=2,
        pod_api_key_file=key,
        peers="127.0.0.1:1",
        peer_secret_file=secret,
        drain_timeout_seconds=0,
    )
    with pytest.raises(SecretError):
        Site(settings)
    secrets = (b"s" * 16,)
    with pytest.raises(PodAccessError):
        Site(settings, Kept(secrets=secrets))
    kept = Kept(secrets=secrets, pod_files={"pod_api_key_file": b"key\n"})
    start = messages.from_parent(messages.encode(messages.Start(1, b"", "host", kept)))
    assert isinstance(start, messages.Start)
    assert "ssss" not in repr(start)
    site = Site(settings, start.kept)
    access, peering = site.worker.pod_access, site.worker.peering
    assert access.current.api_headers == {"authorization": "Bearer key"}
    assert "pod_api_key_file" in str(access.status()["pod_access_error"])
    assert peering is not None
    assert peering.secret is not None
    assert peering.secret.header == "Bearer " + "s" * 16
    key.write_text("renewed")
    await access.look()
    assert access.current.api_headers == {"authorization": "Bearer renewed"}
    assert not access.status()
    site.close()
