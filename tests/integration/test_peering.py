"""Routers that are peers, over real sockets."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import grpc
import grpc.aio
import pytest

from lora_router.app import App
from lora_router.config.settings import Settings
from lora_router.fleet.pod_state import PodState
from lora_router.peering import conversation, hub
from lora_router.peering.pb.peering_pb2 import Greeting, PeerMessage
from lora_router.peering.secret import SecretError
from lora_router.peering.service import PATH
from tests.envoy import free_port
from tests.integration.certificates import Certificates
from tests.integration.served import Served

PODS = """
pods:
  - {name: pod-1, address: "127.0.0.1:1", models: [base, a, b]}
  - {name: pod-2, address: "127.0.0.1:2", models: [base, a, b]}
"""
SECRET = "a-secret-of-more-than-16-characters"

pytestmark = pytest.mark.usefixtures("patient_start")


async def until(condition: Callable[[], object], seconds: float = 60.0) -> float:
    """Wait until something is true; return how long it took."""
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
    return time.monotonic() - began


class Routers:
    """Makes routers that know each other's addresses."""

    def __init__(self, folder: Path, transport: str, count: int) -> None:
        self.ports = [free_port() for _ in range(count)]
        self.pods = folder / "pods.yaml"
        self.pods.write_text(PODS)
        self.transport = transport
        self.secret = folder / "secret"
        self.secret.write_text(f"{SECRET}\n")

    def settings(self, number: int, **changes: object) -> Settings:
        values: dict[str, object] = {
            "endpoints": self.pods,
            "grpc_host": "127.0.0.1",
            "grpc_port": self.ports[number],
            "admin_port": 0,
            "transport": self.transport,
            "peers": ",".join(f"127.0.0.1:{port}" for port in self.ports),
            "startup_timeout_seconds": 0.5,
            "drain_timeout_seconds": 1.0,
            "outlier_ejection": False,
            **changes,
        }
        return Settings(**values)

    @asynccontextmanager
    async def run(self, **changes: object) -> AsyncIterator[list[App]]:
        """Run all routers."""
        async with AsyncExitStack() as stack:
            apps = []
            for number in range(len(self.ports)):
                app = App(self.settings(number, **changes))
                stack.push_async_callback(app.stop)
                apps.append(app)
            await asyncio.gather(*(app.start() for app in apps))
            yield apps


def pod(app: App, number: int = 1) -> PodState:
    state = app.fleet.get(f"pod-{number}")
    assert state is not None
    return state


def seen(app: App, adapter: str = "a") -> int:
    return pod(app).beliefs.peers.in_flight(adapter)


def peers(app: App) -> int:
    assert app.peering is not None
    return len(app.peering.hub.peers)


def rejected(app: App, cause: str) -> int:
    assert app.peering is not None
    return app.peering.hub.counts.rejected[cause]


@pytest.mark.usefixtures("patient_peers")
@pytest.mark.parametrize("count", [2, 3])
async def test_routers_learn_from_each_other_what_is_in_flight(
    tmp_path: Path, transport: str, count: int
) -> None:
    async with Routers(tmp_path, transport, count).run() as apps:
        assert [peers(app) for app in apps] == [count - 1] * count, "before they are ready"

        reservation = apps[0].fleet.ledger.reserve(pod(apps[0]), "a")
        await until(lambda: all(seen(app) == 1 for app in apps[1:]))
        reservation.release()
        await until(lambda: all(seen(app) == 0 for app in apps[1:]))

        details = apps[0].readiness().details
        assert isinstance(details["peers"], dict)
        assert len(details["peers"]) == count - 1
        page = apps[0].telemetry.page().decode()
        assert f"lora_router_peers {count - 1}.0" in page
        assert 'lora_router_peer_reports_total{direction="received"}' in page


@pytest.mark.usefixtures("patient_peers")
async def test_routers_learn_from_each_other_what_was_refused(
    tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Routers(tmp_path, transport, 2).run() as apps:
        here, there = (app.director.reception.room.waits for app in apps)
        heard: list[tuple[str, float, int]] = []
        monkeypatch.setattr(
            there, "hear_refused", lambda name, _, *each: heard.append((name, *each))
        )
        here.on_refused("a", 4.25, -3)
        await until(lambda: heard)
        assert heard == [("a", 4.25, -3)]


@pytest.mark.usefixtures("patient_peers")
async def test_a_router_that_joins_knows_what_is_in_flight_before_it_is_ready(
    tmp_path: Path, transport: str
) -> None:
    routers = Routers(tmp_path, transport, 2)
    first, second = App(routers.settings(0)), App(routers.settings(1))
    try:
        await first.start()
        assert first.readiness().ready, "a router without peers waits for nobody"
        first.fleet.ledger.reserve(pod(first), "a")

        await second.start()

        assert seen(second) == 1
    finally:
        await first.stop()
        await second.stop()


@pytest.mark.usefixtures("patient_peers")
async def test_a_router_that_leaves_is_forgotten_at_once_and_stops_in_no_time(
    tmp_path: Path, transport: str
) -> None:
    async with Routers(tmp_path, transport, 3).run(drain_timeout_seconds=60.0) as apps:
        leaver, *others = apps
        leaver.fleet.ledger.reserve(pod(leaver), "a")
        await until(lambda: all(seen(app) == 1 for app in others))

        await asyncio.wait_for(leaver.stop(), 45)

        await until(lambda: not any(seen(app) for app in others))
        for app in others:
            assert app.peering is not None
            assert app.peering.hub.counts.left >= 1
            assert app.peering.hub.counts.silent == 0


async def test_a_router_that_is_killed_is_forgotten_after_a_second_of_silence(
    tmp_path: Path, transport: str
) -> None:
    routers = Routers(tmp_path, transport, 1)
    served = Served(tmp_path, {"peers": f"127.0.0.1:{routers.ports[0]}", "transport": transport})
    app = App(
        routers.settings(0, peers=f"127.0.0.1:{served.grpc_port},127.0.0.1:{routers.ports[0]}")
    )
    try:
        async with served.run() as process:
            await app.start()
            assert app.peering is not None
            await until(lambda: peers(app) == 1)
            ((name, peer),) = app.peering.hub.peers.items()
            last = peer.heard_at

            process.send_signal(signal.SIGKILL)
            while name in app.peering.hub.peers:
                last = app.peering.hub.peers[name].heard_at
                await asyncio.sleep(0.01)

            # Its last report may still have been on its way.
            assert time.monotonic() - last >= 1.0
            assert app.peering.hub.counts.silent >= 1
            assert app.peering.hub.counts.left == 0
        async with served.run():
            await until(lambda: peers(app) == 1, 60)
            assert name not in app.peering.hub.peers, "another run has another name"
    finally:
        await app.stop()


@pytest.mark.usefixtures("patient_peers")
async def test_a_name_stands_for_all_its_addresses_and_its_own_one_is_recognized(
    tmp_path: Path,
) -> None:
    routers = Routers(tmp_path, "builtin", 2)
    names = ",".join(f"localhost:{port}" for port in routers.ports)
    async with routers.run(peers=names) as apps:
        assert [peers(app) for app in apps] == [1, 1]


# Who may be a peer


@pytest.mark.usefixtures("patient_peers")
async def test_peers_with_the_secret_are_accepted_and_others_refused(
    tmp_path: Path, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    routers = Routers(tmp_path, transport, 2)
    wrong = tmp_path / "wrong"
    wrong.write_text("another-secret-of-some-length")
    async with routers.run(peer_secret_file=routers.secret) as apps:
        assert [peers(app) for app in apps] == [1, 1]
        stranger = App(
            routers.settings(0, grpc_port=0, peer_secret_file=wrong, startup_timeout_seconds=0.1)
        )
        try:
            await stranger.start()
            assert peers(stranger) == 0
            assert all(rejected(app, "unauthenticated") >= 1 for app in apps)
            assert [peers(app) for app in apps] == [1, 1]
        finally:
            await stranger.stop()
    assert SECRET not in caplog.text
    assert "another-secret" not in caplog.text


@pytest.mark.usefixtures("patient_peers")
async def test_a_secret_can_be_changed_while_routers_run(tmp_path: Path, transport: str) -> None:
    routers = Routers(tmp_path, transport, 2)
    async with routers.run(peer_secret_file=routers.secret) as apps:
        for app in apps:
            assert app.peering is not None
            secret = app.peering.secret
            assert secret is not None
            secret.use(b"the-next-secret-of-this-fleet")
        assert [peers(app) for app in apps] == [1, 1]


@pytest.mark.parametrize("content", ["", "short", "with spaces in the middle of it", "x" * 2000])
async def test_a_secret_that_is_none_stops_the_start(tmp_path: Path, content: str) -> None:
    routers = Routers(tmp_path, "builtin", 1)
    routers.secret.write_text(content)
    with pytest.raises(SecretError, match="must contain 1 to 2 lines of 16 to 1024"):
        App(routers.settings(0, peer_secret_file=routers.secret))


@pytest.mark.usefixtures("patient_peers")
@pytest.mark.parametrize("mutual", [True, False])
async def test_peers_meet_over_tls(tmp_path: Path, transport: str, mutual: bool) -> None:
    certificates = Certificates(tmp_path)
    routers = Routers(tmp_path, transport, 2)
    tls: dict[str, object] = {
        "grpc_tls_cert_file": certificates.certificate,
        "grpc_tls_key_file": certificates.key,
    }
    if mutual:
        tls["grpc_tls_client_ca_file"] = certificates.client_ca
    else:
        tls["peer_tls_ca_file"] = certificates.client_ca
    async with routers.run(**tls) as apps:
        assert [peers(app) for app in apps] == [1, 1]
        apps[0].fleet.ledger.reserve(pod(apps[0]), "a")
        await until(lambda: seen(apps[1]) == 1)


async def test_a_peer_whose_certificate_nobody_trusts_is_none(
    tmp_path: Path, transport: str
) -> None:
    certificates = Certificates(tmp_path)
    strangers = tmp_path / "strangers.crt"
    certificates.stranger.cert_pem.write_to_path(strangers)
    routers = Routers(tmp_path, transport, 2)
    async with routers.run(
        grpc_tls_cert_file=certificates.certificate,
        grpc_tls_key_file=certificates.key,
        peer_tls_ca_file=strangers,
    ) as apps:
        assert [peers(app) for app in apps] == [0, 0]
        assert all(app.readiness().ready for app in apps)


# What arrives at the port


class RawPeer:
    """A client that speaks to the port of a router as it likes."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.call = self.channel.stream_stream(PATH)()

    async def send(self, message: bytes) -> None:
        """Send a message, unless the router has ended the stream."""
        with suppress(grpc.RpcError, asyncio.InvalidStateError):
            await self.call.write(message)

    async def status(self) -> grpc.StatusCode:
        with suppress(grpc.RpcError):
            while await self.call.read() is not grpc.aio.EOF:
                pass
        code: grpc.StatusCode = await self.call.code()
        await self.channel.close()
        return code


@pytest.mark.usefixtures("patient_peers")
async def test_garbage_and_floods_end_their_streams_and_nothing_else(
    tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Low enough for the slowest machine.
    monkeypatch.setattr(conversation, "MESSAGES_BURST", 60)
    monkeypatch.setattr(conversation, "MESSAGES_PER_SECOND", 30)
    routers = Routers(tmp_path, transport, 2)
    async with routers.run() as apps:
        garbage = RawPeer(routers.ports[0])
        await garbage.send(b"\xff\xff\xffgarbage")
        # A client that still writes may see the reset that follows the status.
        assert await garbage.status() != grpc.StatusCode.OK
        assert rejected(apps[0], "malformed") == 1

        long = RawPeer(routers.ports[0])
        await long.send(bytes(1024 * 1024))
        assert await long.status() != grpc.StatusCode.OK

        flood = RawPeer(routers.ports[0])
        await flood.send(PeerMessage(greeting=Greeting(router="f", version=1)).SerializeToString())
        with suppress(grpc.RpcError, asyncio.InvalidStateError):
            for _ in range(20_000):
                await flood.call.write(PeerMessage(wants_complete=True).SerializeToString())
        assert await flood.status() != grpc.StatusCode.OK
        assert rejected(apps[0], "flood") == 1
        # From now on, a peer that only floods may be forgotten as silent.
        monkeypatch.setattr(hub, "SILENCE_SECONDS", 1.0)

        apps[0].fleet.ledger.reserve(pod(apps[0]), "a")
        await until(lambda: seen(apps[1]) == 1)
        await until(lambda: peers(apps[0]) == 1)


async def test_a_router_without_peers_does_not_serve_peering(
    tmp_path: Path, transport: str
) -> None:
    routers = Routers(tmp_path, transport, 1)
    async with routers.run(peers=None):
        assert await RawPeer(routers.ports[0]).status() == grpc.StatusCode.UNIMPLEMENTED
