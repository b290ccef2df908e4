"""What is found out before anything connects to a Valkey or Redis."""

from pathlib import Path

import pytest

from lora_router.peering import redis_connection
from lora_router.peering.redis_address import parse_address
from lora_router.peering.redis_connection import (
    PasswordError,
    RedisMissingError,
    RedisServer,
    check,
    read_password,
)

ADDRESS = parse_address("redis://cache")


def test_without_the_extra_the_start_fails_and_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_connection, "find_spec", lambda _name: None)

    with pytest.raises(RedisMissingError, match=r"pip install 'lora-router\[redis\]'"):
        check(RedisServer(ADDRESS))


def test_a_password_file_is_read_without_the_end_of_its_line(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("a pässword\n")

    check(RedisServer(ADDRESS, password_file=file))
    assert read_password(file) == "a pässword"


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"one\ntwo", b"\xff\xfe", b"x" * 5000], ids=lambda each: repr(each[:8])
)
def test_a_file_without_a_password_is_refused_without_showing_it(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)

    with pytest.raises(PasswordError, match="must contain a password on one line") as failure:
        check(RedisServer(ADDRESS, password_file=file))
    assert "two" not in str(failure.value)


def test_a_missing_password_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PasswordError, match=r"peering_password_file: .*No such file"):
        check(RedisServer(ADDRESS, password_file=tmp_path / "missing"))
