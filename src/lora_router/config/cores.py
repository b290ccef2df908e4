"""The number of cores that this process may use."""

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup/cpu.max")
"""Quota and period in microseconds, or ``max`` and the period: the limit of a container."""


def cores(cgroup: Path = _CGROUP) -> int:
    """Return the cores that the scheduler and the limit of the container allow, at least 1."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = cgroup.read_text().split()[:2]
        limit = math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return allowed  # There is no limit.
    return max(1, min(allowed, limit))
