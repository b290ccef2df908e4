"""The certificate that the router makes for itself."""

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from lora_router.extproc.self_signed import VALID_DAYS, SelfSigned
from lora_router.extproc.tls import load_tls, read_tls
from lora_router.readable_content import readable

DAY = 86400.0


@dataclass
class Wall:
    """A clock on the wall."""

    seconds: float = datetime(2026, 11, 28, tzinfo=UTC).timestamp()

    def now(self) -> float:
        return self.seconds


def test_it_is_valid_for_a_year_and_an_hour_before() -> None:
    wall = Wall()
    certificate, _ = SelfSigned(wall.now).current()
    read = x509.load_pem_x509_certificate(certificate)
    assert read.not_valid_after_utc.timestamp() == wall.seconds + VALID_DAYS * DAY
    assert read.not_valid_before_utc.timestamp() < wall.seconds


def test_it_is_the_same_until_its_last_month_begins() -> None:
    wall = Wall()
    own = SelfSigned(wall.now)
    first = read_tls(own)
    wall.seconds += (VALID_DAYS - 31) * DAY
    assert read_tls(own) == first

    wall.seconds += 2 * DAY

    assert read_tls(own) != first
    assert load_tls(own).contents == read_tls(own)


def test_a_server_accepts_http2_with_it_and_tells_when_it_ends() -> None:
    wall = Wall()
    identity = load_tls(SelfSigned(wall.now))
    assert identity.expires == wall.seconds + VALID_DAYS * DAY

    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_alpn_protocols(["h2"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(incoming, outgoing)
    theirs = identity.context.wrap_bio(outgoing, incoming, server_side=True)
    for _ in range(3):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ours.selected_alpn_protocol() == theirs.selected_alpn_protocol() == "h2"


def test_its_key_is_shown_nowhere() -> None:
    own = SelfSigned()
    _, key = own.current()
    secret = key.decode().splitlines()[1]
    for shown in (repr(own), str(own), own.shown, repr(load_tls(own)), repr(read_tls(own))):
        assert secret not in shown


@pytest.mark.parametrize("in_memory", [True, False])
def test_nobody_else_can_read_the_file_that_openssl_reads(
    in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    with readable(b"secret") as path:
        assert Path(path).read_bytes() == b"secret"
        assert in_memory or not Path(path).stat().st_mode & 0o077
    assert in_memory or not Path(path).exists()
