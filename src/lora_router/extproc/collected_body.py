"""A request's body that comes in pieces, while the answer to its headers waits for all of it."""

from lora_router.extproc.events import Message


class CollectedBody:
    """The pieces so far."""

    __slots__ = ("pieces", "size")

    def __init__(self) -> None:
        self.pieces: list[Message] = []
        """In order. Each is still to be answered."""
        self.size = 0

    def add(self, piece: Message) -> None:
        """Add the next piece."""
        self.pieces.append(piece)
        self.size += len(piece)

    def whole(self) -> Message:
        """Return the body."""
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)

    def forget_contents(self) -> None:
        """Keep the number of pieces only: their bytes are not sent back."""
        self.pieces = [b""] * len(self.pieces)
