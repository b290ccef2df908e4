"""Does long work of peers in steps, one in each turn of the event loop.

The work of several peers takes turns. A step that fails ends its own work only.
"""

import logging
from collections import deque
from collections.abc import Callable

from lora_router.clock import Timer
from lora_router.steps import Steps

log = logging.getLogger("lora_router.peering")


class StepTurns:
    """The work that is not done yet."""

    def __init__(self, call_later: Callable[[float, Callable[[], None]], Timer]) -> None:
        """Begin without work.

        Args:
            call_later: Calls once, after some seconds.
        """
        self._call_later = call_later
        self._left: deque[Steps[None]] = deque()

    def do(self, steps: Steps[None]) -> None:
        """Do the first step now, unless other work is not done yet, and the others in turns."""
        if self._left:
            self._left.append(steps)
        elif not _is_done(steps):
            self._left.append(steps)
            self._call_later(0.0, self._go_on)

    def _go_on(self) -> None:
        steps = self._left.popleft()
        if not _is_done(steps):
            self._left.append(steps)
        if self._left:
            self._call_later(0.0, self._go_on)


def _is_done(steps: Steps[None]) -> bool:
    """Do a step; return whether there is no further one."""
    try:
        next(steps)
    except StopIteration:
        return True
    except Exception:
        log.exception("what a peer reported could not be applied")
        return True
    return False
