"""A pod that closes idle connections at the worst moment: when the next request arrives."""

import asyncio
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_MODELS = json.dumps({"object": "list", "data": [{"id": "base", "parent": None}]}).encode()


@dataclass
class HastyPod:
    """Serves ``base``. A request on a connection that was idle for too long gets no answer.

    Real servers do this for a moment only, between their decision to close a connection and the
    arrival of their FIN at the client.
    """

    name: str
    address: str = ""
    closed: int = 0
    """Requests of clients that arrived too late. Scrapes do not count."""
    _patience: int = 0
    """How often all idle connections became too old."""

    def lose_patience(self) -> None:
        """From now on, all connections that are idle have been idle for too long."""
        self._patience += 1

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        idle_since = self._patience
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if idle_since != self._patience:
                    self.closed += head.startswith(b"POST")
                    return
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        await reader.readexactly(int(line.partition(b":")[2]))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n" % len(_MODELS))
                writer.write(b"content-type: application/json\r\n\r\n" + _MODELS)
                idle_since = self._patience
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
