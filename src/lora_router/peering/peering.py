"""Peering as one part of a router: the hub, and the carriers with their connections."""

import asyncio
import logging
import secrets
import socket
from typing import Protocol

from lora_router.clock import Clock
from lora_router.counted import counted
from lora_router.fleet.fleet import Fleet
from lora_router.peering.addresses import AddressSource
from lora_router.peering.clients import ClientTls, PeerClients
from lora_router.peering.exchanges import connect
from lora_router.peering.hub import Hub
from lora_router.peering.id_exchange import IdExchange
from lora_router.peering.mesh import Mesh
from lora_router.peering.questions import QuestionExchange
from lora_router.peering.redis_channel import RedisChannel
from lora_router.peering.redis_connection import RedisServer, check
from lora_router.peering.secret import Secret
from lora_router.peering.secret_watch import SecretWatch
from lora_router.peering.service import PeerService
from lora_router.peering.worker_place import WorkerPlace
from lora_router.routing.director import Director
from lora_router.supervision import Supervisor

log = logging.getLogger("lora_router.peering")

_JOIN_SECONDS = 1.0
"""Time that readiness waits for the first reports of peers."""


class Connections(Protocol):
    """The connections over which a carrier carries messages."""

    def start(self) -> None:
        """Find the peers, and connect."""

    def has_joined(self) -> bool:
        """Return whether every peer that can be reached has sent its first report."""

    async def stop(self) -> None:
        """End all connections. What was sent before gets some time to arrive."""


class Peering:
    """The part. If there is a ``service``, it must be served on the router's gRPC port."""

    def __init__(  # noqa: PLR0913 -- each is a part that tests replace
        self,
        fleet: Fleet,
        director: Director,
        source: AddressSource | None,
        clock: Clock,
        supervisor: Supervisor,
        *,
        tls: ClientTls | None = None,
        secret: Secret | None = None,
        redis: RedisServer | None = None,
        place: WorkerPlace | None = None,
    ) -> None:
        """Create it. Nothing is sent before ``start``.

        Args:
            fleet: What is reported, and what reports are applied to.
            director: Has the requests that are held.
            source: Finds the addresses of peers. ``None``: there is no mesh.
            clock: Time and timers.
            supervisor: Runs the tasks.
            tls: The TLS files for streams to peers.
            secret: Proves to peers that this router is one.
            redis: Where to publish reports too, or instead of sending them to each peer.
            place: Where this router is, if it is one of several workers.

        Raises:
            RedisMissingError: The extra ``redis`` is needed and not installed.
            PasswordError: The file with the password of the server cannot be used. A worker reads
                it for each connection only.
        """
        # Each run has a name of its own: what an earlier run reported is not true any more.
        worker = "" if place is None else f"worker-{place.number}-"
        name = f"{socket.gethostname()[:128]}-{worker}{secrets.token_hex(4)}"
        self.hub = Hub(name, fleet, director.held_adapters, clock)
        connect(self.hub, fleet, director)
        self.ids = IdExchange(self.hub, fleet, director.sticky.made)
        self.questions = QuestionExchange(self.hub)
        self.secret = secret
        self.service: PeerService | None = None
        self.redis: RedisChannel | None = None
        self._connections: list[Connections] = []
        if source is not None:
            mesh = Mesh(self.hub, place)
            self.service = PeerService(mesh, secret)
            self._connections.append(PeerClients(mesh, source, supervisor, tls=tls, secret=secret))
        if redis is not None:
            if place is None:  # The parent has checked it for its workers.
                check(redis)
            self.redis = RedisChannel(self.hub, redis, supervisor, secret=secret)
            self._connections.append(self.redis)
        if secret is not None:
            self._connections.append(SecretWatch(secret, supervisor))

    def start(self) -> None:
        """Find the peers, and exchange reports with them."""
        for each in self._connections:
            each.start()

    async def joined(self) -> None:
        """Wait until this router knows what its peers know, but not for long."""
        try:
            async with asyncio.timeout(_JOIN_SECONDS):
                # Several places decide, so there is no event to wait for.
                while not all(each.has_joined() for each in self._connections):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.warning("not all peers have reported within %g s", _JOIN_SECONDS)
        else:
            log.info("reports of %s have arrived", counted(len(self.hub.peers), "peer"))

    def drain(self) -> None:
        """End the streams of others, so that they do not delay the end of the server.

        Reports continue.
        """
        if self.service is not None:
            self.service.drain()

    def tell(self, message: bytes) -> None:
        """Send a message to all peers that are no workers of the same router."""
        if self.service is not None:
            self.service.mesh.send_to_all(message)
        if self.redis is not None:
            self.redis.broadcasts.send_to_all(message)

    async def stop(self) -> None:
        """Tell all peers that this router stops, and end all connections."""
        self.hub.leave()
        await asyncio.gather(*(each.stop() for each in self._connections))

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        now = self.hub.now()
        redis = {} if self.redis is None else {"redis": self.redis.status()}
        return {
            "router": self.hub.name,
            **redis,
            "peers": {
                peer.name: {"age": round(now - peer.heard_at, 3), "release": peer.release}
                for peer in self.hub.peers.values()
            },
        }
