"""The error responses of Envoy itself, in OpenAI's shape."""

from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel import v3 as cel
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.google.protobuf import Any, NullValue, Struct, Value

_RETRY_AFTER = core.HeaderValueOption(header=core.HeaderValue(key="retry-after", value="1"))


def local_replies() -> hcm.LocalReplyConfig:
    """Return the mapping of Envoy's local replies to OpenAI errors."""
    return hcm.LocalReplyConfig(
        mappers=[
            # The router itself refuses bodies that fit Envoy's buffer. This is for larger ones.
            _reply(
                _by_status(413),
                "The request body exceeds the limit of the gateway.",
                kind="invalid_request_error",
                code="request_too_large",
            ),
            # Here, 500 and 504 come only from Envoy: the router failed, or its answer timed out.
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
            # The overload manager refuses requests before Envoy's memory runs out.
            _reply(
                _by_details("overload"),
                "The gateway is overloaded. Try again later.",
                kind="service_unavailable_error",
                code="gateway_overloaded",
                retry_after=True,
            ),
            # The router picked no pod, and Envoy knows none or may not choose.
            _reply(
                _by_flags("UH", "NC", "NR"),
                "No pod is available, and the router picked none: %RESPONSE_CODE_DETAILS%.",
                kind="service_unavailable_error",
                code="no_pod_available",
                retry_after=True,
            ),
            # The connection to the pod failed, also when it was tried again, or it was closed
            # before the response began, or what came is no HTTP.
            _reply(
                _by_flags("UF", "UC", "UO", "UR", "URX", "UPE", "LR"),
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


def _by_details(details: str) -> accesslog.AccessLogFilter:
    """Match Envoy's response code details. The overload manager sets no response flag."""
    expression = cel.ExpressionFilter(expression=f"response.code_details == '{details}'")
    return accesslog.AccessLogFilter(
        extension_filter=accesslog.ExtensionFilter(
            name="envoy.access_loggers.extension_filters.cel", typed_config=Any.pack(expression)
        )
    )


def _by_flags(*flags: str) -> accesslog.AccessLogFilter:
    return accesslog.AccessLogFilter(
        response_flag_filter=accesslog.ResponseFlagFilter(flags=list(flags))
    )


def _reply(
    match: accesslog.AccessLogFilter,
    message: str,
    *,
    kind: str,
    code: str,
    status: int | None = None,
    retry_after: bool = False,
) -> hcm.ResponseMapper:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return hcm.ResponseMapper(
        filter=match,
        status_code=status,
        headers_to_add=[_RETRY_AFTER] if retry_after else [],
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
