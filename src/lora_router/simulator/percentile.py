"""The percentile of all figures of the simulator and of the demo.

The load generator of the bench ranks differently (``bench/load.py``): its p99 is the value with
``99 * count // 100`` values below it, at most one rank above this one.
"""

import math
from collections.abc import Sequence

from lora_router.simulator.no_value import NO_VALUE


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least a share of the values do not exceed.

    Args:
        ordered: The values, smallest first. The percentile of none has no value.
        share: From 0 to 1.
    """
    if not ordered:
        return NO_VALUE
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
