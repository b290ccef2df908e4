"""The channel of Valkey or Redis on which all routers of a fleet publish.

What is there, with ``lora-router`` as the prefix:

- the channel ``{lora-router}:reports``,
- the sorted set ``{lora-router}:routers`` of all routers with the times until which they are there,
- the text ``{lora-router}:state:ROUTER`` with the router's last complete report.

All expires. The braces keep it on one node of a cluster, to which each router has two connections:
one listens, the other publishes and stores. After an error on either, both are made anew.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Iterable
from typing import Any

from lora_router.log_limit import LogLimit
from lora_router.peering.broadcast import Broadcasts
from lora_router.peering.hub import Hub
from lora_router.peering.limits import MAX_BROADCAST_PEERS, MAX_STATE_BYTES, MAX_WEIGHT
from lora_router.peering.publications import STATE_SECONDS
from lora_router.peering.redis_connection import (
    PasswordError,
    RedisConnection,
    RedisServer,
    ReplyError,
    reading,
)
from lora_router.peering.redis_location import RedisLocation
from lora_router.peering.secret import Secret
from lora_router.supervision import Supervisor

log = logging.getLogger("lora_router.peering")

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 2.0
_GOOD_SECONDS = 2.0
"""After a connection that lasted so long, the next attempt follows soon."""
_GIVEN_UP_PAUSE_SECONDS = 5.0
"""Time until the next attempt after this router left the channel because of a flood."""
_THERE_SECONDS = 1.0
"""How often this router says that it is there, and asks for the time."""
_GONE_SECONDS = 3.0
"""A router that has not said so for this long is not there."""
_FLUSH_SECONDS = 0.5
"""Time to publish that this router leaves."""
_YIELD_MESSAGES, _YIELD_BYTES = 50, 16 * 1024
"""Messages that are read before other tasks get their turn: about 2 ms of work."""


class RedisChannel:
    """Keeps the connections, and carries what is published."""

    def __init__(
        self,
        hub: Hub,
        server: RedisServer,
        supervisor: Supervisor,
        *,
        secret: Secret | None,
    ) -> None:
        """Create it without connections.

        Args:
            hub: All peers.
            server: The server.
            supervisor: Runs the task.
            secret: Signs what is published.
        """
        self.broadcasts = Broadcasts(hub, secret)
        self.server = server
        self._name = hub.name
        self._supervisor = supervisor
        prefix = server.prefix
        self._channel = f"{{{prefix}}}:reports"
        self._routers = f"{{{prefix}}}:routers"
        self._state_of = f"{{{prefix}}}:state:"
        self._location = RedisLocation(server, self._channel)
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[bytes] = deque()
        """What is to be published."""
        self._state: bytes | None = None
        """What is to be stored."""
        self._there_at = 0.0
        self._has_waiting = asyncio.Event()
        self._given_up = ""
        self._ends: asyncio.Event | None = None
        self._stopping = False
        self._is_gone = False
        """Whether the server knows that this router has left."""
        self._random = random.Random()
        self._limit = LogLimit(60.0)

    # The channel, for the broadcasts

    @property
    def is_ready(self) -> bool:
        """Whether nothing that was published still waits to be sent."""
        return not self._waiting

    def publish(self, data: bytes) -> None:
        """Publish as soon as the connection takes it."""
        self._waiting.append(data)
        self._has_waiting.set()

    def store(self, state: bytes) -> None:
        """Keep a state for routers that join."""
        self._state = state

    def give_up(self, why: str) -> None:
        """End the connections, and connect again after a while."""
        self._given_up = self._given_up or why
        if self._ends is not None:
            self._ends.set()

    # The part

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        return {
            "address": str(self.server.address),
            "prefix": self.server.prefix,
            "connected": self.broadcasts.is_connected,
        }

    def start(self) -> None:
        """Connect, and stay connected."""
        self._task = self._supervisor.keep("peer-redis", self._keep)

    def has_joined(self) -> bool:
        """Return whether every router that is there has reported."""
        return self.broadcasts.has_joined()

    async def stop(self) -> None:
        """Publish what waits, and end the connections."""
        self._stopping = True
        self._has_waiting.set()
        task = self._task
        if task is None:
            return
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                while self.broadcasts.is_connected and not self._is_gone:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        except TimeoutError:
            log.debug("the last message was not published in time")
        task.cancel()

    async def _keep(self) -> None:
        """Keep the connections."""
        import redis

        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopping:
            began = loop.time()
            self._given_up = ""
            try:
                await self._exchange()
                why = self._given_up
            except (redis.RedisError, OSError, PasswordError, ReplyError) as error:
                why = str(error) or type(error).__name__
            self._limit.log(
                log,
                logging.WARNING,
                "redis",
                "no peering over %s, channel %s: %s",
                self.server.address,
                self._channel,
                why,
            )
            if loop.time() - began >= _GOOD_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            longest = _GIVEN_UP_PAUSE_SECONDS if self._given_up else pause
            await asyncio.sleep(longest * self._random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        await asyncio.Event().wait()

    async def _exchange(self) -> None:
        """Connect, and carry messages until a connection breaks or is given up."""
        open_connections: list[RedisConnection] = []
        try:
            found = await self._location.find()
            listens = await found.connect()
            open_connections.append(listens)
            publishes = await found.connect()
            open_connections.append(publishes)
            # Listen first, so that nothing is missed between the stored states and the channel.
            await listens.subscribe(self._channel)
            members = await self._members(publishes)
            await self._use_states(publishes, members)
            self._waiting.clear()
            self._state = None
            self._there_at = 0.0
            self._ends = asyncio.Event()
            self.broadcasts.connected(self, members)
            log.info("peering over %s", self.server.address)
            await self._carry(listens, publishes)
        finally:
            self.broadcasts.disconnected()
            self._ends = None
            for connection in open_connections:
                await connection.close()

    async def _carry(self, listens: RedisConnection, publishes: RedisConnection) -> None:
        assert self._ends is not None  # noqa: S101 -- the caller has set it
        ends = self._ends
        tasks = (
            asyncio.create_task(self._listen(listens, ends), name="peer-redis-reads"),
            asyncio.create_task(self._publish(publishes, ends), name="peer-redis-writes"),
        )
        for task in tasks:
            task.add_done_callback(lambda _task: ends.set())
        try:
            await ends.wait()
        finally:
            # The client can lose a cancellation that arrives together with a reply. So the tasks
            # also look at the event whenever a reply or a message has arrived.
            ends.set()
            for task in tasks:
                task.cancel()
            self._has_waiting.set()
            for connection in (listens, publishes):
                await connection.close()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _members(self, connection: RedisConnection) -> list[str]:
        """Return the routers that were there lately. Take over the time of the server."""
        [time] = await connection.call(("TIME",))
        seconds = _seconds(time)
        self.broadcasts.set_time(seconds)
        [names] = await connection.call(
            (
                *("ZRANGEBYSCORE", self._routers, str(seconds), "+inf"),
                *("LIMIT", "0", str(MAX_BROADCAST_PEERS)),
            )
        )
        with reading():
            texts = [name.decode(errors="replace") for name in names[:MAX_BROADCAST_PEERS]]
        # The name of a router is valid Unicode. What replaces other bytes is in no name.
        return [text for text in texts if "\ufffd" not in text]

    async def _use_states(self, connection: RedisConnection, members: Iterable[str]) -> None:
        """Use the stored states of routers, one after the other.

        Whoever can write there stores what they like: it is dropped before the next one is read,
        and no more is read than the reports of all peers may take.
        """
        size = 0
        for router in members:
            [state] = await connection.call(
                ("GETRANGE", self._state_of + router, "0", str(MAX_STATE_BYTES - 1))
            )
            if not isinstance(state, bytes):
                raise ReplyError("a stored state is no text")
            size += len(state)
            if size > MAX_WEIGHT:
                self._limit.log(
                    log,
                    logging.WARNING,
                    "states",
                    "the stored states of %s are too large: the first %d bytes are used",
                    self.server.prefix,
                    MAX_WEIGHT,
                )
                return
            for _ in self.broadcasts.use_state(state):
                await asyncio.sleep(0)

    async def _listen(self, connection: RedisConnection, ends: asyncio.Event) -> None:
        number = size = 0
        while not ends.is_set():
            message = await connection.next_message()
            self.broadcasts.arrived(message)
            number, size = number + 1, size + len(message)
            if number >= _YIELD_MESSAGES or size >= _YIELD_BYTES:
                number = size = 0
                await asyncio.sleep(0)

    async def _publish(self, connection: RedisConnection, ends: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        while not ends.is_set():
            await self._has_waiting.wait()
            self._has_waiting.clear()
            while self._waiting or (self._stopping and not self._is_gone):
                if ends.is_set():
                    return
                number = len(self._waiting)
                commands: list[tuple[bytes | str, ...]] = [
                    ("PUBLISH", self._channel, data) for data in self._waiting
                ]
                is_there = self._stopping or loop.time() - self._there_at >= _THERE_SECONDS
                if is_there:
                    self._there_at = loop.time()
                    commands += self._presence()
                replies = await connection.call(*commands)
                # Only now, so that the channel is not ready while the server is slow.
                for _ in range(number):
                    self._waiting.popleft()
                if is_there:
                    self._is_gone = self._stopping
                    self.broadcasts.set_time(_seconds(replies[-1]))

    def _presence(self) -> list[tuple[bytes | str, ...]]:
        """Return the commands that say whether this router is there, and until when."""
        state_key = self._state_of + self._name
        now = self.broadcasts.time()
        if self._stopping:
            return [("ZREM", self._routers, self._name), ("DEL", state_key), ("TIME",)]
        commands: list[tuple[bytes | str, ...]] = [
            ("ZADD", self._routers, str(now + _GONE_SECONDS), self._name),
            ("ZREMRANGEBYSCORE", self._routers, "-inf", f"({now}"),
            ("PEXPIRE", self._routers, str(int(STATE_SECONDS * 1000))),
        ]
        if self._state is not None:
            milliseconds = str(int(STATE_SECONDS * 1000))
            commands.append(("SET", state_key, self._state, "PX", milliseconds))
            self._state = None
        return [*commands, ("TIME",)]


def _seconds(reply: Any) -> float:
    """Return the time that a server tells, in seconds since 1970."""
    if not isinstance(reply, list):
        raise ReplyError("an answer has no time")
    with reading():
        seconds, microseconds = reply
        return int(seconds) + int(microseconds) / 1_000_000
