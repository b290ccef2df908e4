"""A whole router with ``replication=lease``: what it says of itself, and when it releases."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from lora_router.app import App
from lora_router.config.settings import Settings
from lora_router.replication.leadership import Leadership
from tests.unit.replication.lease_server import Connection, LeaseServer
from tests.waiting import until


@pytest.fixture
def server() -> LeaseServer:
    return LeaseServer()


@pytest_asyncio.fixture
async def make(
    server: LeaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[], App]]:
    monkeypatch.setattr(Leadership, "_open", lambda _: Connection(server).open())
    pods = tmp_path / "pods.yaml"
    pods.write_text("pods: []")
    settings = Settings(
        endpoints=pods,
        grpc_host="127.0.0.1",
        grpc_port=0,
        admin_port=0,
        drain_timeout_seconds=1.0,
        peers="127.0.0.1:1",
        replication="lease",
        lease_namespace="ml",
    )
    apps = []

    def make_app() -> App:
        apps.append(App(settings))
        return apps[-1]

    yield make_app
    for app in apps:
        await app.stop()


@pytest.mark.slow
async def test_the_leader_is_ready_and_a_standby_is_not_but_could_lead(
    make: Callable[[], App], server: LeaseServer
) -> None:
    leader, standby = make(), make()
    assert leader.readiness().reason == "the list of pods has not been read yet"

    await leader.start()
    await until(lambda: leader.readiness().ready)
    await standby.start()

    await until(lambda: "leads since" in standby.readiness().reason)
    found = standby.readiness()
    assert (found.ready, found.standby) == (False, True)
    assert server.lease is not None
    holder = server.lease.claim.holder
    assert found.reason == (
        f"standby: {holder} leads since {server.lease.claim.acquired}, and is not a peer of this "
        "router; does another fleet use lease ml/lora-router?"
    )
    assert found.details["lease"] == "ml/lora-router"
    assert leader.readiness().details["router"] == holder
    assert "lora_router_leader 1.0" in leader.telemetry.page().decode()
    assert "lora_router_leader 0.0" in standby.telemetry.page().decode()

    await leader.stop()

    await until(lambda: standby.readiness().ready)
    assert leader.readiness().reason == "shutting down"
    assert not leader.readiness().standby


async def test_a_router_that_never_started_has_nothing_to_release(
    make: Callable[[], App], server: LeaseServer
) -> None:
    await make().stop()

    assert server.versions == 0


@pytest.mark.parametrize(
    ("names", "lease"),
    [
        ({"peer_service": "ml/routers"}, "ml/routers"),
        ({"peer_service": "ml/routers", "lease_name": "l", "lease_namespace": "x"}, "x/l"),
        ({"peers": "127.0.0.1:1", "lease_namespace": "x"}, "x/lora-router"),
    ],
)
async def test_the_lease_is_named_like_the_service_of_the_routers(
    tmp_path: Path, names: dict[str, object], lease: str
) -> None:
    settings = Settings.model_validate(
        {"endpoints": tmp_path / "p", "grpc_host": "127.0.0.1", "replication": "lease", **names}
    )

    leadership = App(settings).leadership

    assert leadership is not None
    assert leadership.status()["lease"] == lease
