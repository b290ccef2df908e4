"""One stream of the discovery protocol, "state of the world", without I/O.

``receive`` takes a request, and ``take`` returns the response that is due. The rules:

- The first request subscribes. Every later one acknowledges or rejects the response whose nonce it
  carries, and may change the names.
- One response is in flight at a time. While it is not acknowledged, newer versions replace each
  other, so that a slow Envoy gets the newest one and costs no memory.
- A rejected version is not sent again.
- A name that does not exist is not answered. Envoy then uses its own timeout.
"""

from google.protobuf.message import DecodeError

from lora_router.endpoint_discovery.endpoint_list import RESOURCE, TYPE_URL, EndpointList
from lora_router.endpoint_discovery.pb.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

_LONGEST_REASON = 300


class RequestError(ValueError):
    """A request that is not a request for endpoints. The message says why."""


class Subscription:
    """One stream."""

    __slots__ = ("_list", "_nonce", "_sent", "_waits", "_wanted")

    def __init__(self, endpoint_list: EndpointList) -> None:
        self._list = endpoint_list
        self._wanted = False
        """Whether the last request named ``RESOURCE``."""
        self._sent = 0
        """The version in the last response."""
        self._nonce = 0
        """The nonce of the last response."""
        self._waits = False
        """Whether the last response has neither been acknowledged nor rejected."""

    def receive(self, data: bytes) -> str | None:
        """Handle a request.

        Returns:
            Why the last response was rejected; ``None``: it was not.

        Raises:
            RequestError: This is not a request for endpoints.
        """
        try:
            request = DiscoveryRequest.FromString(data)
        except DecodeError:
            raise RequestError("not a DiscoveryRequest message") from None
        if request.type_url not in ("", TYPE_URL):
            raise RequestError(f"only {TYPE_URL} is served")
        if request.response_nonce and request.response_nonce != str(self._nonce):
            return None  # It answers an older response. The answer to the last one follows.
        if request.response_nonce:
            self._waits = False
        wanted = RESOURCE in request.resource_names
        if wanted and not self._wanted:
            self._sent = 0
        self._wanted = wanted
        if request.HasField("error_detail"):
            return request.error_detail.message[:_LONGEST_REASON] or "no reason given"
        return None

    def take(self) -> bytes | None:
        """Return the response to send now, or ``None``."""
        version = self._list.version
        if not self._wanted or self._waits or version == self._sent:
            return None
        self._sent = version
        self._waits = True
        self._nonce += 1
        # Two encoded messages, one after the other, are one message with the fields of both.
        return self._list.response + DiscoveryResponse(nonce=str(self._nonce)).SerializeToString()
