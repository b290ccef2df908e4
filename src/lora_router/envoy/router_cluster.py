"""The cluster of the routers: how Envoy finds them, and notices that one is gone.

- Active health checks ask each router whether it wants requests. A router that received SIGTERM, or
  that has not read its pods yet, gets no new streams.
- Outlier detection takes a router out as soon as connections to it fail, before the next check.
- A router that stalls fails its health checks, because they are answered by its event loop.
- A router with several workers is one address. When a worker dies, its streams fail, and the others
  serve. Such an address is not taken out for long, and not at all if it is the only one.
"""

from datetime import timedelta

from envoy_data_plane.envoy.config.cluster import v3 as cluster_v3
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint_v3
from envoy_data_plane.envoy.extensions.clusters.common.dns import v3 as dns_common
from envoy_data_plane.envoy.extensions.clusters.dns import v3 as dns_v3
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstream_http
from envoy_data_plane.envoy.type import v3 as type_v3
from envoy_data_plane.google.protobuf import Any

from lora_router.config.settings import Settings
from lora_router.envoy.addresses import RouterAddress, router_addresses, socket_address
from lora_router.envoy.circuit_breakers import UNBOUNDED, no_circuit_breakers
from lora_router.envoy.tls import transport_socket

ROUTER_CLUSTER = "lora-router"

_HEALTH_SERVICE = "readiness"
_CHECK_SECONDS = timedelta(seconds=1)
"""Interval and timeout of health checks."""
_FAILED_CHECKS = 2
_FAILED_CONNECTIONS = 2
_EJECTION_SECONDS = timedelta(seconds=2)
"""First ejection of a router. The health checks take over, so it need not be longer."""
_WORKER_SECONDS = timedelta(seconds=0.25)
"""Ejection, and the interval in which it is ended, where an address stands for several workers."""
_WORKER_STREAMS = 25
"""Streams of a connection after which Envoy opens another one, which another worker gets. Fewer
than the router itself announces, so that the workers share the load also while it is low."""
_DNS_SECONDS = timedelta(seconds=2)


def router_cluster(settings: Settings) -> cluster_v3.Cluster:
    """Return the cluster of the routers.

    Raises:
        EnvoyTlsError: A setting is missing that Envoy needs for TLS to the router.
    """
    addresses = router_addresses(settings)
    only_ips = all(address.is_ip for address in addresses)
    return cluster_v3.Cluster(
        name=ROUTER_CLUSTER,
        type=cluster_v3.ClusterDiscoveryType.STATIC if only_ips else None,
        cluster_type=None if only_ips else _dns(),
        connect_timeout=timedelta(seconds=1),
        circuit_breakers=no_circuit_breakers(),
        health_checks=[_health_check()],
        outlier_detection=_outlier_detection(settings, len(addresses)),
        common_lb_config=cluster_v3.ClusterCommonLbConfig(
            healthy_panic_threshold=type_v3.Percent(value=_panic_threshold(settings))
        ),
        transport_socket=transport_socket(settings, addresses),
        typed_extension_protocol_options={
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": Any.pack(_http2(settings))
        },
        load_assignment=endpoint_v3.ClusterLoadAssignment(
            cluster_name=ROUTER_CLUSTER,
            endpoints=[
                endpoint_v3.LocalityLbEndpoints(
                    lb_endpoints=[_endpoint(address) for address in addresses]
                )
            ],
        ),
    )


def _dns() -> cluster_v3.ClusterCustomClusterType:
    options = dns_v3.DnsCluster(
        dns_refresh_rate=_DNS_SECONDS,
        dns_failure_refresh_rate=dns_v3.DnsClusterRefreshRate(
            base_interval=timedelta(seconds=0.5), max_interval=_DNS_SECONDS
        ),
        # Addresses of both families. The health checks find out which of them answer.
        dns_lookup_family=dns_common.DnsLookupFamily.ALL,
    )
    return cluster_v3.ClusterCustomClusterType(
        name="envoy.clusters.dns", typed_config=Any.pack(options)
    )


def _endpoint(address: RouterAddress) -> endpoint_v3.LbEndpoint:
    return endpoint_v3.LbEndpoint(
        endpoint=endpoint_v3.Endpoint(address=socket_address(address.host, address.port))
    )


def _http2(settings: Settings) -> upstream_http.HttpProtocolOptions:
    return upstream_http.HttpProtocolOptions(
        explicit_http_config=upstream_http.HttpProtocolOptionsExplicitHttpConfig(
            http2_protocol_options=core.Http2ProtocolOptions(
                max_concurrent_streams=UNBOUNDED if settings.workers == 1 else _WORKER_STREAMS,
                connection_keepalive=core.KeepaliveSettings(
                    interval=timedelta(seconds=15), timeout=timedelta(seconds=5)
                ),
            )
        )
    )


def _health_check() -> core.HealthCheck:
    return core.HealthCheck(
        grpc_health_check=core.HealthCheckGrpcHealthCheck(service_name=_HEALTH_SERVICE),
        timeout=_CHECK_SECONDS,
        interval=_CHECK_SECONDS,
        # Envoy's defaults for a cluster without requests are 60 s.
        no_traffic_interval=_CHECK_SECONDS,
        no_traffic_healthy_interval=_CHECK_SECONDS,
        unhealthy_threshold=_FAILED_CHECKS,
        healthy_threshold=1,
    )


def _outlier_detection(settings: Settings, addresses: int) -> cluster_v3.OutlierDetection | None:
    """Return a detection that looks only at connections; ``None``: there is none.

    An error that a router answers does not count: a request that makes a router fail would
    otherwise take all routers out, one after the other.
    """
    has_workers = settings.workers > 1
    if has_workers and addresses == 1:
        return None
    return cluster_v3.OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=_FAILED_CONNECTIONS,
        enforcing_consecutive_5xx=0,
        enforcing_consecutive_gateway_failure=0,
        enforcing_success_rate=0,
        enforcing_local_origin_success_rate=0,
        interval=_WORKER_SECONDS if has_workers else _CHECK_SECONDS,
        base_ejection_time=_WORKER_SECONDS if has_workers else _EJECTION_SECONDS,
        max_ejection_time=timedelta(seconds=10),
        max_ejection_percent=100,
    )


def fails_open(settings: Settings) -> bool:
    """Return whether Envoy continues with requests and answers when no router answers.

    Only if it has buffered the body. In full duplex mode the body is at the router, and Envoy 1.40
    never fails open. In streamed mode it does, but sends the first piece of the body twice if more
    pieces had arrived.
    """
    return settings.envoy_fail_open and settings.envoy_body_mode == "buffered"


def _panic_threshold(settings: Settings) -> float:
    """Return the share of healthy routers below which Envoy uses unhealthy ones too.

    0: never, so that Envoy balances requests by itself at once. If it cannot do that, routers that
    look unhealthy are better than none. A standby looks unhealthy, and is not: it answers if no
    router leads.
    """
    return 0 if fails_open(settings) and settings.replication != "lease" else 1
