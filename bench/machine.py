"""A description of a run: when, of which commit, and on which machine and software."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from lora_router.demo.stack import envoy_binary

_ROOT = Path(__file__).parents[1]
_PACKAGES = ("grpcio", "protobuf", "uvloop", "msgspec", "aiohttp")


def notes() -> dict[str, str]:
    """Return a description of the machine and its software, by name."""
    envoy = subprocess.run(
        [envoy_binary(), "--version"], capture_output=True, text=True, check=True
    )
    return {
        "CPU": _cpu_model(),
        "cores": str(os.cpu_count()),
        "memory": f"{_total_memory_bytes() / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        # The output ends with "version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL".
        "Envoy": envoy.stdout.split("/")[-4],
        **{name: version(name) for name in _PACKAGES},
    }


def run_notes() -> dict[str, str]:
    """Return when this run is made, and of which commit, by name."""
    return {"date": datetime.now(UTC).date().isoformat(), "commit": _commit()}


def _commit() -> str:
    """Return the commit of this repository, and whether files of it have changed since."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}, with changes" if changed else commit


def _git(*arguments: str) -> str:
    command = ("git", "-C", str(_ROOT), *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"model name", "Model"}:
            return value.strip()
    return platform.machine()


def _total_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
