"""Peering as one part of a router: the hub, the service that peers call, and the calls to peers."""

import logging
import secrets
import socket

from lora_router.fleet.fleet import Fleet
from lora_router.peering.addresses import AddressSource
from lora_router.peering.clients import ClientTls, PeerClients
from lora_router.peering.hub import Clock, Hub
from lora_router.peering.mesh import Mesh
from lora_router.peering.secret import Secret
from lora_router.peering.service import PeerService
from lora_router.routing.director import Director
from lora_router.supervision import Supervisor

log = logging.getLogger("lora_router.peering")

_JOIN_SECONDS = 1.0
"""Time that readiness waits for the first reports of peers."""


class Peering:
    """The part. ``service`` must be served on the router's gRPC port."""

    def __init__(
        self,
        fleet: Fleet,
        director: Director,
        source: AddressSource,
        clock: Clock,
        supervisor: Supervisor,
        *,
        tls: ClientTls | None = None,
        secret: Secret | None = None,
    ) -> None:
        """Create it. Nothing is sent before ``start``."""
        # Each run has a name of its own: what an earlier run reported is not true any more.
        name = f"{socket.gethostname()[:128]}-{secrets.token_hex(4)}"
        self.hub = Hub(name, fleet, director.held_adapters, clock)
        director.reception.on_held = self.hub.report_soon
        self.secret = secret
        mesh = Mesh(self.hub)
        self.service = PeerService(mesh, secret)
        self._clients = PeerClients(mesh, source, supervisor, tls=tls, secret=secret)

    def start(self) -> None:
        """Find the peers, and exchange reports with them."""
        self._clients.start()

    async def joined(self) -> None:
        """Wait until this router knows what its peers know, but not for long."""
        if await self._clients.until_joined(_JOIN_SECONDS):
            log.info("%d peers have reported", len(self.hub.peers))
        else:
            log.warning("not all peers have reported within %g s", _JOIN_SECONDS)

    def drain(self) -> None:
        """End the streams of others, so that they do not delay the end of the server."""
        self.hub.drain()

    async def stop(self) -> None:
        """Tell all peers that this router stops, and end all streams."""
        self.hub.leave()
        await self._clients.stop()

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        now = self.hub.now()
        return {
            "router": self.hub.name,
            "peers": {
                peer.name: {"age": round(now - peer.heard_at, 3), "release": peer.release}
                for peer in self.hub.peers.values()
            },
        }
