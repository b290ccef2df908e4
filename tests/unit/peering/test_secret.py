"""The secret of peers."""

from pathlib import Path

import pytest

from lora_router.peering.secret import Secret, SecretError, read_secrets

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


@pytest.mark.parametrize("text", [f"{ONE}\n{OTHER}\n", f" {ONE} \r\n {OTHER}"])
def test_a_file_may_have_two_secrets_of_which_the_first_is_sent(tmp_path: Path, text: str) -> None:
    secret = secret_in(tmp_path, text)

    assert secret.header == f"Bearer {ONE}"
    assert secret.matches(f"Bearer {ONE}".encode())
    assert secret.matches(f"Bearer {OTHER}".encode())
    assert not secret.matches(f"Bearer {ONE}\n{OTHER}".encode())


def test_a_file_with_three_secrets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="must contain 1 to 2 lines of 16 to 1024") as raised:
        secret_in(tmp_path, f"{ONE}\n{OTHER}\nthe-third-secret-of-all")
    assert ONE not in str(raised.value)


def test_what_is_signed_while_a_secret_is_changed_is_accepted_by_all(tmp_path: Path) -> None:
    """By routers that have not read the new one yet, and by those that never knew the old one."""
    changed, old = secret_in(tmp_path), secret_in(tmp_path)
    changed.use(OTHER.encode())
    new = secret_in(tmp_path, OTHER)

    signature = changed.sign(b"data")

    for each in (changed, old, new):
        assert each.has_signed(b"data", signature)
        assert changed.has_signed(b"data", each.sign(b"data"))
        assert not each.has_signed(b"other data", signature)
    assert not old.has_signed(b"data", new.sign(b"data"))


@pytest.mark.parametrize("length", [0, 1, 31, 33, 65, 96, 3200])
def test_a_signature_of_another_length_is_wrong(tmp_path: Path, length: int) -> None:
    secret = secret_in(tmp_path)
    assert not secret.has_signed(b"data", (100 * secret.sign(b"data"))[:length])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="missing: cannot be read: No such"):
        read_secrets(tmp_path / "missing")


def test_an_unusable_secret_is_not_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("püblic-key-of-some-kind")
    with pytest.raises(SecretError) as raised:
        read_secrets(tmp_path / "secret")
    assert "blic" not in str(raised.value)
