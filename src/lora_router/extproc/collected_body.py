"""A request body that arrives in pieces, while the answer to the headers waits for all of it."""

from lora_router.extproc.events import Message


class CollectedBody:
    """The pieces that have arrived."""

    __slots__ = ("pieces", "size")

    def __init__(self) -> None:
        self.pieces: list[Message] = []
        """In order of arrival. None has been answered."""
        self.size = 0

    def add(self, piece: Message) -> None:
        """Append the next piece."""
        self.pieces.append(piece)
        self.size += len(piece)

    def whole(self) -> Message:
        """Return all pieces as one body."""
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)

    def forget_contents(self) -> None:
        """Retain only the number of pieces, because their bytes are not sent back."""
        self.pieces = [b""] * len(self.pieces)
        self.size = 0
