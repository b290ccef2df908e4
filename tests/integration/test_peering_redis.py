"""Routers that are peers by way of a real Valkey or Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from lora_router.app import App
from lora_router.config.settings import Settings
from lora_router.peering import peering as peering_module
from tests.integration.test_peering import PODS, SECRET, peers, pod, rejected, seen, until
from tests.redis_server import RedisProcess

CHANNEL = "{lora-router}:reports"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    process = RedisProcess(tmp_path / "server")
    process.start()
    yield process
    process.stop()


class Routers:
    """Makes routers that use one server."""

    def __init__(self, folder: Path, server: RedisProcess) -> None:
        self.pods = folder / "pods.yaml"
        self.pods.write_text(PODS)
        self.secret = folder / "secret"
        self.secret.write_text(SECRET)
        self.address = f"redis://127.0.0.1:{server.port}/0"

    def app(self, **changes: object) -> App:
        values: dict[str, object] = {
            "endpoints": self.pods,
            "grpc_host": "127.0.0.1",
            "grpc_port": 0,
            "admin_port": 0,
            "peering": self.address,
            "peer_secret_file": self.secret,
            "startup_timeout_seconds": 0.5,
            "drain_timeout_seconds": 1.0,
            "outlier_ejection": False,
            **changes,
        }
        return App(Settings(**values))

    @asynccontextmanager
    async def run(self, count: int = 2, **changes: object) -> AsyncIterator[list[App]]:
        """Run so many routers."""
        async with AsyncExitStack() as stack:
            apps = []
            for _ in range(count):
                app = self.app(**changes)
                stack.push_async_callback(app.stop)
                apps.append(app)
            await asyncio.gather(*(app.start() for app in apps))
            yield apps


def connected(app: App) -> bool:
    assert app.peering is not None
    assert app.peering.redis is not None
    return app.peering.redis.broadcasts.is_connected


async def all_meet(apps: list[App]) -> None:
    await until(lambda: all(peers(app) == len(apps) - 1 for app in apps), 60)


@pytest.mark.usefixtures("patient_peers")
@pytest.mark.parametrize("count", [2, 3])
async def test_routers_learn_from_each_other_what_is_in_flight(
    tmp_path: Path, server: RedisProcess, count: int
) -> None:
    async with Routers(tmp_path, server).run(count) as apps:
        await all_meet(apps)
        reservation = apps[0].fleet.ledger.reserve(pod(apps[0]), "a")
        await until(lambda: all(seen(app) == 1 for app in apps[1:]))
        reservation.release()
        await until(lambda: all(seen(app) == 0 for app in apps[1:]))

        details = apps[0].readiness().details
        assert isinstance(details["peers"], dict)
        assert len(details["peers"]) == count - 1
        assert details["redis"] == {
            "address": f"redis://127.0.0.1:{server.port}/0",
            "prefix": "lora-router",
            "connected": True,
        }
        page = apps[0].telemetry.page().decode()
        assert f"lora_router_peers {count - 1}.0" in page
        assert "lora_router_redis_connected 1.0" in page
        assert sum(app.peering.hub.counts.rejected[cause] for app in apps if app.peering
                   for cause in app.peering.hub.counts.rejected) == 0  # fmt: skip


async def test_a_router_that_joins_knows_what_is_in_flight_before_it_is_ready(
    tmp_path: Path, server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peering_module, "_JOIN_SECONDS", 30.0)
    routers = Routers(tmp_path, server)
    async with routers.run(1) as [first]:
        first.fleet.ledger.reserve(pod(first), "a")
        await until(lambda: b":1" in server.call("EXISTS", "{lora-router}:routers"))

        for _ in range(10):
            second = routers.app()
            try:
                await second.start()
                # On a busy machine, the first one may have been silent for so long that it counted
                # as gone.
                assert seen(second) == peers(second)
                if peers(second):
                    return
            finally:
                await second.stop()
    raise AssertionError("no router found the first one")


@pytest.mark.usefixtures("patient_peers")
async def test_a_router_that_stops_is_forgotten_at_once_and_leaves_nothing_behind(
    tmp_path: Path, server: RedisProcess
) -> None:
    routers = Routers(tmp_path, server)
    async with routers.run(1) as [first]:
        second = routers.app()
        await second.start()
        await all_meet([first, second])
        second.fleet.ledger.reserve(pod(second), "a")
        await until(lambda: seen(first) == 1)

        await second.stop()

        await until(lambda: peers(first) == 0)
        assert first.peering is not None
        assert first.peering.hub.counts.left == 1
        assert seen(first) == 0
    assert server.call("DBSIZE") == b":0\r\n"


async def test_with_the_server_away_routers_forget_each_other_and_come_back_by_themselves(
    tmp_path: Path, server: RedisProcess
) -> None:
    async with Routers(tmp_path, server).run(2) as apps:
        await all_meet(apps)
        apps[0].fleet.ledger.reserve(pod(apps[0]), "a")
        await until(lambda: seen(apps[1]) == 1)

        server.stop()
        await until(lambda: not any(peers(app) or connected(app) for app in apps), 60)
        assert seen(apps[1]) == 0
        assert apps[0].readiness().ready

        server.start()  # Without anything that was stored.
        await all_meet(apps)
        await until(lambda: seen(apps[1]) == 1)


async def test_a_router_starts_and_is_ready_without_the_server(
    tmp_path: Path, server: RedisProcess
) -> None:
    server.stop()
    async with Routers(tmp_path, server).run(2) as apps:
        assert all(app.readiness().ready for app in apps)

        server.start()
        await all_meet(apps)


async def test_fleets_with_different_prefixes_do_not_see_each_other(
    tmp_path: Path, server: RedisProcess
) -> None:
    routers = Routers(tmp_path, server)
    async with (
        routers.run(2, peering_prefix="eu") as europe,
        routers.run(2, peering_prefix="us") as america,
    ):
        await all_meet(europe)
        await all_meet(america)


@pytest.mark.usefixtures("patient_peers")
async def test_a_router_without_the_secret_is_no_peer(tmp_path: Path, server: RedisProcess) -> None:
    routers = Routers(tmp_path, server)
    async with routers.run(2) as apps:
        await all_meet(apps)
        stranger = routers.app(peer_secret_file=None, peer_allow_unauthenticated=True)
        try:
            await stranger.start()
            await until(lambda: rejected(apps[0], "unauthenticated") > 2)
            assert [peers(app) for app in apps] == [1, 1]
        finally:
            await stranger.stop()


@pytest.mark.usefixtures("patient_peers")
@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"x" * 100_000], ids=len)
async def test_garbage_on_the_channel_is_counted_and_harms_nothing(
    tmp_path: Path, server: RedisProcess, data: bytes
) -> None:
    async with Routers(tmp_path, server).run(2) as apps:
        await all_meet(apps)
        before = sum(app.peering.hub.counts.silent for app in apps if app.peering)

        await server.publish(CHANNEL, data, times=20)

        await until(
            lambda: rejected(apps[0], "malformed") + rejected(apps[0], "unauthenticated") == 20
        )
        assert sum(app.peering.hub.counts.silent for app in apps if app.peering) == before


async def test_a_text_that_is_longer_than_any_state_ends_the_connection_and_not_the_router(
    tmp_path: Path, server: RedisProcess
) -> None:
    async with Routers(tmp_path, server).run(2) as apps:
        await all_meet(apps)

        await server.publish(CHANNEL, bytes(16 * 1024 * 1024))

        await until(lambda: not any(connected(app) for app in apps))
        await all_meet(apps)


async def test_after_a_flood_routers_are_peers_again(tmp_path: Path, server: RedisProcess) -> None:
    async with Routers(tmp_path, server).run(2) as apps:
        await all_meet(apps)

        await server.publish(CHANNEL, b"flood", times=8000)

        apps[0].fleet.ledger.reserve(pod(apps[0]), "a")
        await until(lambda: seen(apps[1]) == 1, 60)


async def test_a_wrong_password_is_logged_without_it(
    tmp_path: Path, server: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    server.call("CONFIG", "SET", "requirepass", "the-right-one")
    routers = Routers(tmp_path, server)
    routers.address = f"redis://:the-wrong-one@127.0.0.1:{server.port}"
    async with routers.run(1):
        await until(lambda: "no peering over redis://127.0.0.1" in caplog.text)

    assert "the-wrong-one" not in caplog.text
    assert "WRONGPASS" in caplog.text or "invalid username-password" in caplog.text


async def test_the_password_can_be_in_a_file(tmp_path: Path, server: RedisProcess) -> None:
    server.call("CONFIG", "SET", "requirepass", "the-right-one")
    password = tmp_path / "password"
    password.write_text("the-right-one\n")
    async with Routers(tmp_path, server).run(2, peering_password_file=password) as apps:
        await all_meet(apps)
