"""The end of validity of a certificate."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from lora_router.extproc.x509 import expires_at


def chain(authority: trustme.CA, *ends: datetime) -> bytes:
    """Certificates that end so, one after the other in PEM."""
    issued = [authority.issue_cert("router", not_after=end) for end in ends]
    return b"".join(each.cert_chain_pems[0].bytes() for each in issued)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize(
    "end",
    [
        datetime(2027, 2, 28, 12, 30, 15, tzinfo=UTC),
        datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2050, 1, 1, tzinfo=UTC),  # From here on in the other format.
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
)
def test_the_end_is_read_in_both_formats(authority: trustme.CA, end: datetime) -> None:
    assert expires_at(chain(authority, end)) == end.timestamp()


def test_of_a_chain_the_first_end_counts(authority: trustme.CA) -> None:
    ends = [datetime(year, 6, 1, tzinfo=UTC) for year in (2032, 2029, 2040)]

    assert expires_at(b"text\n" + chain(authority, *ends)) == ends[1].timestamp()


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"])
def test_what_holds_no_certificate_is_an_error(pem: bytes) -> None:
    with pytest.raises(ValueError, match=r"no certificate|ends early"):
        expires_at(pem)


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA) -> bytes:
    return chain(authority, datetime(2030, 1, 1, tzinfo=UTC))


@given(changes=st.lists(st.tuples(st.floats(0, 1), st.sampled_from(b"AZaz09+/=-\n")), min_size=1))
def test_a_damaged_certificate_is_an_error_or_a_time(
    certificate: bytes, changes: list[tuple[float, int]]
) -> None:
    pem = bytearray(certificate)
    for place, byte in changes:
        pem[int(place * (len(pem) - 1))] = byte
    with suppress(ValueError):
        assert isinstance(expires_at(bytes(pem)), float)
