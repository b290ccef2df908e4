"""CPU time and memory of a process. Linux only: it reads ``/proc``."""

import ctypes
import time
from contextlib import suppress
from pathlib import Path

_libc = ctypes.CDLL(None)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time, user and system, that all threads of a process have used so far.

    It is read from the process's own clock (clock_getcpuclockid(3)), which has a resolution of
    nanoseconds. ``/proc/PID/stat`` has a resolution of 10 ms.

    Raises:
        ProcessLookupError: The process does not exist.
    """
    clock = ctypes.c_int()
    if _libc.clock_getcpuclockid(ctypes.c_int(pid), ctypes.byref(clock)) != 0:
        raise ProcessLookupError(f"no process {pid}")
    return time.clock_gettime(clock.value)


def memory_bytes(pid: int) -> int:
    """Return the resident memory of a process (VmRSS)."""
    return _status_bytes(pid, "VmRSS")


def peak_memory_bytes(pid: int) -> int:
    """Return the peak resident memory of a process since ``forget_peak`` (VmHWM)."""
    return _status_bytes(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Reset the peak of a process to its resident memory (proc(5), ``clear_refs``).

    If the kernel does not permit it, the peak remains that of the whole life of the process.
    """
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise ProcessLookupError(f"process {pid} has no {field}: it has exited")
