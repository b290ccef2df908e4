"""Fixtures of the integration tests: most behaviour must be the same on both transports."""

import pytest

from lora_router import app
from lora_router.peering import aio_link, clients, hub, peering

TRANSPORTS = ("builtin", "grpcio")


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Each value of the setting ``transport``."""
    name: str = request.param
    return name


@pytest.fixture
def patient_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Routers that start wait as long for the first reports of peers as a starved machine needs."""
    monkeypatch.setattr(peering, "_JOIN_SECONDS", 60.0)


@pytest.fixture
def patient_peers(patient_start: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers forget a router because it leaves, and not because a starved machine silences it."""
    monkeypatch.setattr(hub, "SILENCE_SECONDS", 300.0)
    monkeypatch.setattr(app, "_STOP_PART_SECONDS", 15.0)
    for module in (clients, aio_link):
        monkeypatch.setattr(module, "_FLUSH_SECONDS", 10.0)
