"""What a header block has, found without decoding it (RFC 7541, section 6).

Decoding costs some µs for each field, and for each few bytes of a Huffman code. The peer pays one
byte for a field, so a long block is looked at before it is decoded. No I/O.
"""

from dataclasses import dataclass, field

from lora_router.grpc_server.violations import ErrorCode, PeerError

ENTRY_OVERHEAD = 32
"""Bytes that each field counts beyond its name and value (RFC 9113, section 6.5.2)."""

_INDEXED, _CHANGES_TABLE, _SIZE_UPDATE = 0x80, 0x40, 0x20
_LONGEST_INTEGER = 10


@dataclass(slots=True)
class Outline:
    """The fields of a block."""

    list_bytes: int = 0
    """What the fields count at least. Encoders use a Huffman code only where it is shorter."""
    changes: list[bytes] = field(default_factory=list)
    """The fields that change the dynamic table, as sent."""


def outline(block: bytes, most_fields: int) -> Outline:
    """Return what a block has.

    Args:
        block: The block, from its first field on: without updates of the table size.
        most_fields: The number of fields over which the block is refused.

    Raises:
        PeerError: The block is malformed, or has too many fields.
    """
    found = Outline()
    fields, at, size = 0, 0, len(block)
    try:
        while at < size:
            start, first = at, block[at]
            fields += 1
            if fields > most_fields:
                raise PeerError(
                    ErrorCode.ENHANCE_YOUR_CALM, f"header list with more than {most_fields} fields"
                )
            found.list_bytes += ENTRY_OVERHEAD
            if first & _INDEXED:
                _, at = _integer(block, at, 0x7F)
                continue
            changes = first & _CHANGES_TABLE
            if not changes and first & _SIZE_UPDATE:
                raise _malformed()
            name, at = _integer(block, at, 0x3F if changes else 0x0F)
            for _ in range(1 if name else 2):
                length, at = _integer(block, at, 0x7F)
                at += length
                found.list_bytes += length
            if changes:
                found.changes.append(block[start:at])
    except IndexError:
        raise _malformed() from None
    if at != size:
        raise _malformed()
    return found


def _integer(block: bytes, at: int, most: int) -> tuple[int, int]:
    """Return a number whose first byte has some bits for it, and where it ends."""
    number = block[at] & most
    at += 1
    if number < most:
        return number, at
    for shift in range(0, 7 * _LONGEST_INTEGER, 7):
        byte = block[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise _malformed()


def _malformed() -> PeerError:
    return PeerError(ErrorCode.COMPRESSION_ERROR, "headers cannot be decoded")
