"""A renewed certificate is used without a restart; files that cannot be used change nothing."""

import asyncio
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from lora_router.extproc import tls
from lora_router.extproc.certificate_watch import CertificateWatch
from lora_router.extproc.tls import TlsFiles, TlsIdentity, load_tls
from lora_router.grpc_server.bounds import Bounds
from lora_router.grpc_server.limits import ProcessLimits
from lora_router.supervision import Supervisor
from lora_router.yaml_document import read_file

NOW = datetime(2027, 5, 1, tzinfo=UTC)


class Server:
    """A transport, as the watch sees it."""

    port, started, open_streams = 0, True, 0
    bounds = Bounds(ProcessLimits(), small=0, call_later=lambda _seconds, _call: lambda: None)

    def __init__(self, tls: TlsIdentity) -> None:
        self.tls: TlsIdentity | None = tls
        self.changes = 0

    async def use_tls(self, identity: TlsIdentity) -> None:
        self.tls = identity
        self.changes += 1

    async def start(self) -> None:
        raise NotImplementedError

    async def set_ready(self, *, ready: bool) -> None:
        raise NotImplementedError

    async def drain(self, seconds: float) -> int:
        raise NotImplementedError


class Secret:
    """The TLS files of a mounted Kubernetes Secret, a watch of them, and its clocks."""

    def __init__(self, directory: Path, end: datetime) -> None:
        self.authority = trustme.CA()
        self.directory = directory
        self.versions = 0
        self.passed = 0.0
        self.files = TlsFiles(directory / "tls.crt", directory / "tls.key", directory / "ca.crt")
        for file in ("tls.crt", "tls.key", "ca.crt"):
            (directory / file).symlink_to(Path("..data") / file)
        self.renew(end)
        self.server = Server(load_tls(self.files))
        self.supervisor = Supervisor()
        self.watch = CertificateWatch(
            self.files,
            self.server,
            self.supervisor,
            interval=0.01,
            clock=lambda: self.passed,
            wall=lambda: NOW.timestamp() + self.passed,
        )

    def renew(self, end: datetime) -> None:
        """Replace all files at once, as the kubelet does: by a symbolic link to a new folder."""
        self.versions += 1
        folder = self.directory / f"..{self.versions}"
        folder.mkdir()
        issued = self.authority.issue_cert("router", not_after=end)
        issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
        issued.private_key_pem.write_to_path(folder / "tls.key")
        self.authority.cert_pem.write_to_path(folder / "ca.crt")
        link = self.directory / "new"
        link.symlink_to(folder.name)
        link.replace(self.directory / "..data")

    def write(self, file: str, content: bytes) -> None:
        """Change one file in place."""
        (self.directory / file).write_bytes(content)

    @property
    def folder(self) -> Path:
        return (self.directory / "..data").resolve()


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    return Secret(tmp_path, NOW + timedelta(days=30))


async def test_files_that_stay_the_same_are_not_used_again(secret: Secret) -> None:
    await secret.watch.look()

    assert secret.server.changes == 0
    assert secret.watch.status() == {"tls_certificate_expires": "2027-05-31T00:00:00Z"}
    assert secret.watch.refused_seconds == 0


async def test_a_secret_that_is_replaced_is_used(
    secret: Secret, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    secret.renew(NOW + timedelta(days=60))

    await secret.watch.look()
    await secret.watch.look()

    assert secret.server.changes == 1
    assert secret.watch.expires == (NOW + timedelta(days=60)).timestamp()
    assert caplog.messages == ["TLS certificate renewed, valid until 2027-06-30T00:00:00Z"]


async def test_other_authorities_for_clients_are_used(secret: Secret) -> None:
    secret.write("ca.crt", trustme.CA().cert_pem.bytes())

    await secret.watch.look()

    assert secret.server.changes == 1


@pytest.mark.parametrize(
    ("file", "content", "error"),
    [
        ("tls.crt", b"", "not a PEM certificate and its private key"),
        ("tls.key", b"-----BEGIN PRIVATE KEY-----\nMIIE", "not a PEM certificate and its private"),
        ("ca.crt", b"half", "contains no PEM certificates"),
    ],
)
async def test_half_a_file_changes_nothing_and_is_logged_once(
    secret: Secret, caplog: pytest.LogCaptureFixture, file: str, content: bytes, error: str
) -> None:
    before, good = secret.server.tls, (secret.folder / file).read_bytes()
    secret.write(file, content)
    for _ in range(3):
        await secret.watch.look()
        secret.passed += 5

    assert secret.server.tls is before
    assert len(caplog.messages) == 1
    assert error in caplog.text
    assert "; the last good certificate stays in use, valid until 2027-05-31" in caplog.text
    assert secret.watch.refused_seconds == 15
    assert error in str(secret.watch.status()["tls_error"])
    assert str(secret.watch.status()["tls_error"]).endswith("; for 15 s")

    secret.write(file, good)
    await secret.watch.look()

    assert secret.watch.refused_seconds == 0
    assert "tls_error" not in secret.watch.status()
    assert secret.server.changes == 0


async def test_a_certificate_whose_key_is_not_there_yet_waits_for_it(secret: Secret) -> None:
    issued = secret.authority.issue_cert("router", not_after=NOW + timedelta(days=90))
    secret.write("tls.crt", issued.cert_chain_pems[0].bytes())
    await secret.watch.look()
    assert "key values mismatch" in str(secret.watch.error)
    assert secret.server.changes == 0

    secret.write("tls.key", issued.private_key_pem.bytes())
    await secret.watch.look()

    assert (secret.watch.error, secret.server.changes) == (None, 1)


async def test_a_file_that_is_gone_changes_nothing(secret: Secret) -> None:
    (secret.directory / "..data").unlink()
    await secret.watch.look()

    assert secret.server.changes == 0
    assert "tls.crt: cannot be read: No such file" in str(secret.watch.error)


async def test_what_is_no_file_or_has_no_end_is_not_read(secret: Secret) -> None:
    for path, error in (("pipe", "it is not a regular file"), ("large", "is longer than 1048576")):
        (secret.directory / "tls.key").unlink()
        (secret.directory / "tls.key").symlink_to(secret.directory / path)
        if path == "pipe":
            os.mkfifo(secret.directory / path)
        else:
            (secret.directory / path).write_bytes(b"x" * 1048577)
        await secret.watch.look()
        assert error in str(secret.watch.error)

    assert secret.server.changes == 0


async def test_a_certificate_that_has_expired_replaces_none_that_is_valid(secret: Secret) -> None:
    secret.renew(NOW - timedelta(days=1))
    await secret.watch.look()

    assert secret.server.changes == 0
    assert "tls.crt: the certificate has expired" in str(secret.watch.error)


async def test_the_last_seven_days_are_reported_once_a_day(
    secret: Secret, caplog: pytest.LogCaptureFixture
) -> None:
    days = 0
    while days < 32:
        secret.passed = days * 86400.0
        await secret.watch.look()
        await secret.watch.look()
        days += 1

    ends = f": {secret.directory / 'tls.crt'}"
    assert len(caplog.messages) == 8
    assert caplog.messages[0] == f"the TLS certificate expires in 6.0 days{ends}"
    assert caplog.messages[-1].startswith(f"the TLS certificate expired 1.0 days ago{ends}")
    assert secret.watch.status()["tls_warning"] == f"the TLS certificate expired 1.0 days ago{ends}"


async def test_files_that_change_while_they_are_read_are_read_again(
    secret: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret.renew(NOW + timedelta(days=60))
    reads = 0

    def read_and_renew(path: Path, *, max_bytes: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads == 7:  # Each look reads three files, and then loads them.
            secret.renew(NOW + timedelta(days=61))
        return read_file(path, max_bytes=max_bytes)

    with monkeypatch.context() as patched:
        patched.setattr(tls, "read_file", read_and_renew)
        await secret.watch.look()
    assert "changed while it was read" in str(secret.watch.error)
    await secret.watch.look()

    assert secret.watch.expires == (NOW + timedelta(days=61)).timestamp()


async def test_the_files_are_followed_from_the_start_on(secret: Secret) -> None:
    secret.watch.start()
    for days in (60, 61):
        secret.renew(NOW + timedelta(days=days))
        async with asyncio.timeout(60):
            while secret.watch.expires != (NOW + timedelta(days=days)).timestamp():
                await asyncio.sleep(0.01)
    await secret.supervisor.stop()
