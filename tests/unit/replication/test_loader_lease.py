"""Which of several routers loads adapters, where all of them receive requests."""

import asyncio
import logging

import pytest

from lora_router.config.settings import Settings
from lora_router.discovery.kubernetes_api import ApiError, Credentials
from lora_router.replication.kubernetes_lease import LeaseName
from lora_router.replication.leadership import LeaseOptions
from lora_router.replication.loader_lease import LoaderLease, loader_lease_name
from lora_router.supervision import Supervisor
from tests.unit.replication.lease_server import Connection, LeaseServer
from tests.unit.replication.routers import now
from tests.unit.replication.virtual_time import in_virtual_time

OPTIONS = LeaseOptions(LeaseName("models", "l-loader"), 6, Credentials())


def loader(connection: Connection, name: str) -> LoaderLease:
    lease = LoaderLease(name, OPTIONS, Supervisor(clock=now), clock=now, open_store=connection.open)
    lease.start()
    lease.campaign()
    return lease


def test_one_router_loads_and_another_takes_over_within_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        server = LeaseServer()
        first = loader(Connection(server), "a")
        await asyncio.sleep(1)
        second = loader(Connection(server), "b")
        await asyncio.sleep(60)
        assert (first.loads, second.loads) == (True, False)
        assert second.status()["adapter_loader"] == {
            "lease": "models/l-loader",
            "loads": False,
            "loader": "a",
            "since": first.leadership.election.claim.acquired,
        }
        await first.resign()
        assert not first.loads
        await asyncio.sleep(1)
        assert second.loads
        await second.resign()

    in_virtual_time(scenario())
    assert "loads adapters: this router holds lease models/l-loader" in caplog.text
    assert "does not load adapters: a holds lease models/l-loader" in caplog.text


def test_a_router_that_cannot_use_the_lease_loads_nothing_and_says_why() -> None:
    async def scenario() -> None:
        connection = Connection(LeaseServer())
        connection.failure = ApiError("forbidden", "status 403: no")
        lease = loader(connection, "a")
        await asyncio.sleep(60)
        assert not lease.loads
        shown = lease.status()["adapter_loader"]
        assert isinstance(shown, dict)
        assert shown["error"].startswith("status 403: no (the Role needs create for leases")
        await lease.resign()

    in_virtual_time(scenario())


def test_the_lease_has_the_name_of_the_routers() -> None:
    assert loader_lease_name("routers") == "routers-loader"
    assert len(loader_lease_name("r" * 253)) == 253
    peers = Settings(peer_service="ml/routers", peer_allow_unauthenticated=True)
    assert peers.routers_name == "routers"
    assert peers.model_copy(update={"lease_name": "mine"}).routers_name == "mine"
    assert Settings().routers_name == "lora-router"
