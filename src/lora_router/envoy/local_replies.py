"""The error responses of Envoy itself, in OpenAI's shape, or in Anthropic's on its paths."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.route import v3 as route
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel import v3 as cel
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Any, NullValue, Struct, Value

from lora_router.config.settings import Settings
from lora_router.extproc.errors import anthropic_type
from lora_router.extproc.path_rules import Api
from lora_router.extproc.path_table import RULES

_RETRY_AFTER = core.HeaderValueOption(header=core.HeaderValue(key="retry-after", value="1"))


class _Reply(NamedTuple):
    match: accesslog.AccessLogFilter
    message: str
    code: str
    kind: str = "service_unavailable_error"
    status: int | None = None
    """``None``: Envoy's own."""
    retry_after: bool = False


def local_replies(settings: Settings) -> hcm.LocalReplyConfig:
    """Return the mapping of Envoy's local replies to OpenAI's and Anthropic's errors."""
    on_anthropics_paths = _by_path(settings)
    mappers = []
    for reply, status in _replies():
        # The first mapper that matches counts.
        both = accesslog.AccessLogFilter(
            and_filter=accesslog.AndFilter(filters=[on_anthropics_paths, reply.match])
        )
        error: dict[str, object] = {"type": anthropic_type(status), "message": reply.message}
        mappers.append(_mapper(both, reply, {"type": "error", "error": error}))
        error = {"message": reply.message, "type": reply.kind, "param": None, "code": reply.code}
        mappers.append(_mapper(reply.match, reply, {"error": error}))
    return hcm.LocalReplyConfig(mappers=mappers)


def _replies() -> Iterator[tuple[_Reply, int]]:
    """Yield the replies, each with the status that clients see."""
    # The router refuses too many headers. Envoy refuses those that become too long with the
    # headers that the router adds.
    yield (
        _Reply(
            _by_details("header_mutation_result_exceeds_limit"),
            "The request headers are too large for the gateway.",
            kind="invalid_request_error",
            code="request_headers_too_large",
            status=431,
        ),
        431,
    )
    # The router itself refuses bodies that fit Envoy's buffer. This is for larger ones.
    yield (
        _Reply(
            _by_status(413),
            "The request body exceeds the limit of the gateway.",
            kind="invalid_request_error",
            code="request_too_large",
        ),
        413,
    )
    # Here, 500 and 504 come only from Envoy: the router failed, or its answer timed out.
    yield (
        _Reply(
            _by_status(500),
            "The router did not answer: %RESPONSE_CODE_DETAILS%.",
            code="router_unavailable",
            status=503,
        ),
        503,
    )
    yield (
        _Reply(
            _by_status(504),
            "The router did not answer in time: %RESPONSE_CODE_DETAILS%.",
            code="router_timeout",
        ),
        504,
    )
    # The overload manager refuses requests before Envoy's memory runs out.
    yield (
        _Reply(
            _by_details("overload"),
            "The gateway is overloaded. Try again later.",
            code="gateway_overloaded",
            retry_after=True,
        ),
        503,
    )
    # The router picked no pod, and Envoy knows none or may not choose.
    yield (
        _Reply(
            _by_flags("UH", "NC", "NR"),
            "No pod is available, and the router picked none: %RESPONSE_CODE_DETAILS%.",
            code="no_pod_available",
            retry_after=True,
        ),
        503,
    )
    # The connection to the pod failed, also when it was tried again, or it was closed before the
    # response began, or what came is no HTTP.
    yield (
        _Reply(
            _by_flags("UF", "UC", "UO", "UR", "URX", "UPE", "LR"),
            "The pod could not be reached: %RESPONSE_CODE_DETAILS%.",
            code="pod_unreachable",
        ),
        503,
    )


def _by_path(settings: Settings) -> accesslog.AccessLogFilter:
    """Match the paths of Anthropic's API, also below the prefixes of the settings."""
    paths = "|".join(re.escape(rule.path) for rule in RULES if rule.api is Api.ANTHROPIC)
    prefixes = "|".join(re.escape(prefix.rstrip("/")) for prefix in settings.path_prefixes)
    pattern = rf"(?:{prefixes})?(?:{paths})/?(?:\?.*)?"
    return accesslog.AccessLogFilter(
        header_filter=accesslog.HeaderFilter(
            header=route.HeaderMatcher(
                name=":path",
                string_match=matcher.StringMatcher(safe_regex=matcher.RegexMatcher(regex=pattern)),
            )
        )
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


def _mapper(
    match: accesslog.AccessLogFilter, reply: _Reply, document: dict[str, object]
) -> hcm.ResponseMapper:
    return hcm.ResponseMapper(
        filter=match,
        status_code=reply.status,
        headers_to_add=[_RETRY_AFTER] if reply.retry_after else [],
        body_format_override=core.SubstitutionFormatString(
            json_format=Struct(fields={key: _value(item) for key, item in document.items()}),
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
