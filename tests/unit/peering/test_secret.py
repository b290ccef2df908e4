"""The secret of peers."""

from pathlib import Path

import pytest

from lora_router.peering.secret import Secret, SecretError, read_secret

ONE, OTHER = "the-first-secret-of-all", "the-second-secret-of-all"


def secret_in(folder: Path, text: str = ONE) -> Secret:
    path = folder / "secret"
    path.write_text(f"  {text}\n")
    return Secret(path)


def test_only_the_secret_matches(tmp_path: Path) -> None:
    secret = secret_in(tmp_path)

    assert secret.header == f"Bearer {ONE}"
    assert secret.matches(secret.header.encode())
    for wrong in (b"", b"Bearer ", ONE.encode(), b"Bearer x", f"bearer {ONE}".encode()):
        assert not secret.matches(wrong)


def test_while_a_secret_is_changed_the_one_before_it_is_accepted(tmp_path: Path) -> None:
    secret = secret_in(tmp_path)
    before = secret.header.encode()

    secret.use(OTHER.encode())
    secret.use(OTHER.encode())
    assert secret.header == f"Bearer {OTHER}"
    assert secret.matches(before)

    secret.use(b"the-third-secret-of-all")
    assert not secret.matches(before)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="missing: cannot be read: No such"):
        read_secret(tmp_path / "missing")


def test_an_unusable_secret_is_not_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("püblic-key-of-some-kind")
    with pytest.raises(SecretError) as raised:
        read_secret(tmp_path / "secret")
    assert "blic" not in str(raised.value)
