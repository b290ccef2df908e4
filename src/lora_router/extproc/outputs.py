"""What a session has its transport do."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EndStream:
    """End the stream with this gRPC status. Nothing can be sent after it."""

    code: int
    message: str


Output = bytes | EndStream
"""A message to be sent, or the end."""
Outputs = Sequence[Output]
"""In order; none where nothing is to be sent."""
