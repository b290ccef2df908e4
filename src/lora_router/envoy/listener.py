"""The listener for clients, and the filters that each request passes."""

from datetime import timedelta

from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutation_rules
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.listener import v3 as listener_v3
from envoy_data_plane.envoy.extensions.filters.http.router import v3 as router_v3
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation import (
    v3 as early_mutation,
)
from envoy_data_plane.google.protobuf import Any

from lora_router.config.settings import Settings
from lora_router.envoy.access_log import access_logs
from lora_router.envoy.addresses import socket_address
from lora_router.envoy.ext_proc_filter import ext_proc_filter
from lora_router.envoy.local_replies import local_replies
from lora_router.envoy.routes import route_config
from lora_router.listening import everywhere

_NEVER = timedelta(0)
_Upgrade = hcm.HttpConnectionManagerUpgradeConfig
_EscapedSlashes = hcm.HttpConnectionManagerPathWithEscapedSlashesAction

_ACCEPTED_AT_ONCE = 64
"""New connections that a worker accepts before it continues with the requests that it has."""
_HTTP2_STREAMS = 1000
"""Requests at once on one HTTP/2 connection of a client. Another gateway opens more connections."""
_HEADERS = 1000
"""Well above the router's limit. Above its own limit, Envoy closes the connection of an HTTP/1.1
client without an answer, because it asks the router about the answer and does not wait."""
_HTTP2_STREAM_WINDOW = 1024 * 1024
_HTTP2_CONNECTION_WINDOW = 16 * 1024 * 1024


def listener(settings: Settings) -> listener_v3.Listener:
    """Return the listener."""
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
        address=socket_address(everywhere(settings.envoy_listen_host), settings.envoy_listen_port),
        per_connection_buffer_limit_bytes=buffer,
        max_connections_to_accept_per_socket_event=_ACCEPTED_AT_ONCE,
        filter_chains=[listener_v3.FilterChain(filters=[connection_manager])],
    )


def _connection_manager(settings: Settings) -> hcm.HttpConnectionManager:
    return hcm.HttpConnectionManager(
        stat_prefix="clients",
        use_remote_address=True,
        normalize_path=True,
        merge_slashes=True,
        # Servers decode escaped slashes before they look for a route, and so does the router.
        path_with_escaped_slashes_action=_EscapedSlashes.UNESCAPE_AND_FORWARD,
        generate_request_id=True,
        preserve_external_request_id=True,
        request_headers_timeout=timedelta(seconds=10),
        common_http_protocol_options=core.HttpProtocolOptions(
            max_headers_count=max(_HEADERS, settings.gateway_max_headers)
        ),
        stream_idle_timeout=_NEVER,
        http2_protocol_options=core.Http2ProtocolOptions(
            max_concurrent_streams=_HTTP2_STREAMS,
            initial_stream_window_size=_HTTP2_STREAM_WINDOW,
            initial_connection_window_size=_HTTP2_CONNECTION_WINDOW,
        ),
        early_header_mutation_extensions=[_strip_client_headers(settings)],
        access_log=access_logs(settings),
        local_reply_config=local_replies(settings),
        upgrade_configs=[_Upgrade(upgrade_type="websocket")],
        route_config=route_config(settings),
        http_filters=[
            hcm.HttpFilter(
                name="envoy.filters.http.ext_proc",
                typed_config=Any.pack(ext_proc_filter(settings)),
            ),
            hcm.HttpFilter(
                name="envoy.filters.http.router", typed_config=Any.pack(router_v3.Router())
            ),
        ],
    )


def _strip_client_headers(settings: Settings) -> core.TypedExtensionConfig:
    names = [
        settings.target_pod_header,
        settings.destination_header,
        settings.model_header,
        "x-envoy-original-dst-host",
    ]
    if settings.pool_header is not None:
        names.append(settings.pool_header)
    mutation = early_mutation.HeaderMutation(
        mutations=[mutation_rules.HeaderMutation(remove=name) for name in names]
    )
    return core.TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation",
        typed_config=Any.pack(mutation),
    )
