"""The ext_proc filter: what Envoy sends to the router, and what it does without an answer."""

from datetime import timedelta

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as ext_proc
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts import v3 as previous_hosts
from envoy_data_plane.google.protobuf import Any

from lora_router.config.kinds import MESSAGE_MARGIN_SECONDS
from lora_router.config.settings import Settings
from lora_router.envoy.router_cluster import ROUTER_CLUSTER, fails_open
from lora_router.extproc.decision_metadata import NAMESPACE

_RESPONSE_ATTRIBUTES = ["upstream.address", "response.code", "response.code_details"]
"""What the router learns of an answer: who gave it, or why Envoy did."""

_RETRY_ON = "connect-failure,refused-stream,reset-before-request,reset,unavailable"
"""A router that is asked twice decides twice, and generates nothing. So any failure before its
first answer is a reason to ask another router."""
_RETRIES = 3

_BodyMode = ext_proc.ProcessingModeBodySendMode
_HeaderMode = ext_proc.ProcessingModeHeaderSendMode


def ext_proc_filter(settings: Settings) -> ext_proc.ExternalProcessor:
    """Return the filter."""
    return ext_proc.ExternalProcessor(
        grpc_service=core.GrpcService(
            envoy_grpc=core.GrpcServiceEnvoyGrpc(cluster_name=ROUTER_CLUSTER),
            retry_policy=_ask_another_router(),
        ),
        processing_mode=processing_mode(settings),
        response_attributes=_RESPONSE_ATTRIBUTES,
        message_timeout=timedelta(seconds=settings.envoy_message_timeout_seconds),
        max_message_timeout=timedelta(
            seconds=settings.longest_hold_seconds + MESSAGE_MARGIN_SECONDS
        ),
        failure_mode_allow=fails_open(settings),
        allow_mode_override=True,
        send_body_without_waiting_for_header_response=settings.envoy_body_mode == "streamed",
        metadata_options=ext_proc.MetadataOptions(
            forwarding_namespaces=ext_proc.MetadataOptionsMetadataNamespaces(
                untyped=["envoy.lb", "envoy.lb.subset_hint"]
            ),
            receiving_namespaces=ext_proc.MetadataOptionsMetadataNamespaces(
                untyped=["envoy.lb", NAMESPACE]
            ),
        ),
    )


def processing_mode(settings: Settings) -> ext_proc.ProcessingMode:
    """Return what Envoy sends to the router."""
    body_mode = {
        "buffered": _BodyMode.BUFFERED,
        "streamed": _BodyMode.STREAMED,
        "full-duplex": _BodyMode.FULL_DUPLEX_STREAMED,
    }[settings.envoy_body_mode]
    # Envoy rejects full duplex mode without trailers.
    full_duplex = body_mode is _BodyMode.FULL_DUPLEX_STREAMED
    return ext_proc.ProcessingMode(
        request_header_mode=_HeaderMode.SEND,
        request_body_mode=body_mode,
        request_trailer_mode=_HeaderMode.SEND if full_duplex else _HeaderMode.SKIP,
        response_header_mode=_HeaderMode.SEND,
        response_body_mode=_BodyMode.NONE,
        # Keeps the stream open until the last byte of the answer. Otherwise Envoy may close it
        # after the response headers, and the request would no longer count as in flight. An
        # answer without trailers, which is the usual one, costs no message.
        response_trailer_mode=_HeaderMode.SEND,
    )


def _ask_another_router() -> core.RetryPolicy:
    return core.RetryPolicy(
        retry_on=_RETRY_ON,
        num_retries=_RETRIES,
        # Envoy's default waits 1 s before it asks again.
        retry_back_off=core.BackoffStrategy(
            base_interval=timedelta(seconds=0.025), max_interval=timedelta(seconds=0.25)
        ),
        retry_host_predicate=[
            core.RetryPolicyRetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=Any.pack(previous_hosts.PreviousHostsPredicate()),
            )
        ],
        host_selection_retry_max_attempts=3,
    )
