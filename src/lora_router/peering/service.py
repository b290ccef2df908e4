"""The service that peers call: its name, and who may call it."""

from lora_router.grpc_server.status import UNAUTHENTICATED
from lora_router.peering.link import Ending
from lora_router.peering.mesh import Mesh
from lora_router.peering.secret import Secret

SERVICE = "lora_router.peering.v1.Peering"
METHOD = "Exchange"
PATH = f"/{SERVICE}/{METHOD}"


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
        self._secret = secret

    def refusal(self, authorization: bytes) -> Ending | None:
        """Return why a stream with this header is refused, or ``None``."""
        if self._secret is not None and not self._secret.matches(authorization):
            self.mesh.hub.rejected("unauthenticated", "the secret is missing or wrong", "")
            return Ending(UNAUTHENTICATED, "lora-router: the secret of peers is missing or wrong")
        return self.mesh.refusal()
