"""Header blocks (HPACK, RFC 7541): decoding with ``hpack``, and encoding of constant blocks.

A gateway sends the same block with every request, so decoded blocks are remembered. The meaning of
a block also depends on the dynamic table, so:

- A block is remembered only if it left the table unchanged. Then it has no effect but its meaning.
- All remembered blocks are forgotten when the table changes.

A list that is too long is refused before it is decoded (``outline``). Only its fields that change
the table are decoded, because later blocks depend on it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from lora_router.grpc_server.outline import outline
from lora_router.grpc_server.violations import ErrorCode, PeerError, StreamError

Headers = Sequence[tuple[bytes, bytes]]
T = TypeVar("T")

_REMEMBERED_BLOCKS = 64
"""A gateway sends one block, or a few if it sends metadata. The limit keeps a client that invents
blocks from using memory."""


_SIZE_UPDATES = re.compile(rb"(?:\x3f[\x80-\xff]*[\0-\x7f]|[\x20-\x3e])+")
"""Updates of the table size, which only the start of a block may have (RFC 7541, section 4.2)."""
_MOST_UPDATES_BYTES = 16
"""An encoder needs at most two updates. A block full of them would be slow to decode."""


_MOST_FIELDS = 256
"""Fields of a block. A gateway sends about 10. Each costs some µs, and the peer one byte."""


class ListTooLongError(StreamError):
    """A list of headers is longer than this server reads. It was not decoded."""

    def __init__(self, list_bytes: int) -> None:
        super().__init__(ErrorCode.ENHANCE_YOUR_CALM, "header list too long")
        self.list_bytes = list_bytes


class _WatchedTable(HeaderTable):
    """A dynamic table that counts its additions."""

    def __init__(self) -> None:
        super().__init__()
        self.generation = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.generation += 1
        super().add(name, value)


class BlockReader(Generic[T]):
    """Decodes the header blocks of a connection. It must see all of them, in order."""

    __slots__ = ("_decoder", "_interpret", "_known", "_read_bytes", "_table", "_unchanged")

    def __init__(
        self,
        interpret: Callable[[Headers], T],
        max_list_bytes: int,
        read_bytes: int | None = None,
    ) -> None:
        """Create a reader with an empty dynamic table.

        Args:
            interpret: Converts headers to the value that is remembered. A pure function. Its
                exceptions are not remembered.
            max_list_bytes: Maximum size of a decoded list. A longer one ends the connection.
            read_bytes: Size of a list over which it is refused without decoding it, as far as that
                shows. Default: ``max_list_bytes``.
        """
        self._interpret = interpret
        self._read_bytes = max_list_bytes if read_bytes is None else read_bytes
        self._decoder = Decoder(max_list_bytes)
        self._table = self._decoder.header_table = _WatchedTable()
        self._known: dict[bytes, T] = {}
        self._unchanged = True

    def read(self, block: bytes) -> T:
        """Return the interpreted value of a block of request headers.

        Raises:
            PeerError: The block cannot be decoded.
            ListTooLongError: The list is too long.
            StreamError: Raised by ``interpret``.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        headers = self.decode(block)
        meaning = self._interpret(headers)
        if self._unchanged and len(self._known) < _REMEMBERED_BLOCKS:
            self._known[block] = meaning
        return meaning

    def decode(self, block: bytes) -> Headers:
        """Return the headers of a block without interpreting them.

        Raises:
            PeerError: The block cannot be decoded.
            ListTooLongError: The list is too long.
        """
        before = self._table.generation
        updates = _SIZE_UPDATES.match(block)
        if updates is not None and updates.end() > _MOST_UPDATES_BYTES:
            raise PeerError(
                ErrorCode.COMPRESSION_ERROR, "too many updates of the header table size"
            )
        if len(block) > _MOST_FIELDS:  # Shorter ones cannot have too much.
            self._check_length(block, 0 if updates is None else updates.end())
        headers = self._decode(block)
        self._unchanged = updates is None and self._table.generation == before
        if not self._unchanged:
            self._known.clear()
        return headers

    def _check_length(self, block: bytes, updates: int) -> None:
        found = outline(block[updates:], _MOST_FIELDS)
        if found.list_bytes <= self._read_bytes:
            return
        if sum(map(len, found.changes)) > self._read_bytes:
            raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, "header list too long")
        self._known.clear()
        self._unchanged = False
        self._decode(block[:updates] + b"".join(found.changes))
        raise ListTooLongError(found.list_bytes)

    def _decode(self, block: bytes) -> Headers:
        try:
            return list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError:
            raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, "header list too long") from None
        except (HPACKError, IndexError, ValueError) as error:
            raise PeerError(
                ErrorCode.COMPRESSION_ERROR, f"headers cannot be decoded: {error}"
            ) from None


def literals(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Encode headers as literals without indexing, so the block does not depend on a table."""
    return b"".join(b"\x00" + _string(name) + _string(value) for name, value in headers)


def _string(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    size -= 127
    length = bytearray((127,))
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return bytes(length) + text
