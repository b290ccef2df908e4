"""How long a router waits before it opens the next stream to an address. No I/O."""

import random

from lora_router.peering.conversation import Conversation

GREETING_SECONDS = 1.5
"""Time for the connection and the greeting of a peer. Linux sends the first packet of a connection
again after a second. So routers meet within about a second after a partition, whenever it ends."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 1.0
_GOOD_SECONDS = 1.0
"""After an attempt that lasted so long, the next one follows soon."""
_REDUNDANT_PAUSE_SECONDS = 5.0
"""Time until the next attempt at a second address of a peer."""
_ITSELF_PAUSE_SECONDS = 60.0
"""Time until the next attempt at an address that is this router's own."""


class Reconnection:
    """The pauses between the streams to one address."""

    __slots__ = ("_pause", "_random")

    def __init__(self, rng: random.Random) -> None:
        self._random = rng
        self._pause = _FIRST_PAUSE_SECONDS

    def pause_after(self, conversation: Conversation, lasted: float) -> float:
        """Return the seconds until the next attempt.

        Args:
            conversation: The stream that ended.
            lasted: Seconds from the attempt to its end.
        """
        if conversation.is_itself:
            return _ITSELF_PAUSE_SECONDS
        if conversation.is_redundant:
            return _REDUNDANT_PAUSE_SECONDS
        pause = _FIRST_PAUSE_SECONDS if lasted >= _GOOD_SECONDS else self._pause
        self._pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        return pause * self._random.uniform(0.5, 1.0)
