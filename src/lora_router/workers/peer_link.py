"""The links between workers, which carry what peers exchange (``lora_router.peering``).

Each link is a socket pair that the parent created. That it has one is a worker's proof.
"""

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable

from lora_router.peering.limits import MAX_MESSAGE_BYTES
from lora_router.peering.link import Ending
from lora_router.peering.mesh import Mesh
from lora_router.workers.descriptors import OPENS
from lora_router.workers.framing import FramedProtocol

log = logging.getLogger("lora_router.workers")

_GREETING_SECONDS = 5.0
_POLL_SECONDS = 0.01


class PeerLink(FramedProtocol):
    """A link that one conversation uses."""

    def __init__(self, mesh: Mesh, *, opens: bool, ended: Callable[[], None]) -> None:
        """Create it.

        Args:
            mesh: All links of this worker.
            opens: Whether this end greets first.
            ended: Called at the end.
        """
        super().__init__(self._message, self._over, max_bytes=MAX_MESSAGE_BYTES)
        self._on_end = ended
        self.conversation = mesh.open(self) if opens else mesh.accept(self)
        self._opens = opens

    @property
    def is_ready(self) -> bool:
        """Whether the other worker has read nearly all that was sent."""
        return not self.unsent

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, if this end is the one that does."""
        super().connection_made(transport)
        if self._opens:
            self.conversation.greet()
            asyncio.get_running_loop().call_later(
                _GREETING_SECONDS, self.conversation.expect_greeting
            )

    def close(self, ending: Ending | None = None) -> None:
        """End the link."""
        if ending is not None:
            log.debug("link to a worker ended: %s", ending.message)
        super().close()

    def _message(self, data: bytes) -> None:
        ending = self.conversation.receive(data)
        if ending is not None:
            self.close(ending)

    def _over(self) -> None:
        self.conversation.ended()
        self._on_end()


class Links:
    """The links of one worker to all others."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._links: dict[int, PeerLink] = {}

    @property
    def numbers(self) -> tuple[int, ...]:
        """The workers to which there is a link."""
        return tuple(self._links)

    async def add(self, number: int, tag: bytes, end: socket.socket) -> None:
        """Use one end of a socket pair for the link to a worker, instead of an older one."""
        before = self._links.pop(number, None)
        if before is not None:
            before.abort()

        def ended() -> None:
            if self._links.get(number) is link:
                del self._links[number]
                peer = link.conversation.peer
                if peer is not None:
                    # The kernel ends a link when a worker dies.
                    self._mesh.hub.left(peer)

        link = PeerLink(self._mesh, opens=tag == OPENS, ended=ended)
        self._links[number] = link
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=end)
        except OSError:
            link.connection_lost(None)
            end.close()

    async def have_reported(self, number: int, seconds: float) -> bool:
        """Wait until so many other workers have reported; return whether they have in time."""
        try:
            async with asyncio.timeout(seconds):
                while self._reported() < number:  # noqa: ASYNC110 -- several places decide
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """End all links."""
        for link in tuple(self._links.values()):
            link.close()

    def _reported(self) -> int:
        peers = (link.conversation.peer for link in self._links.values())
        return sum(peer is not None and peer.number > 0 for peer in peers)


def new_name(number: int) -> str:
    """Return the name of one run of a worker among its peers."""
    return f"worker-{number}-{secrets.token_hex(4)}"
