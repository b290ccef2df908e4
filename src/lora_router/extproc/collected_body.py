"""A request body that arrives in pieces, while the answer to the headers waits."""

from lora_router.extproc.events import Message, RequestBody


class CollectedBody:
    """The pieces that have arrived."""

    __slots__ = ("ends", "pieces", "size")

    def __init__(self, *, ends: bool = False) -> None:
        """Create a body without pieces.

        Args:
            ends: Whether the request ends with its headers.
        """
        self.ends = ends
        """Whether the request has ended, without trailers."""
        self.pieces: list[Message] = []
        """In order of arrival. None has been answered."""
        self.size = 0

    def add(self, piece: RequestBody) -> None:
        """Append the next piece."""
        self.pieces.append(piece.body)
        self.size += len(piece.body)
        self.ends = piece.ends

    def whole(self) -> Message:
        """Return all pieces as one body."""
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)

    def forget_contents(self) -> None:
        """Retain only the number of pieces, because their bytes are not sent back."""
        self.pieces = [b""] * len(self.pieces)
        self.size = 0
