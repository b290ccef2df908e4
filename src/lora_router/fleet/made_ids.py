"""Which pod made an ID: of a response, a file, a batch, a conversation.

Only the pod that made an ID knows what it stands for. Rules:

- This router learns an ID from the answer of the pod. Peers tell the IDs that they learn.
- What this router saw itself counts. A peer can add an ID, and change none that is known.
- Memory is bounded: the IDs that were used least recently leave.
- An ID refers to a server, by address and uid. A pod that is replaced has not made the IDs of its
  predecessor. They stay until they leave, so that clients learn why they lead nowhere.
"""

from collections import OrderedDict
from collections.abc import Callable

from lora_router.fleet.pod_state import PodState

Server = tuple[str, str]
"""The address and the uid of a pod."""

MAX_ID_LENGTH = 128
"""Characters. Servers make IDs of 20 to 60."""
MAX_BYTES = 32 * 1024 * 1024
"""Memory of all IDs: about 90,000 of them."""
ENTRY_BYTES = 300
"""Memory of an entry beside the characters of its ID."""


def is_id(name: str) -> bool:
    """Return whether a text can be an ID: short, and printable ASCII."""
    return 0 < len(name) <= MAX_ID_LENGTH and name.isascii() and name.isprintable()


def server_of(state: PodState) -> Server:
    """Return what identifies the server of a pod."""
    return state.pod.address, state.pod.uid


class MadeIds:
    """The IDs that are known."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """Create it without IDs."""
        self.on_learned: Callable[[str, PodState], None] | None = None
        """Called with each ID that this router learns itself."""
        self.bytes = 0
        """Approximate memory."""
        self._max_bytes = max_bytes
        self._servers: OrderedDict[str, Server] = OrderedDict()

    def __len__(self) -> int:
        return len(self._servers)

    def learn(self, name: str, state: PodState) -> None:
        """Remember the ID in an answer of a pod. A text that cannot be an ID is ignored."""
        if is_id(name):
            known = self._servers.get(name)
            self._put(name, server_of(state))
            if known != self._servers.get(name) and self.on_learned is not None:
                self.on_learned(name, state)

    def hear(self, name: str, state: PodState) -> None:
        """Remember an ID that a peer told, unless it is known."""
        if is_id(name) and name not in self._servers:
            self._put(name, server_of(state))

    def find(self, name: str) -> Server | None:
        """Return the server that made an ID, or ``None``."""
        server = self._servers.get(name)
        if server is not None:
            self._servers.move_to_end(name)
        return server

    def _put(self, name: str, server: Server) -> None:
        servers = self._servers
        if name not in servers:
            self.bytes += ENTRY_BYTES + len(name)
        servers[name] = server
        servers.move_to_end(name)
        while self.bytes > self._max_bytes and servers:
            oldest, _ = servers.popitem(last=False)
            self.bytes -= ENTRY_BYTES + len(oldest)
