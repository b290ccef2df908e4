"""The programs of Debian's package ``prometheus``. Without them, tests are skipped."""

import pytest

from deploy.grafana.prometheus_process import binary


def program(name: str) -> str:
    """Return the path of ``prometheus`` or ``promtool``. Skips the test if there is none."""
    found = binary(name)
    if found is None:
        pytest.skip(f"no {name} on this machine (Debian's package prometheus has it)")
    return found
