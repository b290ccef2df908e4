"""One stream between two routers, from the greetings to its end. No I/O.

The side that opened the stream greets first. A stream carries reports in one direction or in both:
the mesh decides which stream of a peer is used.
"""

from collections.abc import Callable
from typing import Protocol

from google.protobuf.message import DecodeError

from lora_router import __version__
from lora_router.grpc_server.status import (
    DEADLINE_EXCEEDED,
    FAILED_PRECONDITION,
    INVALID_ARGUMENT,
    RESOURCE_EXHAUSTED,
)
from lora_router.peering.budget import Allowance, Budget
from lora_router.peering.hub import Hub
from lora_router.peering.limits import (
    BYTES_BURST,
    BYTES_PER_SECOND,
    MAX_MESSAGE_BYTES,
    MAX_ROUTER_NAME_BYTES,
    MAX_WORKERS,
    MESSAGES_BURST,
    MESSAGES_PER_SECOND,
    byte_length,
)
from lora_router.peering.link import Ending, Link
from lora_router.peering.pb.peering_pb2 import Greeting, PeerMessage, Report
from lora_router.peering.peer import Peer
from lora_router.peering.report_reader import GapError, ReportError, ReportReader
from lora_router.peering.worker_place import WorkerPlace

VERSION = 1
"""The highest version of the protocol that this router speaks."""
OLDEST_VERSION = 1
"""The lowest one."""
_ASK_SECONDS = 0.2
"""The shortest time between two requests for a complete report."""


def is_router_name(name: str, release: str) -> bool:
    """Return whether a peer's name, and the release that it states, can be logged and kept."""
    return 0 < byte_length(name) <= MAX_ROUTER_NAME_BYTES and (name + release).isprintable()


class Conversations(Protocol):
    """All conversations of this router, as one of them needs them. ``Mesh`` is these."""

    hub: Hub
    place: WorkerPlace | None
    """Where this router is, if it is a worker and others may not know that."""

    def joined(self, conversation: "Conversation", name: str, release: str) -> Ending | None:
        """Add a stream to a peer that greeted on it, or refuse it."""

    def ended(self, conversation: "Conversation") -> None:
        """Remove a stream that ended."""

    def complete_wanted(self, peer: str) -> None:
        """Send the next report to a peer as a complete one, and soon."""

    def is_too_heavy(self, reader: ReportReader) -> bool:
        """Return whether the reports of all peers take too much memory, and this one's much."""


class Conversation:
    """One stream."""

    def __init__(self, mesh: Conversations, link: Link, *, opened_here: bool) -> None:
        """Create the conversation of a new stream.

        Args:
            mesh: All conversations of this router.
            link: The stream.
            opened_here: Whether this router opened it.
        """
        self.link = link
        self.opened_here = opened_here
        self.peer: Peer | None = None
        """The other side; ``None`` before its greeting."""
        self.is_itself = False
        """Whether the other side turned out to be this router, or another worker of it."""
        self.is_redundant = False
        """Whether this router has another stream to the same peer."""
        self.worker = 0
        """The number of the worker that is the other side; 0: the peer is one process."""
        self.on_workers: Callable[[int], None] = lambda _workers: None
        """Called with the number of workers behind the address of the other side."""
        self.is_open = True
        self.reader: ReportReader | None = None
        self._mesh = mesh
        self._hub = hub = mesh.hub
        self._allowance = Allowance(
            Budget(MESSAGES_BURST, MESSAGES_PER_SECOND, hub.now),
            Budget(BYTES_BURST, BYTES_PER_SECOND, hub.now),
        )
        self._asked_at = float("-inf")

    def greet(self) -> None:
        """Send this router's greeting."""
        greeting = Greeting(
            router=self._hub.name,
            version=VERSION,
            oldest_version=OLDEST_VERSION,
            release=__version__,
        )
        place = self._mesh.place
        if place is not None:
            greeting.host, greeting.worker, greeting.workers = place.host, place.number, place.count
        self.link.send(PeerMessage(greeting=greeting).SerializeToString())

    def receive(self, data: bytes) -> Ending | None:
        """Handle a message.

        Returns:
            The status with which the caller must end the stream; ``None``: it continues.
        """
        hub = self._hub
        hub.counts.bytes_received += len(data)
        if not self._allowance.admits(len(data)):
            return self._reject("flood", RESOURCE_EXHAUSTED, "too many messages or bytes")
        if len(data) > MAX_MESSAGE_BYTES:
            return self._reject("too-large", RESOURCE_EXHAUSTED, "the message is too long")
        try:
            message = PeerMessage.FromString(data)
        except DecodeError:
            return self._reject("malformed", INVALID_ARGUMENT, "not a PeerMessage message")
        if self.peer is None:
            if not message.HasField("greeting"):
                return self._reject("malformed", INVALID_ARGUMENT, "the greeting is missing")
            ending = self._meet(message.greeting)
            if ending is not None:
                return ending
        ending = self._use(message)
        if ending is not None:
            return ending
        if message.wants_complete and self.peer is not None:
            self._mesh.complete_wanted(self.peer.name)
        if message.leaves and self.peer is not None:
            hub.left(self.peer)  # Closes this stream.
        return None

    def expect_greeting(self) -> None:
        """End the stream if the other side has not greeted yet."""
        if self.peer is None:
            self.close(Ending(DEADLINE_EXCEEDED, "lora-router: the greeting is missing"))

    def ended(self) -> None:
        """Handle the end of the stream, whoever ended it."""
        if self.is_open:
            self.is_open = False
            self._mesh.ended(self)

    def close(self, ending: Ending) -> None:
        """End the stream."""
        if self.is_open:
            self.ended()
            self.link.close(ending)

    def _meet(self, greeting: Greeting) -> Ending | None:
        name, release = greeting.router, greeting.release[:64]
        if not is_router_name(name, release):
            return self._reject("malformed", INVALID_ARGUMENT, "the router's name is unusable")
        if not self.opened_here:
            # Also for itself: by its own greeting, the other side knows that this is so.
            self.greet()
        place = self._mesh.place
        # Workers of one router meet elsewhere, not over its port.
        if name == self._hub.name or (place is not None and greeting.host == place.host):
            self.is_itself = True
            return Ending(FAILED_PRECONDITION, "this is the same router")
        version = min(greeting.version, VERSION)
        if version < max(OLDEST_VERSION, greeting.oldest_version):
            return self._reject(
                "version",
                FAILED_PRECONDITION,
                f"peering versions {greeting.oldest_version} to {greeting.version} are not spoken "
                f"here, but {OLDEST_VERSION} to {VERSION}",
            )
        workers = min(max(1, greeting.workers), MAX_WORKERS)
        self.worker = greeting.worker if workers > 1 else 0
        self.on_workers(workers)
        return self._mesh.joined(self, name, release)

    def _use(self, message: PeerMessage) -> Ending | None:
        if message.HasField("report"):
            ending = self._read(message.report)
            if ending is not None:
                return ending
        return self._take(message)

    def _read(self, report: Report) -> Ending | None:
        hub, peer, reader = self._hub, self.peer, self.reader
        if peer is None or reader is None:
            return None  # The mesh did not accept the peer.
        try:
            share = reader.read(report)
        except GapError:
            if hub.now() - self._asked_at >= _ASK_SECONDS:
                self._asked_at = hub.now()
                self.link.send(PeerMessage(wants_complete=True).SerializeToString())
            return None
        except ReportError as error:
            return self._reject(error.cause, INVALID_ARGUMENT, str(error))
        if share is None:
            return None
        if self._mesh.is_too_heavy(reader):
            return self._reject("too-large", RESOURCE_EXHAUSTED, "all reports are too large")
        hub.reported(peer, share)
        return None

    def _take(self, message: PeerMessage) -> Ending | None:
        if self.peer is None:
            return None
        try:
            self._hub.told(self.peer.name, message)
        except ReportError as error:
            return self._reject(error.cause, INVALID_ARGUMENT, str(error))
        return None

    def _reject(self, cause: str, code: int, message: str) -> Ending:
        self._hub.rejected(cause, message, self.peer.name if self.peer is not None else "")
        return Ending(code, f"lora-router: {message}")
