"""A request body that arrives in pieces."""

from lora_router.extproc.events import Message, RequestBody

_TRIES = 4
"""Attempts to read a body before more of it must arrive for each further attempt."""


class CollectedBody:
    """The pieces that have arrived."""

    __slots__ = ("_pieces", "_tries", "_try_at", "answers_headers", "count", "ends", "size")

    def __init__(self, *, ends: bool = False, answers_headers: bool = True) -> None:
        """Create a body without pieces.

        Args:
            ends: Whether the request ends with its headers.
            answers_headers: Whether the answer to the headers waits for the body.
        """
        self.answers_headers = answers_headers
        self.ends = ends
        """Whether the request has ended, without trailers."""
        self.count = 0
        """The number of pieces, of which none has been answered."""
        self.size = 0
        """Bytes that are kept."""
        self._pieces: list[Message] = []
        self._tries = 0
        self._try_at = 0

    def add(self, piece: RequestBody) -> None:
        """Append the next piece."""
        body = piece.body
        self.count += 1
        self.ends = piece.ends
        if body:
            self._pieces.append(body)
            self.size += len(body)

    def whole(self) -> Message:
        """Return all pieces as one body."""
        pieces = self._pieces
        if len(pieces) != 1:
            pieces[:] = (b"".join(pieces),)
        return pieces[0]

    def is_worth_a_try(self) -> bool:
        """Return whether so much has arrived since the last call that the body may be parsed."""
        if self.size < self._try_at:
            return False
        self._tries += 1
        if self._tries >= _TRIES:
            self._try_at = self.size + self.size // 4
        return True

    def forget_contents(self) -> None:
        """Retain only the number of pieces, because their bytes are not sent back."""
        self._pieces.clear()
        self.size = 0
