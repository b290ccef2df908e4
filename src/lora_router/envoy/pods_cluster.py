"""The cluster of the pods: how Envoy reaches the pod that the router picked.

``override-host``: Envoy knows the pods from the router's endpoint discovery. It sends a request to
the first pod that the router names, and to the next one on a retry. A pod that it does not know
cannot be named. Without a router's choice it balances by itself, over the last pods that it knew.

``original-dst``: Envoy connects to any address that the header names. There is no second choice.
"""

from datetime import timedelta

from envoy_data_plane.envoy.config.cluster import v3 as cluster_v3
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.load_balancing_policies.least_request import (
    v3 as least_request_v3,
)
from envoy_data_plane.envoy.extensions.load_balancing_policies.override_host import (
    v3 as override_host_v3,
)
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstream_http
from envoy_data_plane.envoy.type import v3 as type_v3
from envoy_data_plane.envoy.type.metadata import v3 as metadata_v3
from envoy_data_plane.google.protobuf import Any

from lora_router.config.settings import Settings
from lora_router.endpoint_discovery.endpoint_list import RESOURCE
from lora_router.envoy.circuit_breakers import no_circuit_breakers
from lora_router.envoy.router_cluster import ROUTER_CLUSTER
from lora_router.envoy.tls import pods_transport_socket

PODS_CLUSTER = "pods"

_METADATA_NAMESPACE = "envoy.lb"
_FIRST_LIST_SECONDS = timedelta(seconds=5)
"""How long a starting Envoy waits for its first list of pods before it listens."""
_FAILED_CONNECTIONS = 2
_EJECTION_SECONDS = timedelta(seconds=2)


def retries(settings: Settings) -> int:
    """Return how often Envoy sends a request to a pod again.

    Each fallback once, and then the picked pod again, whose connection may have been closed at the
    wrong moment, or which has been restarted.
    """
    return settings.fallbacks + 1 if settings.envoy_pods == "override-host" else 1


def pods_cluster(settings: Settings) -> cluster_v3.Cluster:
    """Return the cluster.

    Raises:
        EnvoyTlsError: A setting is missing that Envoy needs for TLS to pods.
    """
    cluster = cluster_v3.Cluster(
        name=PODS_CLUSTER,
        connect_timeout=timedelta(seconds=2),
        circuit_breakers=no_circuit_breakers(),
        transport_socket=pods_transport_socket(settings),
        typed_extension_protocol_options={
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": Any.pack(_http1(settings))
        },
    )
    if settings.envoy_pods == "override-host":
        _override_host(cluster, settings)
    else:
        cluster.type = cluster_v3.ClusterDiscoveryType.ORIGINAL_DST
        cluster.lb_policy = cluster_v3.ClusterLbPolicy.CLUSTER_PROVIDED
        cluster.original_dst_lb_config = cluster_v3.ClusterOriginalDstLbConfig(
            use_http_header=True, http_header_name=settings.target_pod_header
        )
    return cluster


def _override_host(cluster: cluster_v3.Cluster, settings: Settings) -> None:
    cluster.type = cluster_v3.ClusterDiscoveryType.EDS
    cluster.eds_cluster_config = cluster_v3.ClusterEdsClusterConfig(
        eds_config=_from_the_routers(), service_name=RESOURCE
    )
    cluster.load_balancing_policy = cluster_v3.LoadBalancingPolicy(
        policies=[
            _policy(
                "envoy.load_balancing_policies.override_host",
                Any.pack(
                    override_host_v3.OverrideHost(
                        override_host_sources=_sources(settings),
                        fallback_policy=cluster_v3.LoadBalancingPolicy(
                            policies=[
                                _policy(
                                    "envoy.load_balancing_policies.least_request",
                                    Any.pack(least_request_v3.LeastRequest()),
                                )
                            ]
                        ),
                    )
                ),
            )
        ]
    )
    cluster.outlier_detection = _outlier_detection()
    # Half of the pods may be out. Below that, Envoy uses all of them.
    cluster.common_lb_config = cluster_v3.ClusterCommonLbConfig(
        healthy_panic_threshold=type_v3.Percent(value=50)
    )


def _sources(settings: Settings) -> list[override_host_v3.OverrideHostOverrideHostSource]:
    """Return where Envoy reads the endpoints.

    Envoy joins the endpoints of all sources, and takes the next one for each retry. When they are
    used up it balances by itself, and a request for an adapter then meets pods that do not serve
    it. So there are as many sources as attempts, even if the router names only one pod.
    """
    header = override_host_v3.OverrideHostOverrideHostSource(header=settings.destination_header)
    metadata = override_host_v3.OverrideHostOverrideHostSource(
        metadata=metadata_v3.MetadataKey(
            key=_METADATA_NAMESPACE,
            path=[metadata_v3.MetadataKeyPathSegment(key=settings.destination_header)],
        )
    )
    return [header if number % 2 == 0 else metadata for number in range(retries(settings) + 1)]


def _policy(name: str, config: Any) -> cluster_v3.LoadBalancingPolicyPolicy:
    return cluster_v3.LoadBalancingPolicyPolicy(
        typed_extension_config=core.TypedExtensionConfig(name=name, typed_config=config)
    )


def _from_the_routers() -> core.ConfigSource:
    return core.ConfigSource(
        resource_api_version=core.ApiVersion.V3,
        initial_fetch_timeout=_FIRST_LIST_SECONDS,
        api_config_source=core.ApiConfigSource(
            api_type=core.ApiConfigSourceApiType.GRPC,
            transport_api_version=core.ApiVersion.V3,
            set_node_on_first_message_only=True,
            grpc_services=[
                core.GrpcService(
                    envoy_grpc=core.GrpcServiceEnvoyGrpc(
                        cluster_name=ROUTER_CLUSTER,
                        # Envoy's default waits up to 30 s for the list of a router that restarts.
                        retry_policy=core.RetryPolicy(
                            retry_back_off=core.BackoffStrategy(
                                base_interval=timedelta(seconds=0.1),
                                max_interval=timedelta(seconds=1),
                            )
                        ),
                    )
                )
            ],
        ),
    )


def _outlier_detection() -> cluster_v3.OutlierDetection:
    """Return a detection for when Envoy balances by itself: no router tells it which pods fail.

    Only connections count, so that no answer of a pod is judged twice. ``override_host`` does not
    look at it: while a router picks, the router alone decides.
    """
    return cluster_v3.OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=_FAILED_CONNECTIONS,
        enforcing_consecutive_5xx=0,
        enforcing_consecutive_gateway_failure=0,
        enforcing_success_rate=0,
        enforcing_local_origin_success_rate=0,
        interval=timedelta(seconds=1),
        base_ejection_time=_EJECTION_SECONDS,
        max_ejection_time=timedelta(seconds=30),
        max_ejection_percent=50,
        always_eject_one_host=True,
    )


def _http1(settings: Settings) -> upstream_http.HttpProtocolOptions:
    """Return HTTP/1.1 with an idle timeout.

    Envoy must close an idle connection before the pod does. Otherwise it sends requests on
    connections that the pod is closing, and they fail. uvicorn, and so vLLM, closes after 5 s.
    """
    return upstream_http.HttpProtocolOptions(
        common_http_protocol_options=core.HttpProtocolOptions(
            idle_timeout=timedelta(seconds=settings.envoy_pod_idle_seconds)
        ),
        explicit_http_config=upstream_http.HttpProtocolOptionsExplicitHttpConfig(
            http_protocol_options=core.Http1ProtocolOptions()
        ),
    )
