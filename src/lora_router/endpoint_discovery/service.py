"""All streams of endpoint discovery of this router, whichever transport carries them."""

import logging
from collections import deque
from typing import Protocol

from lora_router.clock import Clock
from lora_router.endpoint_discovery.endpoint_list import EndpointList
from lora_router.fleet.fleet import Fleet
from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.endpoint_discovery")

SERVICE = "envoy.service.endpoint.v3.EndpointDiscoveryService"
METHOD = "StreamEndpoints"
PATH = f"/{SERVICE}/{METHOD}"

MAX_STREAMS = 256
"""An Envoy has one stream. A further one is refused."""
MAX_REQUEST_BYTES = 1024 * 1024
"""A request lists everything that was compiled into an Envoy: some ten thousand bytes."""
_SLICE = 16
"""Streams that get a new version in one turn of the event loop."""


class EndpointStream(Protocol):
    """One open stream."""

    def send_due(self) -> None:
        """Send the response that is due, if there is one."""

    def shut_down(self) -> None:
        """End the stream, because this router stops."""


class EndpointDiscovery:
    """The streams, and the list that they carry."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        """Create the service. It follows the fleet until ``close``."""
        self.list = EndpointList(fleet, clock)
        self.list.subscribe(self._list_changed)
        self.rejected = 0
        """Versions that Envoys rejected."""
        self._clock = clock
        self._streams: dict[EndpointStream, None] = {}
        self._due: deque[EndpointStream] = deque()
        self._sending = False
        self._closed = False
        self._log_limit = LogLimit()

    @property
    def open_streams(self) -> int:
        """The number of open streams."""
        return len(self._streams)

    def refusal(self) -> str | None:
        """Return why no further stream is accepted, or ``None``."""
        if self._closed:
            return "shutting down"
        if len(self._streams) >= MAX_STREAMS:
            return f"more than {MAX_STREAMS} streams of endpoint discovery"
        return None

    def joined(self, stream: EndpointStream) -> None:
        """Add a stream."""
        self._streams[stream] = None

    def left(self, stream: EndpointStream) -> None:
        """Remove a stream."""
        self._streams.pop(stream, None)

    def was_rejected(self, reason: str) -> None:
        """Count and log a version that an Envoy rejected."""
        self.rejected += 1
        self._log_limit.log(
            log,
            logging.WARNING,
            "rejected",
            "an Envoy rejected the list of pods: %s; it keeps its last one",
            reason,
        )

    def close(self) -> None:
        """End all streams and accept no more. Envoys turn to another router."""
        self._closed = True
        self.list.close()
        for stream in tuple(self._streams):
            stream.shut_down()

    def _list_changed(self) -> None:
        self._due = deque(self._streams)
        if not self._sending:
            self._send_slice()

    def _send_slice(self) -> None:
        self._sending = False
        for _ in range(min(_SLICE, len(self._due))):
            stream = self._due.popleft()
            if stream in self._streams:
                stream.send_due()
        if self._due:
            self._sending = True
            self._clock.call_later(0, self._send_slice)
