"""How far a request has come."""

from enum import IntEnum


class State(IntEnum):
    """The states of a session. Numbers, because they are looked up twice for each request."""

    START = 0
    """Nothing was received."""
    WHOLE_BODY = 1
    """The body names the model and comes in one message. The headers are answered."""
    PIECES = 2
    """The body names the model and comes in pieces. The headers are not answered."""
    HELD = 3
    """The body is complete, and the pod not chosen."""
    HELD_WITH_TRAILERS = 4
    """Likewise, and the trailers have come: they are answered when the pod is chosen."""
    PASSING = 5
    """The pod is chosen without the body, which is still passing."""
    ROUTED = 6
    """The pod is chosen and the body complete."""
    OVER = 7
    """The request was refused or the stream has ended. What still comes is not looked at."""


# A member of an enumeration is looked up in its class each time that it is named.
START, WHOLE_BODY, PIECES, HELD, HELD_WITH_TRAILERS, PASSING, ROUTED, OVER = State
