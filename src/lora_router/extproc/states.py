"""The states of a session: how far its request has progressed."""

from enum import IntEnum


class State(IntEnum):
    """The state of a session. Integers, because ``hash`` of other enumerations is slow."""

    START = 0
    """No message has been received."""
    WHOLE_BODY = 1
    """The body may name the model and arrives in one message. The headers have been answered."""
    PIECES = 2
    """The body may name the model and arrives in pieces. The headers have not been answered."""
    HELD = 3
    """The request is held. Its body is complete, or its headers decided."""
    HELD_WITH_TRAILERS = 4
    """As ``HELD``, and the trailers have arrived. They are answered after the pod is picked."""
    PASSING = 5
    """The pod was picked without the body, which is still arriving."""
    ROUTED = 6
    """The pod was picked, and the body is complete."""
    ANSWERED = 7
    """A response began before a pod was picked. The request is not routed."""
    OVER = 8
    """The request was refused, or the stream has ended. Further messages are not read."""


# Module-level names, because each access to a member of an enumeration searches its class.
START, WHOLE_BODY, PIECES, HELD, HELD_WITH_TRAILERS, PASSING, ROUTED, ANSWERED, OVER = State

UNDECIDED = (START, WHOLE_BODY, PIECES, HELD, HELD_WITH_TRAILERS)
"""The states in which the gateway waits for the decision. If the router ends the stream in one of
them, it answers the client first: a gateway that fails open would forward the request as it is."""
