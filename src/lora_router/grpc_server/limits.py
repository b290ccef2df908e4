"""How much of this server one connection may use, and why that much.

The peer is a gateway: it may be busy, wrong or taken over. What is bounded here costs it less to
send than it costs us to take, or memory. Who goes past a limit is told so by GOAWAY.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lora_router.grpc_server.violations import ErrorCode, PeerError


@dataclass(frozen=True, slots=True)
class Rate:
    """So many at once, and so many in a second from then on."""

    burst: int
    per_second: float


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one connection. Tests use smaller ones."""

    max_streams: int = 2**20
    """A stream is open as long as its request, so this bounds the gateway's requests in flight;
    at some KB each a million is more than one process should hold."""
    header_list_bytes: int = 16 * 1024
    """As RFC 9113, section 6.5.2, counts them. A gateway sends about 500; gRPC servers take 8 or
    16 KB. A stream with more is refused."""
    header_block_bytes: int = 64 * 1024
    """Longest block of headers, as sent, and four times that unpacked: past it the connection
    ends, because only unpacking it all would keep HPACK's state."""
    continuations: int = 16
    """Frames that may continue one block: enough for the longest one in usual frames. Without it
    empty ones could follow each other for ever (CVE-2024-27316)."""
    stream_window: int = 1024 * 1024
    """Bytes that may be on the way to us for a stream; topped up at half. Bodies are mostly
    shorter, and then no WINDOW_UPDATE is sent at all."""
    held_bytes: int = 256 * 1024 * 1024
    """Bytes of messages that are not complete, of all streams: the connection's window. A message
    of the longest kind must fit; who has filled it waits until messages complete or streams end."""
    queued_bytes: int = 256 * 1024 * 1024
    """Bytes that wait for the peer's windows or its reading. Only a body that is sent back (full
    duplex) is large; a peer that lets this much pile up does not read."""
    settings: Rate = Rate(100, 1)
    """Each must be acknowledged. A gateway sends one, at the start."""
    pings: Rate = Rate(10_000, 1_000)
    """Each must be answered. Envoy can be told to ping each millisecond."""
    resets: Rate = Rate(20_000, 1_000)
    """Streams that end in an error, or are reset before anything was answered (CVE-2023-44487,
    CVE-2025-8671). That many clients may leave at once; a stream for nothing costs 20 µs."""
    idle_frames: Rate = Rate(10_000, 1_000)
    """DATA that is empty and ends nothing, PRIORITY, frames of unknown types or closed streams,
    windows opened by less than ``small_increment``: all cost work and bring nothing (CVE-2019-9511
    and those after it)."""
    small_increment: int = 256
    """Bytes. Peers open their windows by thousands."""
    handshake_seconds: float = 10.0
    """Time to say that one speaks HTTP/2 (preface and SETTINGS), and for TLS before."""
    keepalive_seconds: float = 30.0
    """Silence after which the peer is asked by PING whether it is there: a gateway whose machine
    died says no goodbye, and its requests would count as in flight for ever."""
    keepalive_timeout_seconds: float = 20.0
    """Time for it to say anything, as in gRPC's keepalive."""
    close_seconds: float = 5.0
    """Time for the last bytes to leave, GOAWAY among them, before the connection is cut."""
    high_water_bytes: int = 4 * 1024 * 1024
    """Unsent bytes at which nothing more is read from a peer that does not read: what it would ask
    for could not be told to it."""


class Allowance:
    """What is left of a rate: a bucket that fills as time goes by."""

    __slots__ = ("_at", "_left", "_now", "_rate", "_what")

    def __init__(self, rate: Rate, now: Callable[[], float], what: str) -> None:
        """Begin with a full bucket.

        Args:
            rate: What is allowed.
            now: Seconds, monotonic.
            what: What is counted, for the message.
        """
        self._rate = rate
        self._now = now
        self._what = what
        self._left = float(rate.burst)
        self._at = 0.0

    def spend(self) -> None:
        """Take one.

        Raises:
            PeerError: There was none left.
        """
        rate = self._rate
        now = self._now()
        if self._left < rate.burst:
            self._left = min(rate.burst, self._left + (now - self._at) * rate.per_second)
        self._at = now
        if self._left < 1:
            raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, f"too many {self._what}")
        self._left -= 1
