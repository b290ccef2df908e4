"""The cluster of the pods: how Envoy reaches the pod that the router picked."""

from datetime import timedelta

from envoy_data_plane.envoy.config.cluster import v3 as cluster_v3
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstream_http
from envoy_data_plane.google.protobuf import Any

from lora_router.config.settings import Settings
from lora_router.envoy.circuit_breakers import no_circuit_breakers

PODS_CLUSTER = "pods"


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
        circuit_breakers=no_circuit_breakers(),
        typed_extension_protocol_options={
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": Any.pack(_http1(settings))
        },
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
