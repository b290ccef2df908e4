"""Header blocks (HPACK, RFC 7541): decoding with ``hpack``, and encoding of constant blocks.

A gateway sends the same block with every request, so decoded blocks are remembered. The meaning of
a block also depends on the dynamic table, so:

- A block is remembered only if it left the table unchanged. Then it has no effect but its meaning.
- All remembered blocks are forgotten when the table changes.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from lora_router.grpc_server.violations import ErrorCode, PeerError

Headers = Sequence[tuple[bytes, bytes]]
T = TypeVar("T")

_REMEMBERED_BLOCKS = 64
"""A gateway sends one block, or a few if it sends metadata. The limit keeps a client that invents
blocks from using memory."""


_SIZE_UPDATES = re.compile(rb"(?:\x3f[\x80-\xff]*[\0-\x7f]|[\x20-\x3e])+")
"""Updates of the table size, which only the start of a block may have (RFC 7541, section 4.2)."""
_MOST_UPDATES_BYTES = 16
"""An encoder needs at most two updates. A block full of them would be slow to decode."""


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

    __slots__ = ("_decoder", "_interpret", "_known", "_table", "_unchanged")

    def __init__(self, interpret: Callable[[Headers], T], max_list_bytes: int) -> None:
        """Create a reader with an empty dynamic table.

        Args:
            interpret: Converts headers to the value that is remembered. A pure function. Its
                exceptions are not remembered.
            max_list_bytes: Maximum size of a decoded list. A longer one ends the connection.
        """
        self._interpret = interpret
        self._decoder = Decoder(max_list_bytes)
        self._table = self._decoder.header_table = _WatchedTable()
        self._known: dict[bytes, T] = {}
        self._unchanged = True

    def read(self, block: bytes) -> T:
        """Return the interpreted value of a block of request headers.

        Raises:
            PeerError: The block cannot be decoded.
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
        """
        before = self._table.generation
        updates = _SIZE_UPDATES.match(block)
        if updates is not None and updates.end() > _MOST_UPDATES_BYTES:
            raise PeerError(
                ErrorCode.COMPRESSION_ERROR, "too many updates of the header table size"
            )
        try:
            headers = list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError:
            raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, "header list too long") from None
        except (HPACKError, IndexError, ValueError) as error:
            raise PeerError(
                ErrorCode.COMPRESSION_ERROR, f"headers cannot be decoded: {error}"
            ) from None
        self._unchanged = updates is None and self._table.generation == before
        if not self._unchanged:
            self._known.clear()
        return headers


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
