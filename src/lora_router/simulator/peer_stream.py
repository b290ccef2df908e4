"""Streams between simulated routers: they carry the messages of the hubs that serve.

A stream is a connection, then messages in order in both directions, then its end. Each side has a
``StreamSide``, which is the link of the conversation there.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from lora_router.grpc_server.status import UNAVAILABLE
from lora_router.peering.conversation import Conversation
from lora_router.peering.link import Ending
from lora_router.peering.mesh import Mesh
from lora_router.peering.reconnection import GREETING_SECONDS, Reconnection
from lora_router.simulator.network import CONNECT_AGAIN_SECONDS, Network, Place
from lora_router.simulator.router_clock import RouterClock

_WINDOW_BYTES = 65_535
"""Bytes that may be under way before the sender has to wait: the window of HTTP/2."""
_BROKEN = Ending(UNAVAILABLE, "the stream ended")


class StreamingRouter(Protocol):
    """A router, as its streams need it."""

    clock: RouterClock
    place: Place
    streams: dict["StreamSide", None]
    """Its sides of the open streams to its peers."""
    mesh: Mesh | None


class _Packet:
    """What one side sent."""

    __slots__ = ("bytes", "has_arrived", "use")

    def __init__(self, use: Callable[[], None], size: int) -> None:
        self.use = use
        self.bytes = size
        self.has_arrived = False


class StreamSide:
    """One side of a stream."""

    def __init__(
        self,
        network: Network,
        here: StreamingRouter,
        there: StreamingRouter,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Create one side. It is not connected yet.

        Args:
            network: Carries the packets.
            here: The router of this side.
            there: The router of the other side.
            on_end: Called when the stream ended, whoever ended it.
        """
        self.conversation: Conversation | None = None
        self.other: StreamSide | None = None
        self.is_over = False
        self._network = network
        self._here = here
        self._there = there
        self._on_end = on_end
        self._is_connected = False
        self._packets: deque[_Packet] = deque()
        """Those that were sent and were not received yet, in order."""
        self._bytes = 0
        """The bytes of these."""
        here.streams[self] = None

    # The link of a conversation

    @property
    def is_ready(self) -> bool:
        """Whether nothing waits for the other side to read."""
        return self._bytes <= _WINDOW_BYTES

    def send(self, message: bytes) -> None:
        """Send a message."""
        if not self.is_over and not self._network.loses():
            self._send(lambda: self._other_receives(message), len(message))

    def close(self, _ending: Ending) -> None:
        """End the stream."""
        if not self.is_over:
            self._send(self._other_ends, 0)
            self._finish()

    # The connection

    def connect(self) -> None:
        """Connect. What was sent before follows when the connection is there."""

        def answered() -> None:
            if not self.is_over:
                self._here.clock.run(self._connected)

        def arrived() -> None:
            if self._there.clock.stopped:
                self._network.carry(self._there.place, self._here.place, self.broke)
            else:
                self._network.carry(
                    self._there.place, self._here.place, answered, CONNECT_AGAIN_SECONDS
                )

        self._network.carry(self._here.place, self._there.place, arrived, CONNECT_AGAIN_SECONDS)

    def broke(self) -> None:
        """Handle that the other side is gone."""
        self._here.clock.run(self._ended_by_other)

    def die(self) -> None:
        """Let the operating system end the stream of a process that died."""
        if not self.is_over:
            self.is_over = True
            if self._is_connected:
                self._send(self._other_ends, 0)

    def _connected(self) -> None:
        if self.is_over:
            return
        self._is_connected = True
        waiting, self._packets = self._packets, deque()
        self._bytes = 0
        self._send(self._there_accepts, 0)
        for packet in waiting:
            self._send(packet.use, packet.bytes)

    def _there_accepts(self) -> None:
        mesh = self._there.mesh
        side = self.other = StreamSide(self._network, self._there, self._here)
        side.other, side._is_connected = self, True
        refusal = None if mesh is None else mesh.refusal()
        if mesh is None or refusal is not None:
            side.close(refusal or _BROKEN)
            return
        side.conversation = mesh.accept(side)

    # Packets

    def _send(self, use: Callable[[], None], size: int) -> None:
        packet = _Packet(use, size)
        self._packets.append(packet)
        self._bytes += size
        if not self._is_connected:
            return

        def arrive() -> None:
            packet.has_arrived = True
            packets = self._packets
            while packets and packets[0].has_arrived:
                first = packets.popleft()
                self._bytes -= first.bytes
                self._there.clock.run(first.use)

        self._network.carry(self._here.place, self._there.place, arrive)

    def _other_receives(self, message: bytes) -> None:
        if self.other is not None:
            self.other._receive(message)

    def _other_ends(self) -> None:
        if self.other is not None:
            self.other._ended_by_other()

    def _receive(self, message: bytes) -> None:
        conversation = self.conversation
        if self.is_over or conversation is None or not conversation.is_open:
            return
        ending = conversation.receive(message)
        if ending is not None and not self.is_over:
            self.close(ending)
            conversation.ended()

    def _ended_by_other(self) -> None:
        if not self.is_over:
            if self.conversation is not None:
                self.conversation.ended()
            self._finish()

    def _finish(self) -> None:
        self.is_over = True
        self._here.streams.pop(self, None)
        self._on_end()


class PeerStreams:
    """The streams that one router opens to one other router, one after the other."""

    def __init__(
        self,
        network: Network,
        here: StreamingRouter,
        find: Callable[[], StreamingRouter],
        reconnection: Reconnection,
    ) -> None:
        """Create it without a stream.

        Args:
            network: Carries the packets.
            here: The router that opens the streams.
            find: Returns the router at the address now, dead or alive.
            reconnection: Decides on the pauses.
        """
        self._network = network
        self._here = here
        self._find = find
        self._reconnection = reconnection

    def open(self) -> None:
        """Open a stream. When it ends, a further one follows."""
        here, mesh = self._here, self._here.mesh
        assert mesh is not None  # noqa: S101 -- only routers with peers have streams
        began = here.clock.now()

        def ended() -> None:
            timer.cancel()
            pause = self._reconnection.pause_after(conversation, here.clock.now() - began)
            here.clock.call_later(pause, self.open)

        side = StreamSide(self._network, here, self._find(), ended)
        conversation = side.conversation = mesh.open(side)
        timer = here.clock.call_later(GREETING_SECONDS, conversation.expect_greeting)
        conversation.greet()
        side.connect()
