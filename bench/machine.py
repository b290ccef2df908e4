"""A description of the machine and its software."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from lora_router.demo.stack import envoy_binary

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


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"model name", "Model"}:
            return value.strip()
    return platform.machine()


def _total_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
