"""A complete Envoy bootstrap that matches the settings, built from Envoy's typed messages.

Besides routing, the bootstrap ensures that:

- No client can send a header that selects an address. These headers are removed before any filter
  runs (``early_header_mutation``), whatever else is configured.
- Envoy fails closed: without an answer from the router, a request reaches no pod.
- Generations may take long: routes have no timeout, and streams have no idle timeout.
- Requests in flight are not bounded by accident. Envoy's default circuit breakers would limit them
  to 1,024 per cluster.
- Errors from Envoy itself have OpenAI's shape.
"""

import json
from datetime import timedelta

import yaml
from betterproto2 import Casing
from envoy_data_plane.envoy.config.bootstrap import v3 as bootstrap_v3
from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutation_rules
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.listener import v3 as listener_v3
from envoy_data_plane.envoy.config.route import v3 as route_v3
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as ext_proc
from envoy_data_plane.envoy.extensions.filters.http.router import v3 as router_v3
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation import (
    v3 as early_mutation,
)
from envoy_data_plane.google.protobuf import Any

from lora_router.config.settings import Settings
from lora_router.envoy.clusters import (
    PODS_CLUSTER,
    ROUTER_CLUSTER,
    pods_cluster,
    router_cluster,
    socket_address,
)
from lora_router.envoy.local_replies import local_replies

_MESSAGE_TIMEOUT_MARGIN_SECONDS = 5.0
"""Added to the longest hold. The router asks for a little more time than it holds a request, and
Envoy must allow that."""

_NEVER = timedelta(0)
_BodyMode = ext_proc.ProcessingModeBodySendMode
_HeaderMode = ext_proc.ProcessingModeHeaderSendMode


def bootstrap_yaml(settings: Settings) -> str:
    """Return the bootstrap as YAML.

    Raises:
        EnvoyTlsError: A setting is missing that Envoy needs for TLS to the router.
    """
    text: str = yaml.safe_dump(_document(settings), sort_keys=False, width=100)
    return text


def bootstrap_json(settings: Settings) -> str:
    """Return the bootstrap as JSON."""
    return json.dumps(_document(settings), indent=2) + "\n"


def bootstrap(settings: Settings) -> bootstrap_v3.Bootstrap:
    """Return the bootstrap as a typed message."""
    return bootstrap_v3.Bootstrap(
        node=core.Node(id="lora-router-gateway", cluster="lora-router-gateway"),
        admin=bootstrap_v3.Admin(address=socket_address("127.0.0.1", settings.envoy_admin_port)),
        static_resources=bootstrap_v3.BootstrapStaticResources(
            listeners=[_listener(settings)],
            clusters=[router_cluster(settings), pods_cluster(settings)],
        ),
    )


def _document(settings: Settings) -> dict[str, object]:
    # Snake case, as in Envoy's documentation.
    return bootstrap(settings).to_dict(casing=Casing.SNAKE)


def _listener(settings: Settings) -> listener_v3.Listener:
    # Above the router's own limit, so that the router refuses a body that is too large. Below the
    # gRPC limit, above which Envoy could not send the body to the router.
    buffer = min(
        settings.max_body_bytes + 1024 * 1024, settings.grpc_max_message_size_bytes - 16 * 1024
    )
    connection_manager = listener_v3.Filter(
        name="envoy.filters.network.http_connection_manager",
        typed_config=Any.pack(_connection_manager(settings)),
    )
    return listener_v3.Listener(
        name="clients",
        address=socket_address(settings.envoy_listen_host, settings.envoy_listen_port),
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
        local_reply_config=local_replies(),
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
    # Envoy rejects full duplex mode without trailers.
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
        max_message_timeout=timedelta(
            seconds=settings.max_hold_seconds + _MESSAGE_TIMEOUT_MARGIN_SECONDS
        ),
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
