"""A connection to Valkey or Redis with the ``redis`` package, an extra of this one.

Connections are used directly, without the pools and retries of the package: whoever uses one here
connects anew after any error, and asks again where the server is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_router.peering.limits import MAX_STATE_BYTES
from lora_router.peering.redis_address import CLUSTER, SENTINEL, RedisAddress

if TYPE_CHECKING:
    from redis.asyncio import Connection

CONNECT_SECONDS = 1.0
COMMAND_SECONDS = 1.0
LONGEST_PASSWORD = 4096
_MAX_REPLY_BYTES = MAX_STATE_BYTES + 1024


class RedisMissingError(ValueError):
    """The extra is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "peering: redis://… requires the package redis: pip install 'lora-router[redis]'"
        )


class PasswordError(ValueError):
    """The file holds no usable password. The message says why, without the password."""


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
        """
        connection = self._connection
        await connection.send_packed_command(connection.pack_commands(commands))
        replies: list[Any] = []
        failure: Exception | None = None
        for _ in commands:
            try:
                replies.append(await connection.read_response(disconnect_on_error=False))
            except _response_error() as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return replies

    async def subscribe(self, channel: str) -> None:
        """Listen to a channel. Afterwards, only ``next_message`` may be called."""
        await self._connection.send_command("SUBSCRIBE", channel)
        await self._connection.read_response()

    async def next_message(self) -> bytes:
        """Return the next message on the channel."""
        while True:
            reply = await self._connection.read_response(timeout=math.inf)
            if isinstance(reply, list) and len(reply) == 3 and reply[0] == b"message":
                message: bytes = reply[2]
                return message

    async def close(self) -> None:
        """Close it, without waiting for the server."""
        await self._connection.disconnect(nowait=True)


async def connect(server: RedisServer, key: str) -> RedisConnection:
    """Connect to the server that has a key.

    Raises:
        PasswordError: ``password_file`` cannot be used.
        redis.RedisError: It cannot be reached, or refuses this router.
        OSError: The TLS files cannot be used.
    """
    address = server.address
    options = await _options(server)
    host, port = address.hosts[0]
    if address.kind == SENTINEL:
        host, port = await _master(address, options)
    elif address.kind == CLUSTER:
        host, port = await _node(address, options, key)
    return await _connect(host, port, {**options, "db": address.database})


async def _connect(host: str, port: int, options: dict[str, Any]) -> RedisConnection:
    from redis.asyncio import Connection, SSLConnection

    kind = SSLConnection if any(name.startswith("ssl_") for name in options) else Connection
    connection = kind(host=host, port=port, parser_class=_bounded_parser(), **options)
    try:
        await connection.connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return RedisConnection(connection)


async def _options(server: RedisServer) -> dict[str, Any]:
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


async def _master(address: RedisAddress, options: dict[str, Any]) -> tuple[str, int]:
    """Ask the Sentinels which server is the master."""
    import redis

    # A Sentinel usually needs no password, and then refuses one.
    attempts = [{**options, "username": None, "password": None}]
    if options["password"] is not None:
        attempts.append(options)
    last: Exception = redis.ConnectionError("no Sentinel answers")
    for host, port in address.hosts:
        for attempt in attempts:
            try:
                connection = await _connect(host, port, attempt)
            except (redis.RedisError, OSError) as error:
                last = error
                continue
            try:
                [reply] = await connection.call(
                    ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.master)
                )
            except (redis.RedisError, OSError) as error:
                last = error
                continue
            finally:
                await connection.close()
            if reply is not None:
                return reply[0].decode(), int(reply[1])
            last = redis.ConnectionError(f"the Sentinels know no master {address.master!r}")
    raise last


async def _node(address: RedisAddress, options: dict[str, Any], key: str) -> tuple[str, int]:
    """Ask the cluster which node has a key."""
    import redis
    from redis.crc import key_slot

    slot = key_slot(key.encode())
    last: Exception = redis.ConnectionError("no node of the cluster answers")
    for host, port in address.hosts:
        try:
            connection = await _connect(host, port, options)
        except (redis.RedisError, OSError) as error:
            last = error
            continue
        try:
            [slots] = await connection.call(("CLUSTER", "SLOTS"))
        except (redis.RedisError, OSError) as error:
            last = error
            continue
        finally:
            await connection.close()
        for first, final, node, *_replicas in slots:
            if first <= slot <= final:
                # A node that does not know its own address answers without one.
                return (node[0] or b"").decode() or host, int(node[1])
        last = redis.ConnectionError(f"no node of the cluster has slot {slot}")
    raise last


def _response_error() -> type[Exception]:
    import redis

    error: type[Exception] = redis.ResponseError
    return error


def _bounded_parser() -> type:
    """Return a parser that reads no longer texts than routers send.

    Whoever can publish could else make each router keep a text of 512 MiB.
    """
    import redis
    from redis._parsers import _AsyncRESP2Parser

    class BoundedParser(_AsyncRESP2Parser):  # type: ignore[misc, unused-ignore]
        async def _read(self, length: int) -> bytes:
            if length > _MAX_REPLY_BYTES:
                raise redis.InvalidResponse(f"a text of {length} bytes is too long")
            text: bytes = await super()._read(length)
            return text

    return BoundedParser
