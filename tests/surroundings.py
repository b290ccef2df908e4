"""Keeps the user's environment away from the tests.

A variable that the router, a library or a terminal program reads must not decide whether a test
passes: ``LORA_ROUTER_GRPC_PORT``, ``KUBECONFIG``, ``http_proxy``, ``COLUMNS``, ``TZ``, and so on.
So the tests and all processes that they start see a short list of variables, an empty home
folder, UTC, and UTF-8. Programs that need the network (pip, Go) get the user's environment.
"""

import atexit
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

_KEPT = frozenset({
    *("PATH", "USER", "LOGNAME", "TMPDIR", "LD_LIBRARY_PATH", "PYENV_ROOT", "KUBEBUILDER_ASSETS"),
    *("XDG_CACHE_HOME", "HOME", "TZ", "LC_ALL", "PYTHONUTF8", "SSL_CERT_FILE", "SSL_CERT_DIR"),
})  # fmt: skip
_USERS = "TESTS_USERS_"
"""Prefix under which the user's variables wait for ``users_environment``."""
_KEPT_PREFIXES = ("PYTEST_", "COV_", "COVERAGE_", "HYPOTHESIS_", "FAULTS_", _USERS)


def isolate() -> None:
    """Replace the process's environment. Called once, before a test module is imported."""
    # A worker of pytest-xdist inherits the isolated environment of its parent, and what the
    # parent's libraries added to it: readline sets COLUMNS.
    if "PYTEST_XDIST_WORKER" not in os.environ:
        _set_aside(dict(os.environ))
    for name in [name for name in os.environ if not _is_kept(name)]:
        del os.environ[name]
    # Compiled modules are kept, those of the tests included: rewriting the assertions of all tests
    # takes as long as all else that their collection does.
    sys.dont_write_bytecode = False
    os.umask(0o022)
    time.tzset()


def _set_aside(users: dict[str, str]) -> None:
    home = tempfile.mkdtemp(prefix="tests-home-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ.update({_USERS + name: value for name, value in users.items()})
    # The programs that `scripts/kube-test-server` builds are in the user's cache.
    if "XDG_CACHE_HOME" not in users and (users_home := _home(users)) is not None:
        os.environ["XDG_CACHE_HOME"] = str(users_home / ".cache")
    os.environ.update({"HOME": home, "TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"})
    # No test trusts the machine's certificate authorities, and reading them takes 30 ms each time.
    os.environ.update({"SSL_CERT_FILE": f"{home}/none.pem", "SSL_CERT_DIR": f"{home}/none"})


def users_environment() -> dict[str, str]:
    """Return the environment in which the tests were started: pip's index, Go's proxy."""
    return {
        name.removeprefix(_USERS): value
        for name, value in os.environ.items()
        if name.startswith(_USERS)
    }


def _is_kept(name: str) -> bool:
    return name in _KEPT or name.startswith(_KEPT_PREFIXES)


def _home(users: dict[str, str]) -> Path | None:
    if users.get("HOME"):
        return Path(users["HOME"])
    try:
        return Path.home()
    except RuntimeError:  # No HOME, and the user has no entry in /etc/passwd.
        return None
