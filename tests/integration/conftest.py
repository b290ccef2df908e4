"""What holds, holds over either transport."""

import pytest

TRANSPORTS = ("builtin", "grpcio")


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """What carries Envoy's calls: a value of the setting ``transport``."""
    name: str = request.param
    return name
