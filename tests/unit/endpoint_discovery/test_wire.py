"""Compares our .proto files with an independent codec of Envoy's API (envoy-data-plane)."""

from typing import Any

import pytest
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint_v3
from envoy_data_plane.envoy.service.discovery import v3 as discovery_v3
from envoy_data_plane.google.rpc import Status
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from lora_router.endpoint_discovery.pb import discovery_pb2, endpoint_pb2
from tests.unit.endpoint_discovery.envoy_side import request

THEIRS: dict[str, Any] = {
    "DiscoveryRequest": discovery_v3.DiscoveryRequest,
    "DiscoveryResponse": discovery_v3.DiscoveryResponse,
    "ErrorDetail": Status,
    "SocketAddress": core.SocketAddress,
    "Address": core.Address,
    "Endpoint": endpoint_v3.Endpoint,
    "LbEndpoint": endpoint_v3.LbEndpoint,
    "LocalityLbEndpoints": endpoint_v3.LocalityLbEndpoints,
    "ClusterLoadAssignment": endpoint_v3.ClusterLoadAssignment,
}
TYPES = {
    FieldDescriptor.TYPE_STRING: {"string"},
    FieldDescriptor.TYPE_INT32: {"int32"},
    FieldDescriptor.TYPE_UINT32: {"uint32"},
    FieldDescriptor.TYPE_MESSAGE: {"message"},
    # The bytes of an encoded message.
    FieldDescriptor.TYPE_BYTES: {"message"},
}


def our_messages() -> list[Descriptor]:
    return [
        message
        for file in (discovery_pb2, endpoint_pb2)
        for message in file.DESCRIPTOR.message_types_by_name.values()
    ]


@pytest.mark.parametrize("message", our_messages(), ids=lambda message: message.name)
def test_each_field_has_envoys_name_number_and_shape(message: Descriptor) -> None:
    their_fields = {
        field.name: field.metadata["betterproto"]
        for field in THEIRS[message.name].__dataclass_fields__.values()
    }
    for field in message.fields:
        meta = their_fields[field.name]
        assert meta.number == field.number, field.full_name
        assert meta.proto_type in TYPES[field.type], field.full_name
        assert bool(meta.repeated) == field.is_repeated, field.full_name


def test_a_request_of_envoy_is_read() -> None:
    read = discovery_pb2.DiscoveryRequest.FromString(
        request("pods", "others", nonce="7", version="3", rejects="no")
    )

    assert list(read.resource_names) == ["pods", "others"]
    assert (read.version_info, read.response_nonce) == ("3", "7")
    assert (read.error_detail.code, read.error_detail.message) == (13, "no")
    assert read.type_url.endswith("envoy.config.endpoint.v3.ClusterLoadAssignment")
