"""A complete Envoy bootstrap that fits the settings, built from Envoy's own typed messages.

What it makes sure of, beside that requests are routed:

- No header that chooses an address gets in from a client. They are removed before any filter runs
  (``early_header_mutation``), whatever else is configured behind.
- It fails closed: without an answer from the router a request goes nowhere.
- Generations may take their time: no route time limit, no idle time limit on a stream.
- Nothing bounds the requests in flight by accident: Envoy's default circuit breakers would, at
  1,024 on each cluster.
- Envoy's own error answers have OpenAI's shape too.
"""

import ipaddress
import json
from datetime import timedelta

import yaml
from betterproto2 import Casing
from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.bootstrap import v3 as bootstrap_v3
from envoy_data_plane.envoy.config.cluster import v3 as cluster_v3
from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutation_rules
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint_v3
from envoy_data_plane.envoy.config.listener import v3 as listener_v3
from envoy_data_plane.envoy.config.route import v3 as route_v3
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as ext_proc
from envoy_data_plane.envoy.extensions.filters.http.router import v3 as router_v3
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation import (
    v3 as early_mutation,
)
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstream_http
from envoy_data_plane.google.protobuf import Any, NullValue, Struct, Value

from lora_router.config.settings import Settings
from lora_router.envoy.tls import transport_socket

ROUTER_CLUSTER = "lora-router"
PODS_CLUSTER = "pods"
HOLD_MARGIN_SECONDS = 5.0
"""Envoy must allow more than the longest hold, and the router asks for a little more than it."""

_UNBOUNDED = 2**31 - 1
_NEVER = timedelta(0)
_BodyMode = ext_proc.ProcessingModeBodySendMode
_HeaderMode = ext_proc.ProcessingModeHeaderSendMode


def bootstrap_yaml(settings: Settings) -> str:
    """Return the bootstrap as YAML.

    Raises:
        EnvoyTlsError: A setting is missing that Envoy needs to speak TLS to the router.
    """
    text: str = yaml.safe_dump(_document(settings), sort_keys=False, width=100)
    return text


def bootstrap_json(settings: Settings) -> str:
    """Return the bootstrap as JSON."""
    return json.dumps(_document(settings), indent=2) + "\n"


def bootstrap(settings: Settings) -> bootstrap_v3.Bootstrap:
    """Return the bootstrap as Envoy's typed message."""
    return bootstrap_v3.Bootstrap(
        node=core.Node(id="lora-router-gateway", cluster="lora-router-gateway"),
        admin=bootstrap_v3.Admin(address=_address("127.0.0.1", settings.envoy_admin_port)),
        static_resources=bootstrap_v3.BootstrapStaticResources(
            listeners=[_listener(settings)],
            clusters=[_router_cluster(settings), _pods_cluster(settings)],
        ),
    )


def _document(settings: Settings) -> dict[str, object]:
    # Fields spelled as in Envoy's documentation.
    return bootstrap(settings).to_dict(casing=Casing.SNAKE)


def _listener(settings: Settings) -> listener_v3.Listener:
    # Above the router's own limit, so that a body which is over it is refused by the router, and
    # below the gRPC limit, past which Envoy could not send it.
    buffer = min(
        settings.max_body_bytes + 1024 * 1024, settings.grpc_max_message_size_bytes - 16 * 1024
    )
    connection_manager = listener_v3.Filter(
        name="envoy.filters.network.http_connection_manager",
        typed_config=Any.pack(_connection_manager(settings)),
    )
    return listener_v3.Listener(
        name="clients",
        address=_address(settings.envoy_listen_host, settings.envoy_listen_port),
        per_connection_buffer_limit_bytes=buffer,
        filter_chains=[listener_v3.FilterChain(filters=[connection_manager])],
    )


def _connection_manager(settings: Settings) -> hcm.HttpConnectionManager:
    return hcm.HttpConnectionManager(
        stat_prefix="clients",
        use_remote_address=True,
        normalize_path=True,
        merge_slashes=True,
        generate_request_id=True,
        preserve_external_request_id=True,
        request_headers_timeout=timedelta(seconds=10),
        stream_idle_timeout=_NEVER,
        early_header_mutation_extensions=[_strip_client_headers(settings)],
        local_reply_config=_local_replies(),
        route_config=route_v3.RouteConfiguration(
            name="all",
            virtual_hosts=[
                route_v3.VirtualHost(
                    name="all",
                    domains=["*"],
                    routes=[
                        route_v3.Route(
                            match=route_v3.RouteMatch(prefix="/"),
                            route=route_v3.RouteAction(cluster=PODS_CLUSTER, timeout=_NEVER),
                        )
                    ],
                )
            ],
        ),
        http_filters=[
            hcm.HttpFilter(
                name="envoy.filters.http.ext_proc", typed_config=Any.pack(_ext_proc(settings))
            ),
            hcm.HttpFilter(
                name="envoy.filters.http.router", typed_config=Any.pack(router_v3.Router())
            ),
        ],
    )


def _strip_client_headers(settings: Settings) -> core.TypedExtensionConfig:
    names = (
        settings.target_pod_header,
        settings.destination_header,
        settings.model_header,
        "x-envoy-original-dst-host",
    )
    mutation = early_mutation.HeaderMutation(
        mutations=[mutation_rules.HeaderMutation(remove=name) for name in names]
    )
    return core.TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation",
        typed_config=Any.pack(mutation),
    )


def _ext_proc(settings: Settings) -> ext_proc.ExternalProcessor:
    body_mode = {
        "buffered": _BodyMode.BUFFERED,
        "streamed": _BodyMode.STREAMED,
        "full-duplex": _BodyMode.FULL_DUPLEX_STREAMED,
    }[settings.envoy_body_mode]
    # Envoy refuses full duplex without trailers.
    full_duplex = body_mode is _BodyMode.FULL_DUPLEX_STREAMED
    trailers = _HeaderMode.SEND if full_duplex else _HeaderMode.SKIP
    return ext_proc.ExternalProcessor(
        grpc_service=core.GrpcService(
            envoy_grpc=core.GrpcServiceEnvoyGrpc(cluster_name=ROUTER_CLUSTER)
        ),
        processing_mode=ext_proc.ProcessingMode(
            request_header_mode=_HeaderMode.SEND,
            request_body_mode=body_mode,
            request_trailer_mode=trailers,
            response_header_mode=_HeaderMode.SKIP,
            response_body_mode=_BodyMode.NONE,
            response_trailer_mode=trailers,
        ),
        message_timeout=timedelta(seconds=settings.envoy_message_timeout_seconds),
        max_message_timeout=timedelta(seconds=settings.max_hold_seconds + HOLD_MARGIN_SECONDS),
        failure_mode_allow=False,
        allow_mode_override=True,
        send_body_without_waiting_for_header_response=body_mode is _BodyMode.STREAMED,
        metadata_options=ext_proc.MetadataOptions(
            forwarding_namespaces=ext_proc.MetadataOptionsMetadataNamespaces(
                untyped=["envoy.lb", "envoy.lb.subset_hint"]
            ),
            receiving_namespaces=ext_proc.MetadataOptionsMetadataNamespaces(untyped=["envoy.lb"]),
        ),
    )


def _local_replies() -> hcm.LocalReplyConfig:
    return hcm.LocalReplyConfig(
        mappers=[
            # The router answers 413 itself as far as Envoy's buffer reaches; this is beyond it.
            _reply(
                _by_status(413),
                "The request's body is over the gateway's limit.",
                kind="invalid_request_error",
                code="request_too_large",
            ),
            # 500 and 504 are Envoy's alone here: the router failed, or did not answer in time.
            _reply(
                _by_status(500),
                "The router did not answer: %RESPONSE_CODE_DETAILS%.",
                kind="service_unavailable_error",
                code="router_unavailable",
                status=503,
            ),
            _reply(
                _by_status(504),
                "The router did not answer in time: %RESPONSE_CODE_DETAILS%.",
                kind="service_unavailable_error",
                code="router_timeout",
            ),
            # No connection to the pod, or it broke before the answer began.
            _reply(
                accesslog.AccessLogFilter(
                    response_flag_filter=accesslog.ResponseFlagFilter(
                        flags=["UF", "UC", "UH", "UO", "UR", "NC", "NR"]
                    )
                ),
                "The pod could not be reached: %RESPONSE_CODE_DETAILS%.",
                kind="service_unavailable_error",
                code="pod_unreachable",
            ),
        ]
    )


def _by_status(status: int) -> accesslog.AccessLogFilter:
    return accesslog.AccessLogFilter(
        status_code_filter=accesslog.StatusCodeFilter(
            comparison=accesslog.ComparisonFilter(
                op=accesslog.ComparisonFilterOp.EQ,
                value=core.RuntimeUInt32(
                    default_value=status, runtime_key=f"lora_router.local_reply_{status}"
                ),
            )
        )
    )


def _reply(
    match: accesslog.AccessLogFilter,
    message: str,
    *,
    kind: str,
    code: str,
    status: int | None = None,
) -> hcm.ResponseMapper:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return hcm.ResponseMapper(
        filter=match,
        status_code=status,
        body_format_override=core.SubstitutionFormatString(
            json_format=Struct(fields={"error": _value(error)}),
            content_type="application/json",
        ),
    )


def _value(value: object) -> Value:
    if isinstance(value, dict):
        fields = {key: _value(item) for key, item in value.items()}
        return Value(struct_value=Struct(fields=fields))
    if value is None:
        return Value(null_value=NullValue.NULL_VALUE)
    return Value(string_value=str(value))


def _router_cluster(settings: Settings) -> cluster_v3.Cluster:
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
        endpoint=endpoint_v3.Endpoint(address=_address(host, int(port)))
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


def _pods_cluster(settings: Settings) -> cluster_v3.Cluster:
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


def _address(host: str, port: int) -> core.Address:
    return core.Address(socket_address=core.SocketAddress(address=host, port_value=port))


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
