"""Finds the Valkey or Redis that has the keys of a fleet: by its address, or by asking.

Sentinels, or the nodes of a cluster, are asked one after the other. One that is dead costs a
second. So the one that answered last is asked first, and all connections that are made at the same
time use one answer.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lora_router.peering.redis_address import CLUSTER, SENTINEL
from lora_router.peering.redis_connection import (
    RedisConnection,
    RedisServer,
    ReplyError,
    connect,
    connection_options,
    reading,
)

_Host = tuple[str, int]
_Ask = Callable[[_Host, dict[str, Any]], Awaitable[_Host]]


@dataclass(frozen=True, slots=True, repr=False)
class FoundServer:
    """Where the server is now. It has no ``repr``, because the options have the password."""

    host: str
    port: int
    options: dict[str, Any]

    async def connect(self) -> RedisConnection:
        """Connect to it. Raises what ``redis_connection.connect`` does."""
        return await connect(self.host, self.port, self.options)


class RedisLocation:
    """Finds the server, and knows who answered last."""

    def __init__(self, server: RedisServer, key: str) -> None:
        """Create it.

        Args:
            server: The server.
            key: The key that it must have, if it is a node of a cluster.
        """
        self._address = server.address
        self._server = server
        self._key = key
        self._answered: _Host | None = None
        """The Sentinel or node that answered last."""

    async def find(self) -> FoundServer:
        """Return where the server is.

        Raises:
            PasswordError: ``password_file`` cannot be used.
            redis.RedisError: Nobody knows, or all refuse this router.
            ReplyError: The answers cannot be used.
            OSError: The TLS files cannot be used.
        """
        address = self._address
        options = await connection_options(self._server)
        host, port = address.hosts[0]
        if address.kind == SENTINEL:
            host, port = await self._ask_all(self._ask_sentinel, options, "no Sentinel answers")
        elif address.kind == CLUSTER:
            host, port = await self._ask_all(self._ask_node, options, "no node answers")
        return FoundServer(host, port, {**options, "db": address.database})

    async def _ask_all(self, ask: _Ask, options: dict[str, Any], failure: str) -> _Host:
        import redis

        last: Exception = redis.ConnectionError(failure)
        for host in self._hosts():
            try:
                found = await ask(host, options)
            except (redis.RedisError, OSError, ReplyError) as error:
                last = error
                continue
            self._answered = host
            return found
        raise last

    def _hosts(self) -> Iterator[_Host]:
        """Yield whom to ask, the one that answered last first."""
        if self._answered is not None:
            yield self._answered
        for host in self._address.hosts:
            if host != self._answered:
                yield host

    async def _ask_sentinel(self, host: _Host, options: dict[str, Any]) -> _Host:
        """Return which server is the master."""
        import redis

        # A Sentinel usually needs no password, and then refuses one.
        without = {**options, "username": None, "password": None}
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.master)
        try:
            reply = await _ask(host, without, command)
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError):
            if options["password"] is None:
                raise
            reply = await _ask(host, options, command)
        if reply is None:
            raise redis.ConnectionError(f"the Sentinels know no master {self._address.master!r}")
        with reading():
            return reply[0].decode(), int(reply[1])

    async def _ask_node(self, host: _Host, options: dict[str, Any]) -> _Host:
        """Return which node of the cluster has the key."""
        import redis
        from redis.crc import key_slot

        slot = key_slot(self._key.encode())
        slots = await _ask(host, options, ("CLUSTER", "SLOTS"))
        with reading():
            for first, final, node, *_replicas in slots:
                if first <= slot <= final:
                    # A node that does not know its own address answers without one.
                    return (node[0] or b"").decode() or host[0], int(node[1])
        raise redis.ConnectionError(f"no node of the cluster has slot {slot}")


async def _ask(host: _Host, options: dict[str, Any], command: tuple[str, ...]) -> Any:
    connection = await connect(*host, options)
    try:
        [reply] = await connection.call(command)
    finally:
        await connection.close()
    return reply
