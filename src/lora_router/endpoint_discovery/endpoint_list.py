"""The endpoints of all ready pods, as Envoy's message, kept in step with the fleet.

Rules:

- Pods that the router has ejected are listed too. Envoy uses them when it has nothing better, and
  while no router answers.
- Nothing is listed before discovery has read its first full list. Until then, Envoys keep what they
  know.
- However many pods change, 10 ms pass before the next version, and more after a long list: up to
  ``LONGEST_INTERVAL_SECONDS``. Until an Envoy knows a new pod, it sends requests for that pod to
  others.
- Work that grows with the fleet is done in slices, over several turns of the event loop.
"""

import logging
from collections.abc import Callable, Collection

from google.protobuf.any_pb2 import Any

from lora_router.clock import Clock, Timer
from lora_router.endpoint_discovery.pb.discovery_pb2 import DiscoveryResponse
from lora_router.endpoint_discovery.pb.endpoint_pb2 import (
    Address,
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
    SocketAddress,
)
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_state import PodState

log = logging.getLogger("lora_router.endpoint_discovery")

RESOURCE = "pods"
"""The name under which Envoys ask for the list. The only one that exists."""
TYPE_URL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"

LONGEST_INTERVAL_SECONDS = 0.1
"""Time between two versions of a list of many pods."""
_SHORTEST_INTERVAL_SECONDS = 0.01
_INTERVAL_SECONDS_PER_POD = 0.0001
"""Each Envoy reads the whole list each time."""
_SLICE = 200
"""Pods that are encoded in one turn of the event loop: about 2 ms."""


class EndpointList:
    """The current list. Subscribers are called after each new version."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        """Create a list that follows the fleet until ``close``."""
        self._fleet = fleet
        self._clock = clock
        self._encoded: dict[str, bytes] = {}
        """The endpoint of each listed pod, by the pod's name."""
        self._pending: dict[str, None] = {}
        """Names of pods that changed and have not been looked at."""
        self._changed = False
        """Whether ``_encoded`` differs from the last version."""
        self._timer: Timer | None = None
        self._not_before = 0.0
        self._closed = False
        self._on_change: Callable[[], None] = _nothing
        self.version = 0
        """The version of the list; 0: there is none yet."""
        self.response = b""
        """An encoded DiscoveryResponse of this version, without a nonce."""
        for state in fleet:
            self._pending[state.pod.name] = None
        fleet.changes.pods.subscribe(self._pods_changed)
        if self._pending:
            self._schedule()

    def __len__(self) -> int:
        """Return the number of listed pods."""
        return len(self._encoded)

    def subscribe(self, on_change: Callable[[], None]) -> None:
        """Call ``on_change`` after each new version. There is one subscriber."""
        self._on_change = on_change

    def close(self) -> None:
        """Stop following the fleet."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pods_changed(self, states: Collection[PodState]) -> None:
        if self._closed:
            return
        self._pending.update((state.pod.name, None) for state in states)
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is None:
            wait = self._not_before - self._clock.now()
            self._timer = self._clock.call_later(max(0.0, wait), self._update)

    def _update(self) -> None:
        self._timer = None
        if not self._fleet.synced:
            # What has arrived is a part of the first list.
            self._timer = self._clock.call_later(LONGEST_INTERVAL_SECONDS, self._update)
            return
        for _ in range(min(_SLICE, len(self._pending))):
            name, _none = self._pending.popitem()
            self._look_at(name)
        if self._pending:
            self._timer = self._clock.call_later(0, self._update)
        elif self._changed:
            self._changed = False
            self._not_before = self._clock.now() + _interval(len(self._encoded))
            self._new_version()

    def _look_at(self, name: str) -> None:
        state = self._fleet.get(name)
        encoded = _encode(state.pod) if state is not None and state.pod.ready else None
        if encoded != self._encoded.get(name):
            self._changed = True
            if encoded is None:
                del self._encoded[name]
            else:
                self._encoded[name] = encoded

    def _new_version(self) -> None:
        self.version += 1
        # One locality: parts of an encoded message, one after the other, are one message.
        endpoints = b"".join(self._encoded.values())
        assignment = ClusterLoadAssignment(cluster_name=RESOURCE, endpoints=[endpoints])
        self.response = DiscoveryResponse(
            version_info=str(self.version),
            type_url=TYPE_URL,
            resources=[Any(type_url=TYPE_URL, value=assignment.SerializeToString())],
        ).SerializeToString()
        log.debug("endpoint list %d has %d pods", self.version, len(self._encoded))
        self._on_change()


def _interval(pods: int) -> float:
    """Return the time until the version after one with so many pods, in seconds."""
    interval = _SHORTEST_INTERVAL_SECONDS + pods * _INTERVAL_SECONDS_PER_POD
    return min(interval, LONGEST_INTERVAL_SECONDS)


def _encode(pod: Pod) -> bytes:
    host, _, port = pod.address.rpartition(":")
    address = SocketAddress(address=host.strip("[]"), port_value=int(port))
    endpoint = Endpoint(address=Address(socket_address=address), hostname=pod.name)
    return LocalityLbEndpoints(lb_endpoints=[LbEndpoint(endpoint=endpoint)]).SerializeToString()


def _nothing() -> None:
    """Do nothing: there is no subscriber."""
