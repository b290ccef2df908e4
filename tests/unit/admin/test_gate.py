"""Who may see the page and ``/debug``."""

import asyncio
from pathlib import Path

import pytest

from lora_router.admin.gate import (
    MISSING,
    MOST_WAITING,
    NOT_SERVED,
    TOO_MANY,
    WRONG,
    WRONG_HOST,
    Gate,
    Refusal,
    is_loopback,
)
from lora_router.admin.token import Token

RIGHT = "a-token-that-is-right"


async def refusal(
    gate: Gate, host: str = "localhost:8080", authorization: str = "", session: str = ""
) -> Refusal | None:
    return await gate.refusal(
        host=host, authorization=authorization, session=session, sender="192.0.2.1"
    )


@pytest.fixture
def token(tmp_path: Path) -> Token:
    file = tmp_path / "token"
    file.write_text(RIGHT)
    return Token(file)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("::", False),
        ("0.0.0.0", False),
        ("192.0.2.7", False),
        ("router.example", False),
    ],
)
def test_loopback_addresses(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("host", ["localhost", "LocalHost:18080", "127.0.0.1:1", "[::1]:8080"])
async def test_without_a_token_a_loopback_address_is_open(host: str) -> None:
    assert await refusal(Gate("127.0.0.1", None), host) is None


async def test_the_address_that_the_server_listens_on_is_a_host_too() -> None:
    assert await refusal(Gate("127.0.0.5", None), "127.0.0.5:8080") is None


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "", "[::2]:8080", "::"]
)
async def test_a_site_whose_name_stands_for_this_host_is_refused(host: str) -> None:
    assert await refusal(Gate("127.0.0.1", None), host) == (403, WRONG_HOST)


async def test_without_a_token_other_addresses_show_nothing_and_say_what_to_set() -> None:
    refused = await refusal(Gate("::", None))

    assert refused == (403, NOT_SERVED)
    assert "admin_token_file" in NOT_SERVED


@pytest.mark.parametrize("address", ["::", "127.0.0.1"])
async def test_a_token_that_is_set_is_required_on_each_address(address: str, token: Token) -> None:
    gate = Gate(address, token)

    assert await refusal(gate) == (401, MISSING)
    assert await refusal(gate, "router.example", f"Bearer {RIGHT}") is None
    assert await refusal(gate, session=token.new_session()) is None


async def test_wrong_tokens_wait_and_the_right_one_never_does(token: Token) -> None:
    goes_on = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        await goes_on.wait()

    gate = Gate("::", token, sleep=sleep)
    wrong = [
        asyncio.ensure_future(refusal(gate, authorization="Bearer wrong"))
        for _ in range(MOST_WAITING)
    ]
    await asyncio.sleep(0)

    assert await refusal(gate, authorization="Bearer wrong") == (429, TOO_MANY)
    assert await refusal(gate, authorization=f"Bearer {RIGHT}") is None

    goes_on.set()
    assert await asyncio.gather(*wrong) == [(401, WRONG)] * MOST_WAITING


async def test_a_wrong_token_is_logged_without_it(
    token: Token, caplog: pytest.LogCaptureFixture
) -> None:
    async def sleep(_seconds: float) -> None:
        pass

    await refusal(Gate("::", token, sleep=sleep), authorization="Bearer almost-the-right-one")

    assert "a wrong token for the admin port, from 192.0.2.1" in caplog.text
    assert "almost" not in caplog.text
