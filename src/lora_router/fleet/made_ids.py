"""Which pod made an ID: of a response, a file, a batch, a conversation.

Only the pod that made an ID knows what it stands for. Rules:

- This router learns an ID from the answer of the pod. Peers tell the IDs that they learn.
- What this router saw itself counts. A peer can add an ID, and change none that is known.
- Memory is bounded: the IDs that were used least recently leave. With peers, half of it is for
  their IDs, so that no peer can displace what this router learned.
- An ID refers to a server, by address and uid. A pod that is replaced has not made the IDs of its
  predecessor. They stay until they leave, so that clients learn why they lead nowhere.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice

from lora_router.fleet.pod_state import PodState

Server = tuple[str, str]
"""The address and the uid of a pod."""

MAX_ID_LENGTH = 128
"""Characters. Servers make IDs of 20 to 60."""
MAX_BYTES = 64 * 1024 * 1024
"""Memory of all IDs: about 280,000 of them."""
ENTRY_BYTES = 200
"""Memory of an entry beside the characters of its ID."""


def is_id(name: str) -> bool:
    """Return whether a text can be an ID: short, and printable ASCII."""
    return 0 < len(name) <= MAX_ID_LENGTH and name.isascii() and name.isprintable()


class _Recent:
    """IDs, the one that was used least recently first."""

    __slots__ = ("bytes", "max_bytes", "servers")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.servers: OrderedDict[str, Server] = OrderedDict()

    def put(self, name: str, server: Server) -> None:
        servers = self.servers
        if name not in servers:
            self.bytes += ENTRY_BYTES + len(name)
        servers[name] = server
        servers.move_to_end(name)
        while self.bytes > self.max_bytes and servers:
            oldest, _ = servers.popitem(last=False)
            self.bytes -= ENTRY_BYTES + len(oldest)

    def find(self, name: str) -> Server | None:
        server = self.servers.get(name)
        if server is not None:
            self.servers.move_to_end(name)
        return server


class MadeIds:
    """The IDs that are known."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """Create it without IDs."""
        self.on_learned: Callable[[str, PodState], None] | None = None
        """Called with each ID that this router learns itself."""
        self.is_shared = False
        """Whether peers tell IDs, which may arrive a little after a client knows them."""
        self._own = _Recent(max_bytes)
        self._heard = _Recent(0)

    def __len__(self) -> int:
        return len(self._own.servers) + len(self._heard.servers)

    @property
    def bytes(self) -> int:
        """Approximate memory."""
        return self._own.bytes + self._heard.bytes

    def limit(self, max_bytes: int) -> None:
        """Use another bound of the memory from now on."""
        self._heard.max_bytes = max_bytes // 2 if self.is_shared else 0
        self._own.max_bytes = max_bytes - self._heard.max_bytes

    def share(self) -> None:
        """Leave room for the IDs of peers."""
        self.is_shared = True
        self.limit(self._own.max_bytes + self._heard.max_bytes)

    def learn(self, name: str, state: PodState) -> None:
        """Remember the ID in an answer of a pod. A text that cannot be an ID is ignored."""
        if not is_id(name):
            return
        server = (state.pod.address, state.pod.uid)
        known = self._own.servers.get(name)
        self._own.put(name, server)
        if known != server and self.on_learned is not None:
            self.on_learned(name, state)

    def hear(self, name: str, state: PodState) -> None:
        """Remember an ID that a peer told, unless it is known."""
        if is_id(name) and name not in self._own.servers and name not in self._heard.servers:
            self._heard.put(name, (state.pod.address, state.pod.uid))

    def find(self, name: str) -> Server | None:
        """Return the server that made an ID, or ``None``."""
        return self._own.find(name) or self._heard.find(name)

    def newest(self, most: int) -> Iterator[tuple[str, Server]]:
        """Yield the IDs that were used last, those of this router first."""
        for each in (self._own, self._heard):
            yield from islice(reversed(each.servers.items()), most)
