"""Finding the server by Sentinels, or by the nodes of a cluster."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest
import redis

from lora_router.peering.redis_address import parse_address
from lora_router.peering.redis_connection import RedisServer, ReplyError
from lora_router.peering.redis_location import RedisLocation
from tests.unit.peering.resp_server import Answer, RespServer, array, serving, text, usual

MASTER = array(text(b"10.0.0.7"), text(b"6379"))


def sentinel(command: list[bytes]) -> bytes:
    return MASTER if command[0] == b"SENTINEL" else usual(command)


def silent(_command: list[bytes]) -> bytes:
    return b"-LOADING it has just been started\r\n"


class LockedSentinel:
    """Needs the password on each connection."""

    def __init__(self) -> None:
        self.is_open = False

    def __call__(self, command: list[bytes]) -> bytes:
        if command[0] == b"AUTH":
            self.is_open = True
            return b"+OK\r\n"
        if not self.is_open:
            return b"-NOAUTH Authentication required.\r\n"
        return sentinel(command)


async def asked(
    stack: AsyncExitStack, answers: Sequence[Answer], user: str = ""
) -> tuple[RedisLocation, list[RespServer]]:
    servers = [await stack.enter_async_context(serving(answer)) for answer in answers]
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    address = parse_address(f"redis+sentinel://{user}{hosts}/main")
    return RedisLocation(RedisServer(address), "key"), servers


async def test_the_sentinel_that_answered_last_is_asked_first() -> None:
    async with AsyncExitStack() as stack:
        location, servers = await asked(stack, [silent, sentinel, sentinel])

        for _ in range(3):
            found = await location.find()
            assert (found.host, found.port) == ("10.0.0.7", 6379)

        assert [server.connections for server in servers] == [1, 3, 0]


async def test_a_sentinel_that_fails_is_not_asked_again_with_the_password() -> None:
    async with AsyncExitStack() as stack:
        location, servers = await asked(stack, [silent, sentinel], user=":secret@")

        await location.find()

        assert [server.connections for server in servers] == [1, 1]
        assert not any(server.calls(b"AUTH") for server in servers)


async def test_a_sentinel_that_needs_a_password_gets_it() -> None:
    async with AsyncExitStack() as stack:
        location, [server] = await asked(stack, [LockedSentinel()], user=":secret@")

        await location.find()

        assert [call[-1] for call in server.calls(b"AUTH")] == [b"secret"]


async def test_a_sentinel_that_needs_a_password_that_is_not_set_is_an_error() -> None:
    async with AsyncExitStack() as stack:
        location, _ = await asked(stack, [LockedSentinel()])

        with pytest.raises(redis.AuthenticationError):
            await location.find()


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"*-1\r\n", "know no master 'main'"),
        (array(text(b"10.0.0.7")), "an answer cannot be used"),
        (array(b":1\r\n", b":1\r\n"), "an answer cannot be used"),
    ],
    ids=["no master", "too short", "numbers"],
)
async def test_if_no_sentinel_knows_the_master_the_error_says_so(reply: bytes, error: str) -> None:
    async with AsyncExitStack() as stack:
        location, _ = await asked(
            stack, [lambda command: reply if command[0] == b"SENTINEL" else usual(command)]
        )

        with pytest.raises((redis.ConnectionError, ReplyError), match=error):
            await location.find()


async def test_the_node_that_answered_last_is_asked_first() -> None:
    slots = array(array(b":0\r\n", b":16383\r\n", array(text(b""), b":6380\r\n")))

    def node(command: list[bytes]) -> bytes:
        return slots if command[0] == b"CLUSTER" else usual(command)

    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving(each)) for each in (silent, node)]
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        location = RedisLocation(RedisServer(parse_address(f"redis+cluster://{hosts}")), "key")

        for _ in range(2):
            found = await location.find()
            assert (found.host, found.port) == ("127.0.0.1", 6380)

        assert [server.connections for server in servers] == [1, 2]


async def test_the_password_is_not_in_the_text_of_what_was_found() -> None:
    address = parse_address("redis://:very-secret@127.0.0.1:1")

    found = await RedisLocation(RedisServer(address), "key").find()

    assert found.options["password"] == "very-secret"
    assert "very-secret" not in repr(found)
