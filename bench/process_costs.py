"""What a process costs: its CPU time and its memory. Linux only: it reads ``/proc``."""

import ctypes
import time
from contextlib import suppress
from pathlib import Path

_libc = ctypes.CDLL(None)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time, user and system, that a process has used so far, with all its threads.

    From the process's own clock (clock_getcpuclockid(3)), whose steps are nanoseconds; those of
    ``/proc/PID/stat`` are hundredths of a second.

    Raises:
        ProcessLookupError: There is no such process.
    """
    clock = ctypes.c_int()
    if _libc.clock_getcpuclockid(ctypes.c_int(pid), ctypes.byref(clock)) != 0:
        raise ProcessLookupError(f"no process {pid}")
    return time.clock_gettime(clock.value)


def memory_bytes(pid: int) -> int:
    """Return what a process has in memory now (VmRSS)."""
    return _status_bytes(pid, "VmRSS")


def peak_memory_bytes(pid: int) -> int:
    """Return the most that a process has had in memory, since ``forget_peak`` (VmHWM)."""
    return _status_bytes(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Make what a process has in memory now its peak (proc(5), ``clear_refs``).

    Where the kernel does not let us, the peak stays that of the process's whole life.
    """
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise ProcessLookupError(f"process {pid} has no {field}: it has ended")
