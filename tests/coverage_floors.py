"""Holds the coverage of the request path: ``python -m tests.coverage_floors`` after the tests.

The floor of the whole project stands in ``pyproject.toml``. The packages here decide and carry
every request, so each has a floor of its own. It reads the data that ``make test COVERAGE=1`` has
written.
"""

import io
import sys

from coverage import Coverage

FLOORS = {"routing": 90, "fleet": 90, "extproc": 90, "grpc_server": 90}
"""By package of ``lora_router``: percent of lines and branches."""


def main() -> int:
    """Print a line for each package; return 1 if one is below its floor."""
    coverage = Coverage()
    coverage.load()
    status = 0
    for package, floor in FLOORS.items():
        covered = coverage.report(include=[f"*/lora_router/{package}/*"], file=io.StringIO())
        verdict = "" if covered >= floor else f": below {floor} %"
        status = status if covered >= floor else 1
        print(f"coverage of {package}: {covered:.1f} %{verdict}")
    return status


if __name__ == "__main__":
    sys.exit(main())
