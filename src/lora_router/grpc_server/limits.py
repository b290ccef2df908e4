"""The limits of one connection and of the process, with the reason for each.

The peer is a gateway. It may be busy, faulty or compromised. Each limit bounds memory, or something
that costs the peer less to send than it costs this server to handle. A peer that exceeds a limit
receives GOAWAY, unless stated otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lora_router.grpc_server.violations import ErrorCode, PeerError


@dataclass(frozen=True, slots=True)
class Rate:
    """A number of events at once, and a number per second after that."""

    burst: int
    per_second: float


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one connection. Tests use smaller values."""

    max_streams: int = 2**20
    """Open streams. A stream is open as long as its request, so this bounds the requests in flight
    of the gateway. A stream takes some KB, so a million is more than one process should hold. A
    further stream is refused with REFUSED_STREAM."""
    announced_streams: int | None = None
    """What SETTINGS_MAX_CONCURRENT_STREAMS says; ``None``: ``max_streams``. A gateway that has so
    many streams open on a connection opens another one. More are served nevertheless: they may
    arrive before the gateway has read the SETTINGS."""
    header_list_bytes: int = 16 * 1024
    """Size of a header list as defined in RFC 9113, section 6.5.2. A gateway sends about 500 bytes,
    and gRPC servers accept 8 or 16 KB. A stream with more is refused with RESOURCE_EXHAUSTED."""
    header_block_bytes: int = 64 * 1024
    """Size of a header block as sent. A block over this limit ends the connection, and so does one
    that decodes to more than four times ``header_list_bytes``, although it seemed to be shorter, or
    that has more than 256 fields: the HPACK state is valid only if every block is read to its
    end."""
    continuations: int = 16
    """CONTINUATION frames of one block: enough for the longest block in frames of the usual size.
    Without a limit, empty frames could follow each other forever (CVE-2024-27316)."""
    stream_window: int = 65_535
    """Initial receive window of a stream in bytes, topped up at half. Most bodies are shorter. A
    longer message must be let in first, so this is also what a stream that waits can hold. The
    default of HTTP/2, which a peer assumes before it has read this server's SETTINGS."""
    body_window: int = 512 * 1024
    """Receive window of a stream whose message was let in. Wide enough to fill a fast network."""
    connection_window: int = 4 * 1024 * 1024
    """Receive window of the connection, at least 65,535. Bytes return to it as soon as they are
    read, so no stream can exhaust it. It bounds how much of large messages a gateway queues before
    a small one."""
    queued_bytes: int = 256 * 1024 * 1024
    """Bytes that wait for the peer's windows or for the peer to read. Only a message that sends
    back what arrived is large, so a peer with this many bytes waiting does not read."""
    frames_per_turn: int = 128
    """Frames that are handled before other connections get a turn."""
    turn_seconds: float = 0.0025
    """Time after which a turn ends, too. A frame can complete a body that takes milliseconds to
    read, or contain thousands of messages, of which some are handled at once."""
    settings: Rate = Rate(100, 1)
    """SETTINGS frames. Each must be acknowledged. A gateway sends one at the start."""
    pings: Rate = Rate(10_000, 1_000)
    """PING frames. Each must be answered. Envoy can be configured to send one every millisecond."""
    idle_frames: Rate = Rate(10_000, 1_000)
    """Frames without effect: empty DATA without END_STREAM, PRIORITY, frames of unknown types or
    for closed streams, and window increments below ``small_increment``. They cost work and have no
    use (CVE-2019-9511 and its successors)."""
    small_increment: int = 256
    """Bytes. Peers open their windows by thousands of bytes."""
    handshake_seconds: float = 10.0
    """Timeout of the TLS handshake, and then of the HTTP/2 preface and SETTINGS."""
    keepalive_seconds: float = 30.0
    """Time without input after which the peer receives a PING, up to a sixth of it later. A gateway
    whose machine died does not close its connections, and its requests would count as in flight
    forever."""
    keepalive_timeout_seconds: float = 20.0
    """Timeout for any sign of life after the PING, as in gRPC's keepalive."""
    close_seconds: float = 5.0
    """Time to send the last bytes, such as GOAWAY, before the socket is closed."""
    high_water_bytes: int = 4 * 1024 * 1024
    """Unsent bytes at which the server stops reading from a peer that does not read, because the
    answers to further requests could not be sent."""


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """The limits of a process, over all its connections."""

    buffered_bytes: int = 256 * 1024 * 1024
    """Bytes of unfinished messages, of collected bodies, and of output that waits for a peer."""
    wait_seconds: float = 3.0
    """How long a body may wait for room. Then it is refused, so that the client tries again."""
    connections: int = 1024
    """Open connections. A gateway opens one for each of its worker threads."""
    streams: int = 100_000
    """Open streams. A stream is open as long as its request."""
    resets: Rate = Rate(10_000, 4_000)
    """Streams that end in an error, or that are reset before a response. A connection that exceeds
    it is read more slowly. Each such stream costs 20 µs, so these take 8 % of a CPU."""


class Allowance:
    """A token bucket: the events that a rate still allows."""

    __slots__ = ("_at", "_left", "_now", "_rate", "_what")

    def __init__(self, rate: Rate, now: Callable[[], float], what: str) -> None:
        """Create a full bucket.

        Args:
            rate: The rate that is allowed.
            now: Returns seconds, monotonic.
            what: Name of the events, for the message.
        """
        self._rate = rate
        self._now = now
        self._what = what
        self._left = float(rate.burst)
        self._at = 0.0

    def spend(self) -> None:
        """Count one event.

        Raises:
            PeerError: The rate is exceeded.
        """
        rate = self._rate
        now = self._now()
        if self._left < rate.burst:
            self._left = min(rate.burst, self._left + (now - self._at) * rate.per_second)
        self._at = now
        if self._left < 1:
            raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, f"too many {self._what}")
        self._left -= 1
