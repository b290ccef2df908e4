"""What a session returns to its transport."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EndStream:
    """Ends the stream with a gRPC status. Nothing can be sent after it."""

    code: int
    message: str


Output = bytes | EndStream
"""A message to send, or the end of the stream."""
Outputs = Sequence[Output]
"""In the order of sending. Empty: nothing to send."""
