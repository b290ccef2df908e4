"""The service that peers call: its name, and who may call it."""

from typing import Protocol

from lora_router.grpc_server.status import UNAUTHENTICATED
from lora_router.peering.link import Ending, Link
from lora_router.peering.mesh import Mesh
from lora_router.peering.secret import Secret

SERVICE = "lora_router.peering.v1.Peering"
METHOD = "Exchange"
PATH = f"/{SERVICE}/{METHOD}"
WORKER_HEADER = "lora-router-worker"
"""Metadata with the number of the worker that a stream is for. A router without workers ignores
it."""
_MAX_DIGITS = 3


class Receiver(Protocol):
    """What a stream of another router leads to: a conversation, or the way to one."""

    def receive(self, data: bytes) -> Ending | None:
        """Handle a message; return the status with which the caller must end the stream."""

    def ended(self) -> None:
        """Handle the end of the stream, whoever ended it."""


class Relays(Protocol):
    """The ways to the other workers of this router."""

    def open(self, worker: int, link: Link) -> Receiver | None:
        """Pass a stream on to another worker; ``None``: that is not possible."""

    def drain(self) -> None:
        """End all streams that are passed on."""


class PeerService:
    """Admits streams of other routers."""

    def __init__(self, mesh: Mesh, secret: Secret | None) -> None:
        """Create it.

        Args:
            mesh: The streams.
            secret: What a peer must send; ``None``: nothing, because the connection proves who it
                is, or because nobody has to.
        """
        self.mesh = mesh
        self.relays: Relays | None = None
        """Set by a worker."""
        self._secret = secret

    def refusal(self, authorization: bytes) -> Ending | None:
        """Return why a stream with this header is refused, or ``None``."""
        if self._secret is not None and not self._secret.matches(authorization):
            self.mesh.hub.rejected("unauthenticated", "the secret is missing or wrong", "")
            return Ending(UNAUTHENTICATED, "lora-router: the secret of peers is missing or wrong")
        return self.mesh.refusal()

    def accept(self, link: Link, worker: bytes) -> Receiver:
        """Return what receives the messages of an admitted stream.

        Args:
            link: The stream.
            worker: The metadata ``WORKER_HEADER``. If that worker does not run, this one answers.
        """
        if self.relays is not None and len(worker) <= _MAX_DIGITS and worker.isdigit():
            passed_on = self.relays.open(int(worker), link)
            if passed_on is not None:
                return passed_on
        return self.mesh.accept(link)

    def drain(self) -> None:
        """End the streams that others opened, and accept no more."""
        self.mesh.drain()
        if self.relays is not None:
            self.relays.drain()
