"""A server that speaks the protocol of Redis, and answers what the test says."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answer = Callable[[list[bytes]], bytes]
"""Returns the reply to a command, as it is sent."""


def text(value: bytes) -> bytes:
    """Return a text as it is sent."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def array(*elements: bytes) -> bytes:
    """Return an array as it is sent."""
    return b"*%d\r\n%b" % (len(elements), b"".join(elements))


def usual(command: list[bytes], *routers: bytes) -> bytes:
    """Return what a server with these routers answers."""
    name = command[0].upper()
    if name == b"TIME":
        return array(text(b"1800000000"), text(b"0"))
    if name == b"ZRANGEBYSCORE":
        return array(*map(text, routers))
    if name == b"GETRANGE":
        return text(b"")
    if name == b"SUBSCRIBE":
        return array(text(b"subscribe"), text(command[1]), b":1\r\n")
    return b":1\r\n" if name in {b"ZADD", b"PUBLISH", b"PEXPIRE"} else b"+OK\r\n"


@dataclass
class RespServer:
    """What arrived at it."""

    port: int = 0
    connections: int = 0
    commands: list[list[bytes]] = field(default_factory=list)

    def calls(self, name: bytes) -> list[list[bytes]]:
        return [each for each in self.commands if each[0].upper() == name]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[RespServer]:
    """Serve on a free port."""
    server = RespServer()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        writers.append(writer)
        try:
            while line := await reader.readline():
                command = []
                for _ in range(int(line[1:])):
                    length = int((await reader.readline())[1:])
                    command.append((await reader.readexactly(length + 2))[:-2])
                server.commands.append(command)
                writer.write(answer(command))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for writer in writers:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
