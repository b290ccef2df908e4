"""The tests do not notice the user's environment: a part of them runs again in a hostile one."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lora_router.config.settings import AIBRIX_NAMES, Settings
from tests.surroundings import users_environment

ROOT = Path(__file__).parents[2]
QUICK = ("-k", "not slow or serve")
"""Of the slow tests, only those that start a router."""
PORTS = (8080, 50052, 10080, 9901)
HOSTILE: dict[str, str] = {
    **{f"LORA_ROUTER_{name.upper()}": "nonsense" for name in Settings.model_fields},
    **dict.fromkeys(AIBRIX_NAMES, "nonsense"),
    **dict.fromkeys(
        (f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "GRPC")), "http://127.0.0.1:9"
    ),
    **dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), "http://127.0.0.1:9"),
    "KUBECONFIG": "/nowhere/kubeconfig",
    "KUBERNETES_SERVICE_HOST": "127.0.0.1",
    "KUBERNETES_SERVICE_PORT": "9",
    "CI": "true",
    "GITHUB_ACTIONS": "true",
    "TERM": "dumb",
    "COLUMNS": "40",
    "LINES": "5",
    "NO_COLOR": "1",
    "FORCE_COLOR": "1",
    "LC_ALL": "C",
    "LANG": "C",
    "TZ": "Pacific/Kiritimati",
    "PYTHONSTARTUP": "/nowhere/startup.py",
    "SSL_CERT_FILE": "/nowhere/ca.pem",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    "UNHEARD_OF": "1",
}
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *QUICK)
PART = (
    "tests/unit/config/test_settings.py",
    "tests/unit/test_cli.py",
    "tests/unit/telemetry",
    "tests/unit/scrape/test_report.py",
    "tests/unit/discovery/test_pods_file.py",
    "tests/unit/test_surroundings.py::test_the_environment_of_a_test_is_short",
)


@pytest.fixture
def taken_ports() -> Iterator[None]:
    """Somebody listens where the defaults say; also on a machine where somebody does already."""
    with ExitStack() as stack:
        for port in PORTS:
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("0.0.0.0", port))
            except OSError:
                continue
            listener.listen()
        yield


def test_the_environment_of_a_test_is_short() -> None:
    names = {name for name in os.environ if not name.startswith("TESTS_USERS_")}
    prefixes = ("PYTEST_", "COV_", "COVERAGE_", "HYPOTHESIS_")

    assert {name for name in names if not name.startswith(prefixes)} <= {
        *("PATH", "USER", "LOGNAME", "TMPDIR", "LD_LIBRARY_PATH", "PYENV_ROOT"),
        *("KUBEBUILDER_ASSETS", "XDG_CACHE_HOME"),
        *("HOME", "TZ", "LC_ALL", "PYTHONUTF8", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        # A test of the command line in the same process sets these.
        *("GRPC_VERBOSITY", "PYDANTIC_DISABLE_PLUGINS"),
    }
    # Not the folder: clients of the Kubernetes tests keep a cache there.
    assert not (Path(os.environ["HOME"]) / ".kube" / "config").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("taken_ports")
def test_a_hostile_environment_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o500)
    users = users_environment()
    kept = {name: users[name] for name in ("PATH", "TMPDIR") if name in users}

    read_only = {"HOME": str(tmp_path / "home")}
    runs: list[tuple[dict[str, str], tuple[str, ...]]] = [({}, PART), (read_only, PART[-2:])]
    for home, part in runs:
        done = subprocess.run(
            [*PYTEST, *part],
            cwd=ROOT,
            env=HOSTILE | kept | home,
            umask=0o077,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
