"""The end of validity of certificates, which Python's ``ssl`` does not tell of one's own.

Source: RFC 5280, section 4.1 (the structure) and 4.1.2.5 (the two formats of a time).
"""

import binascii
import re
from datetime import UTC, datetime

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE = 0x30
_VERSION = 0xA0
_UTC_TIME = 0x17
_GENERALIZED_TIME = 0x18
_BEFORE_VALIDITY = 3
"""Serial number, signature algorithm and issuer stand before the validity."""


def expires_at(pem: bytes) -> float:
    """Return when the first certificate of a chain expires, in seconds since 1970.

    Raises:
        ValueError: It contains no certificate, or one that cannot be read.
    """
    chain = _PEM.findall(pem)
    if not chain:
        raise ValueError("no certificate")
    return min(_not_after(binascii.a2b_base64(text)) for text in chain)


def _not_after(der: bytes) -> float:
    certificate = _Reader(der).enter(_SEQUENCE).enter(_SEQUENCE)
    if certificate.tag == _VERSION:
        certificate.skip()
    for _ in range(_BEFORE_VALIDITY):
        certificate.skip()
    validity = certificate.enter(_SEQUENCE)
    validity.skip()
    return _time(validity.tag, validity.value())


def _time(tag: int, value: bytes) -> float:
    text = value.decode("ascii")
    if tag == _UTC_TIME:  # A year of two digits, from 1950 to 2049.
        text = ("20" if text < "50" else "19") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("not a time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


class _Reader:
    """Reads the values in a DER structure, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def tag(self) -> int:
        """The tag of the next value."""
        return self._byte(self._at)

    def value(self) -> bytes:
        """Return the content of the next value, and go behind it."""
        length = self._byte(self._at + 1)
        start = self._at + 2
        if length & 0x80:  # The length of the length.
            octets = length & 0x7F
            length = int.from_bytes(self._data[start : start + octets], "big")
            start += octets
        if start + length > len(self._data):
            raise ValueError("the structure ends early")
        self._at = start + length
        return self._data[start : self._at]

    def skip(self) -> None:
        """Go behind the next value."""
        self.value()

    def enter(self, tag: int) -> "_Reader":
        """Return a reader of what the next value contains, and go behind it."""
        if self.tag != tag:
            raise ValueError(f"unexpected tag {self.tag:#x}")
        return _Reader(self.value())

    def _byte(self, at: int) -> int:
        if at >= len(self._data):
            raise ValueError("the structure ends early")
        return self._data[at]
