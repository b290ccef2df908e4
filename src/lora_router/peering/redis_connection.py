"""A connection to Valkey or Redis with the ``redis`` package, an extra of this one.

Connections are used directly, without the pools and retries of the package: whoever uses one here
connects anew after any error, and asks again where the server is (``redis_location``).
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_router.peering.limits import MAX_STATE_BYTES
from lora_router.peering.redis_address import RedisAddress

if TYPE_CHECKING:
    from redis.asyncio import Connection

CONNECT_SECONDS = 1.0
COMMAND_SECONDS = 1.0
LONGEST_PASSWORD = 4096
_MAX_REPLY_BYTES = MAX_STATE_BYTES + 1024
_LINE_BYTES = 32
"""Memory of an element of an array, beside its text."""


class RedisMissingError(ValueError):
    """The extra is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "peering: redis://… requires the package redis: pip install 'lora-router[redis]'"
        )


class PasswordError(ValueError):
    """The file holds no usable password. The message says why, without the password."""


class ReplyError(ValueError):
    """What the server answers cannot be used. Something else may be at its address."""


@contextmanager
def reading() -> Iterator[None]:
    """Turn whatever an answer of an unexpected form leads to into a ``ReplyError``."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ReplyError(f"an answer cannot be used: {type(error).__name__}: {error}") from None


@dataclass(frozen=True, slots=True)
class RedisServer:
    """Where the server is, and how to connect to it."""

    address: RedisAddress
    prefix: str = "lora-router"
    """Tells fleets apart that use the same server."""
    password_file: Path | None = None
    """Takes the place of the password in the address. Read for each connection."""
    tls_ca: Path | None = None
    """Authorities of the server's certificate. ``None``: those of the system."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    """What this router presents, for mutual TLS."""


def check(server: RedisServer) -> None:
    """Make sure, before anything is started, that this router can connect to a server.

    Raises:
        RedisMissingError: The extra is not installed.
        PasswordError: ``password_file`` cannot be used.
    """
    if find_spec("redis") is None:
        raise RedisMissingError
    if server.password_file is not None:
        read_password(server.password_file)


def read_password(path: Path) -> str:
    """Return the password in a file, without white space around it.

    Raises:
        PasswordError: The file cannot be read, or what it holds is not usable.
    """
    try:
        with path.open("rb") as file:
            password = file.read(LONGEST_PASSWORD + 1).strip()
    except OSError as error:
        raise PasswordError(
            f"peering_password_file: {path}: cannot be read: {error.strerror}"
        ) from None
    try:
        text = password.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or len(password) > LONGEST_PASSWORD or not text.isprintable():
        raise PasswordError(f"peering_password_file: {path}: must contain a password on one line")
    return text


class RedisConnection:
    """One connection to the server that has the keys of a fleet."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    async def call(self, *commands: Sequence[bytes | str | int]) -> list[Any]:
        """Send commands together, and return their replies in order.

        Raises:
            redis.RedisError: A command failed, or the connection broke.
            ReplyError: A reply cannot be used.
        """
        connection = self._connection
        await connection.send_packed_command(connection.pack_commands(commands))
        replies: list[Any] = []
        failure: Exception | None = None
        for _ in commands:
            try:
                with reading():
                    replies.append(await connection.read_response(disconnect_on_error=False))
            except _response_error() as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return replies

    async def subscribe(self, channel: str) -> None:
        """Listen to a channel. Afterwards, only ``next_message`` may be called."""
        await self._connection.send_command("SUBSCRIBE", channel)
        with reading():
            await self._connection.read_response()

    async def next_message(self) -> bytes:
        """Return the next message on the channel.

        Raises:
            redis.RedisError: The connection broke.
            ReplyError: Something else arrived.
        """
        with reading():
            reply = await self._connection.read_response(timeout=math.inf)
            kind, _channel, message = reply
        if kind != b"message" or not isinstance(message, bytes):
            raise ReplyError("what arrived on the channel is no message")
        return message

    async def close(self) -> None:
        """Close it, without waiting for the server."""
        await self._connection.disconnect(nowait=True)


async def connect(host: str, port: int, options: dict[str, Any]) -> RedisConnection:
    """Connect to one server.

    Raises:
        redis.RedisError: It cannot be reached, or refuses this router.
        ReplyError: What it answers cannot be used.
        OSError: The TLS files cannot be used.
    """
    from redis.asyncio import Connection, SSLConnection

    kind = SSLConnection if any(name.startswith("ssl_") for name in options) else Connection
    connection = kind(host=host, port=port, parser_class=_bounded_parser(), **options)
    try:
        with reading():
            await connection.connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return RedisConnection(connection)


async def connection_options(server: RedisServer) -> dict[str, Any]:
    """Return how to connect to a server, wherever it is.

    Raises:
        PasswordError: ``password_file`` cannot be used.
    """
    from lora_router.threads import in_thread

    address = server.address
    password = address.password
    if server.password_file is not None:
        path = server.password_file
        password = await in_thread(lambda: read_password(path), "peer-redis-password")
    options: dict[str, Any] = {
        "username": address.username,
        "password": password,
        "protocol": 2,
        "client_name": "lora-router",
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": COMMAND_SECONDS,
    }
    if address.tls:
        files = {
            "ssl_ca_certs": server.tls_ca,
            "ssl_certfile": server.tls_certificate,
            "ssl_keyfile": server.tls_key,
        }
        options |= {name: str(path) for name, path in files.items() if path is not None}
        options["ssl_check_hostname"] = True
    return options


def _response_error() -> type[Exception]:
    import redis

    error: type[Exception] = redis.ResponseError
    return error


def _bounded_parser() -> type:
    """Return a parser that reads no longer replies than routers need.

    Whoever can publish could else make each router keep a text of 512 MiB, and whoever controls the
    server an array without an end.
    """
    import redis
    from redis._parsers import _AsyncRESP2Parser

    class BoundedParser(_AsyncRESP2Parser):  # type: ignore[misc, unused-ignore]
        _left = 0
        """Bytes that the rest of a reply may have."""

        async def read_response(self, disable_decoding: bool = False) -> Any:
            self._left = _MAX_REPLY_BYTES
            return await super().read_response(disable_decoding)

        async def _readline(self) -> bytes:
            line: bytes = await super()._readline()
            self._take(len(line) + _LINE_BYTES)
            return line

        async def _read(self, length: int) -> bytes:
            self._take(length)
            text: bytes = await super()._read(length)
            return text

        def _take(self, size: int) -> None:
            self._left -= size
            if self._left < 0:
                raise redis.InvalidResponse(f"a reply is longer than {_MAX_REPLY_BYTES} bytes")

    return BoundedParser
