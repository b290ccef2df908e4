"""What logs say about a connection that failed."""

import socket

import aiohttp
import pytest

from lora_router.connection_error import reason_of


async def error_of(url: str) -> BaseException:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError) as caught:
            await session.get(url)
    return caught.value


@pytest.mark.asyncio
async def test_a_connection_that_is_refused_is_said_as_the_system_says_it() -> None:
    with socket.socket() as bound:  # It does not listen, and nobody else gets its port.
        bound.bind(("127.0.0.1", 0))
        error = await error_of(f"http://127.0.0.1:{bound.getsockname()[1]}/")
    assert reason_of(error) == "Connection refused"


@pytest.mark.asyncio
async def test_a_name_that_cannot_be_resolved_is_said() -> None:
    reason = reason_of(await error_of("http://name.invalid/"))
    assert reason
    assert "ssl" not in reason


def test_an_error_without_a_text_has_the_name_of_its_class() -> None:
    assert reason_of(ConnectionResetError()) == "ConnectionResetError"
    assert reason_of(ValueError("bad")) == "bad"
