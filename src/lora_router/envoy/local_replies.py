"""The errors that Envoy answers by itself, in OpenAI's shape."""

from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.google.protobuf import NullValue, Struct, Value


def local_replies() -> hcm.LocalReplyConfig:
    """Return what Envoy's own errors become."""
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
