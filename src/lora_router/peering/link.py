"""What a conversation needs of the stream that carries it."""

from typing import NamedTuple, Protocol


class Ending(NamedTuple):
    """The status with which a stream ends."""

    code: int
    """A gRPC status code."""
    message: str


class Link(Protocol):
    """One stream."""

    @property
    def is_ready(self) -> bool:
        """Whether nothing that was sent still waits for the other side to read."""

    def send(self, message: bytes) -> None:
        """Send a message, now or when the other side reads."""

    def close(self, ending: Ending) -> None:
        """End the stream. Must not be called twice."""
