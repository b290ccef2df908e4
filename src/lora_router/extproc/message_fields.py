"""Fields of the messages to Envoy as bytes, for answers that are put together without Protobuf."""

# The tags of HeaderMutation; HeaderValueOption; HeaderValue.
_SET_HEADER = b"\x0a"
_HEADER = b"\x0a"
_NAME, _RAW_VALUE = b"\x0a", b"\x1a"

OVERWRITE = b"\x18\x02"
"""Follows the value of a header that is set: an earlier value is overwritten."""


def field(tag: bytes, value: bytes) -> bytes:
    """Return a field of bytes."""
    return field_head(tag, len(value)) + value


def field_head(tag: bytes, size: int) -> bytes:
    """Return the tag and the length of a field."""
    encoded = bytearray(tag)
    while size > 0x7F:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    encoded.append(size)
    return bytes(encoded)


def set_header(name: str, value: bytes) -> bytes:
    """Return the field of a header mutation that sets a header."""
    return before_value(name, len(value)) + value + OVERWRITE


def before_value(name: str, size: int) -> bytes:
    """Return what precedes the value of a header that is set. ``OVERWRITE`` follows the value."""
    header = field(_NAME, name.encode()) + field_head(_RAW_VALUE, size)
    option = field_head(_HEADER, len(header) + size) + header
    return field_head(_SET_HEADER, len(option) + size + len(OVERWRITE)) + option
