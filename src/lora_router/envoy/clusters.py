"""The clusters of the bootstrap: the router, and the pods that it picks."""

import ipaddress
from datetime import timedelta

from envoy_data_plane.envoy.config.cluster import v3 as cluster_v3
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint_v3
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstream_http
from envoy_data_plane.google.protobuf import Any

from lora_router.config.settings import Settings
from lora_router.envoy.tls import transport_socket

ROUTER_CLUSTER = "lora-router"
PODS_CLUSTER = "pods"

_UNBOUNDED = 2**31 - 1


def router_cluster(settings: Settings) -> cluster_v3.Cluster:
    """Return the cluster of the router.

    Raises:
        EnvoyTlsError: A setting is missing that Envoy needs for TLS to the router.
    """
    address = settings.envoy_router_address or f"127.0.0.1:{settings.grpc_port}"
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    options = upstream_http.HttpProtocolOptions(
        explicit_http_config=upstream_http.HttpProtocolOptionsExplicitHttpConfig(
            http2_protocol_options=core.Http2ProtocolOptions(
                max_concurrent_streams=_UNBOUNDED,
                connection_keepalive=core.KeepaliveSettings(
                    interval=timedelta(seconds=15), timeout=timedelta(seconds=5)
                ),
            )
        )
    )
    lb_endpoint = endpoint_v3.LbEndpoint(
        endpoint=endpoint_v3.Endpoint(address=socket_address(host, int(port)))
    )
    return cluster_v3.Cluster(
        name=ROUTER_CLUSTER,
        type=(
            cluster_v3.ClusterDiscoveryType.STATIC
            if _is_ip(host)
            else cluster_v3.ClusterDiscoveryType.STRICT_DNS
        ),
        connect_timeout=timedelta(seconds=1),
        circuit_breakers=_no_circuit_breakers(),
        transport_socket=transport_socket(settings, host, is_ip=_is_ip(host)),
        typed_extension_protocol_options={
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": Any.pack(options)
        },
        load_assignment=endpoint_v3.ClusterLoadAssignment(
            cluster_name=ROUTER_CLUSTER,
            endpoints=[endpoint_v3.LocalityLbEndpoints(lb_endpoints=[lb_endpoint])],
        ),
    )


def pods_cluster(settings: Settings) -> cluster_v3.Cluster:
    """Return the cluster of the pods, whose endpoint is named by a request header."""
    return cluster_v3.Cluster(
        name=PODS_CLUSTER,
        type=cluster_v3.ClusterDiscoveryType.ORIGINAL_DST,
        lb_policy=cluster_v3.ClusterLbPolicy.CLUSTER_PROVIDED,
        original_dst_lb_config=cluster_v3.ClusterOriginalDstLbConfig(
            use_http_header=True, http_header_name=settings.target_pod_header
        ),
        connect_timeout=timedelta(seconds=2),
        circuit_breakers=_no_circuit_breakers(),
    )


def _no_circuit_breakers() -> cluster_v3.CircuitBreakers:
    return cluster_v3.CircuitBreakers(
        thresholds=[
            cluster_v3.CircuitBreakersThresholds(
                max_connections=_UNBOUNDED,
                max_pending_requests=_UNBOUNDED,
                max_requests=_UNBOUNDED,
                max_retries=_UNBOUNDED,
            )
        ]
    )


def socket_address(host: str, port: int) -> core.Address:
    """Return an address as Envoy's typed message."""
    return core.Address(socket_address=core.SocketAddress(address=host, port_value=port))


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
