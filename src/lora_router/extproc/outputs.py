"""What a session returns to its transport."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec import Struct


@dataclass(frozen=True, slots=True)
class EndStream:
    """Ends the stream with a gRPC status. Nothing can be sent after it."""

    code: int
    message: str
    answer: bytes = field(default=b"", compare=False)
    """The message to send before it: the answer to a client whose request is not decided. Without
    one, a gateway that fails open would forward the request as it is. Empty: there is none."""


class BodyPiece(Struct, frozen=True, gc=False):
    """A message in two parts, of which the second is long, so that nobody needs to copy it."""

    head: bytes
    body: memoryview

    def joined(self) -> bytes:
        """Return the message."""
        return b"".join((self.head, self.body))


Output = bytes | BodyPiece | EndStream
"""A message to send, or the end of the stream."""
Outputs = Sequence[Output]
"""In the order of sending. Empty: nothing to send."""
