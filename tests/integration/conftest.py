"""Fixtures of the integration tests: most behaviour must be the same on both transports."""

import pytest

TRANSPORTS = ("builtin", "grpcio")


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Each value of the setting ``transport``."""
    name: str = request.param
    return name
