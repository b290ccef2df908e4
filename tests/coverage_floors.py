"""Holds the coverage of the request path: ``python -m tests.coverage_floors`` after the tests.

The floor of the whole project stands in ``pyproject.toml``. The packages here decide and carry
every request, so each has a floor of its own. It joins the data that the processes of ``make test
COVERAGE=1`` have written, into the file where the ``coverage`` command finds them.
"""

import io
import sys

from coverage import Coverage

from tests.parts import COVERAGE

FLOORS = {"routing": 90, "fleet": 90, "extproc": 90, "grpc_server": 90}
"""By package of ``lora_router``: percent of lines and branches."""


def main() -> int:
    """Print all files, and a line for each package; return 1 if a floor is not held."""
    coverage = Coverage()
    coverage.erase()
    coverage.combine([str(file) for file in COVERAGE.glob("*/.coverage*")])
    coverage.save()
    floor = coverage.get_option("report:fail_under")
    status = 0 if coverage.report() >= float(str(floor)) else 1
    print(f"coverage of the project: {'held' if not status else 'below'} {floor} %")
    for package, floor in FLOORS.items():
        covered = coverage.report(include=[f"*/lora_router/{package}/*"], file=io.StringIO())
        verdict = "" if covered >= floor else f": below {floor} %"
        status = status if covered >= floor else 1
        print(f"coverage of {package}: {covered:.1f} %{verdict}")
    return status


if __name__ == "__main__":
    sys.exit(main())
