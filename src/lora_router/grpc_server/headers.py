"""Header blocks (HPACK, RFC 7541): reading by ``hpack``, and writing blocks that never change.

A gateway sends the same block for every request, so what a block meant is remembered. What a block
means depends on the dynamic table too, so:

- only a block that left the table as it was is remembered (it then has no effect but its meaning);
- everything remembered is forgotten when the table changes.
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
"""A gateway has one block, or a few where it sends metadata; a client that invents them gets no
memory for it."""


_SIZE_UPDATES = re.compile(rb"(?:\x3f[\x80-\xff]*[\0-\x7f]|[\x20-\x3e])+")
"""Changes of the table's size; they can only stand at a block's start (RFC 7541, section 4.2)."""
_MOST_UPDATES_BYTES = 16
"""Two of them are what an encoder ever needs; a block full of them would be slow work."""


class _WatchedTable(HeaderTable):
    """A dynamic table that counts what is added."""

    def __init__(self) -> None:
        super().__init__()
        self.generation = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.generation += 1
        super().add(name, value)


class BlockReader(Generic[T]):
    """Reads a connection's header blocks, which must all come here, in order."""

    __slots__ = ("_decoder", "_interpret", "_known", "_table", "_unchanged")

    def __init__(self, interpret: Callable[[Headers], T], max_list_bytes: int) -> None:
        """Prepare to read.

        Args:
            interpret: Makes of headers what is remembered of them. A pure function; what it
                raises is not remembered.
            max_list_bytes: Size of an unpacked list past which the connection ends.
        """
        self._interpret = interpret
        self._decoder = Decoder(max_list_bytes)
        self._table = self._decoder.header_table = _WatchedTable()
        self._known: dict[bytes, T] = {}
        self._unchanged = True

    def read(self, block: bytes) -> T:
        """Return what a block of request headers means.

        Raises:
            PeerError: It cannot be decoded.
            StreamError: ``interpret`` says so.
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
        """Return the headers of a block, whatever they mean.

        Raises:
            PeerError: It cannot be decoded.
        """
        before = self._table.generation
        updates = _SIZE_UPDATES.match(block)
        if updates is not None and updates.end() > _MOST_UPDATES_BYTES:
            raise PeerError(
                ErrorCode.COMPRESSION_ERROR, "the header table's size changes all the time"
            )
        try:
            headers = list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError:
            raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, "a header list without end") from None
        except (HPACKError, IndexError, ValueError) as error:
            raise PeerError(
                ErrorCode.COMPRESSION_ERROR, f"headers that cannot be decoded: {error}"
            ) from None
        self._unchanged = updates is None and self._table.generation == before
        if not self._unchanged:
            self._known.clear()
        return headers


def literals(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write headers as literals without indexing: the block's meaning needs no table.

    Names and values must be short of 127 bytes, or take a second byte of length: up to 16 KB here.
    """
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
