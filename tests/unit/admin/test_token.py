"""The token in a file, and the sessions of browsers that it signs."""

import os
from pathlib import Path

import pytest

from lora_router.admin.token import REREAD_SECONDS, SESSION_SECONDS, Token, TokenError, read_token

FIRST, SECOND = "the-first-token-of-all", "the-second-token-of-all"


class Clock:
    seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{FIRST}\n")
    return file


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def token(file: Path, clock: Clock) -> Token:
    return Token(file, now=clock, wall=clock)


@pytest.mark.parametrize(
    ("header", "is_sent"),
    [
        (f"Bearer {FIRST}", True),
        (f"bearer {FIRST}", True),
        (f"Bearer {SECOND}", False),
        (f"Bearer {FIRST[:-1]}", False),
        (f"Basic {FIRST}", False),
        ("Bearer", False),
        ("Bearer \udce9", False),
        ("", False),
    ],
)
def test_a_header_has_the_token_or_not(token: Token, header: str, is_sent: bool) -> None:
    assert token.is_sent_in(header) is is_sent


@pytest.mark.parametrize(
    "content", ["", "short", "with a space in it ......", "x" * 1025, "é" * 20]
)
def test_a_file_without_a_usable_token_is_named_and_the_content_is_not(
    file: Path, content: str
) -> None:
    file.write_text(content)

    with pytest.raises(TokenError, match=r"admin_token_file: .*token: must contain") as caught:
        read_token(file)
    assert not content or content not in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenError, match=r"admin_token_file: .*nothing: cannot be read: No such"):
        Token(tmp_path / "nothing")


async def test_another_token_in_the_file_replaces_the_first_one(
    token: Token, file: Path, clock: Clock
) -> None:
    session = token.new_session()
    file.write_text(SECOND)

    await token.refresh()
    assert token.matches(FIRST), "the file was read a moment ago"

    clock.seconds += REREAD_SECONDS
    await token.refresh()
    assert token.matches(SECOND)
    assert not token.matches(FIRST)
    assert not token.has_signed(session), "sessions end with the token that they began with"


async def test_a_file_that_becomes_unusable_leaves_the_token_as_it_was(
    token: Token, file: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text("short")
    clock.seconds += REREAD_SECONDS

    await token.refresh()

    assert token.matches(FIRST)
    assert "the last one stays in use" in caplog.text
    assert FIRST not in caplog.text


async def test_a_file_system_that_hangs_delays_a_request_for_a_limited_time(
    token: Token, file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_router.admin.token.READ_SECONDS", 0.01)
    file.unlink()
    os.mkfifo(file)
    clock.seconds += REREAD_SECONDS

    await token.refresh()
    assert token.matches(FIRST)

    with file.open("w") as pipe:  # Ends the read, and with it the thread.
        pipe.write(SECOND)
    while not token.matches(SECOND):
        await token.refresh()


def test_a_session_ends_after_some_hours(token: Token, clock: Clock) -> None:
    session = token.new_session()
    assert token.has_signed(session)
    assert FIRST not in session

    clock.seconds += SESSION_SECONDS
    assert not token.has_signed(session)


@pytest.mark.parametrize(
    "forged", ["", ".", "9999999999.", "9999999999.00", "x.y", "²." + "0" * 64]
)
def test_a_session_that_was_not_signed_is_none(token: Token, forged: str) -> None:
    assert not token.has_signed(forged)


def test_a_session_cannot_be_made_longer(token: Token) -> None:
    until, _, signature = token.new_session().partition(".")

    assert not token.has_signed(f"{int(until) + 1}.{signature}")
