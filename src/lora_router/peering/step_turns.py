"""Does long work in steps, over several turns of the event loop.

Rules:

- Each peer has at most one work. A newer one takes the place of the one before it, which is not
  continued: the newer one does what is left of it. So what waits is bounded by the peers, however
  busy the router is.
- The works take turns. While turns of the event loop are short, each of them has one step. Where
  they are long, steps get up to ``_SHARE`` of the time, so that a busy router falls behind no
  further.
- A step that fails ends its own work only.
"""

import logging

from lora_router.clock import Clock
from lora_router.steps import Steps

log = logging.getLogger("lora_router.peering")

_SHARE = 0.25
"""Of the time that the rest of a turn takes."""
_LONGEST_SECONDS = 0.005
"""In one turn no step begins after so long."""


class StepTurns:
    """The work that is not done yet."""

    def __init__(self, clock: Clock) -> None:
        """Begin without work.

        Args:
            clock: Time, which passes within a turn of the event loop too, and timers.
        """
        self._now = clock.now
        self._clock = clock
        self._left: dict[str, Steps[None]] = {}
        """By peer. The one whose turn is next comes first."""
        self._ended = 0.0
        """When steps were done last."""

    def __len__(self) -> int:
        """Return for how many peers there is work left."""
        return len(self._left)

    def __contains__(self, peer: str) -> bool:
        """Return whether there is work left for a peer."""
        return peer in self._left

    def do(self, peer: str, steps: Steps[None]) -> None:
        """Do a work instead of what is left of the last one for the same peer.

        The first step is done now, unless there is work left.
        """
        if self._left:
            self._left[peer] = steps  # It keeps its place among the others.
        elif not _is_done(steps):
            self._left[peer] = steps
            self._ended = self._now()
            self._clock.call_later(0.0, self._go_on)

    def _go_on(self) -> None:
        began = self._now()
        until = began + min(_LONGEST_SECONDS, _SHARE * (began - self._ended))
        while self._left:
            peer = next(iter(self._left))
            steps = self._left.pop(peer)
            if not _is_done(steps):
                self._left[peer] = steps
            self._ended = self._now()
            if self._ended >= until:
                break
        if self._left:
            self._clock.call_later(0.0, self._go_on)


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
