"""Envoy's side of endpoint discovery, with messages of envoy-data-plane."""

from dataclasses import dataclass

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint_v3
from envoy_data_plane.envoy.service.discovery import v3 as discovery_v3
from envoy_data_plane.google.rpc import Status

TYPE_URL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


def request(*names: str, nonce: str = "", rejects: str = "", version: str = "") -> bytes:
    """Return a request as Envoy encodes it."""
    return bytes(
        discovery_v3.DiscoveryRequest(
            version_info=version,
            node=core.Node(id="gateway", cluster="gateway"),
            resource_names=list(names),
            type_url=TYPE_URL,
            response_nonce=nonce,
            error_detail=Status(code=13, message=rejects) if rejects else None,
        )
    )


@dataclass(frozen=True)
class Received:
    """A response, decoded."""

    version: str
    nonce: str
    pods: dict[str, str]
    """Names and endpoints."""


def read(data: bytes) -> Received:
    """Decode a response as Envoy does."""
    response = discovery_v3.DiscoveryResponse.parse(data)
    assert response.type_url == TYPE_URL
    (resource,) = response.resources
    assert resource.type_url == TYPE_URL
    assignment = endpoint_v3.ClusterLoadAssignment.parse(resource.value)
    assert assignment.cluster_name == "pods"
    pods = {}
    for locality in assignment.endpoints:
        for each in locality.lb_endpoints:
            assert each.endpoint is not None
            assert each.endpoint.address is not None
            address = each.endpoint.address.socket_address
            assert address is not None
            pods[each.endpoint.hostname] = f"{address.address} {address.port_value}"
    return Received(response.version_info, response.nonce, pods)
