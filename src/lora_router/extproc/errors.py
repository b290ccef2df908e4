"""The responses to clients whose requests get no pod.

The body has the shape of OpenAI's errors, or of Anthropic's on Anthropic's paths. A marker header
is compatible with clients and dashboards of AIBrix. A response never repeats any part of the
request body. It repeats the value of a header only if that is needed to understand the error,
shortened and in printable ASCII.
"""

import math
import re
from dataclasses import dataclass, replace

import msgspec

from lora_router.extproc.body import BodyError, BodyErrorKind
from lora_router.routing.refusal import Refusal, Refused

_NO_BACKENDS = "x-error-no-model-backends"
_BODY = "x-error-request-body-processing"
_NO_MODEL = "x-error-no-model-in-request"
_PATH = "x-error-path-refused"
_QUERY = "x-error-query"
_ID = "x-error-id"
_HEADERS = "x-error-too-many-headers"
_RETRY_AFTER = ("retry-after", b"1")
"""Seconds."""
_LONGEST_RETRY_SECONDS = 120
"""The highest value of ``retry-after``. The load of minutes from now cannot be known."""
_LONGEST_ID = 128
"""In characters. A longer request ID is not repeated."""
_NOT_PRINTABLE = re.compile("[^ -~]")

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic's ``type`` by status. Anthropic answers 529 where others answer 503."""


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An HTTP response that the router sends itself."""

    status: int
    code: str
    """OpenAI's ``code``, which identifies the error to programs. Also Envoy's response code
    detail."""
    headers: tuple[tuple[str, bytes], ...]
    body: bytes
    """The JSON document."""
    message: str = ""
    """The error in words. Empty: this is no error."""


def for_anthropic(answer: ErrorAnswer, request_id: str = "") -> ErrorAnswer:
    """Return the same response in the shape of Anthropic's errors.

    Args:
        answer: A response in OpenAI's shape.
        request_id: The ID of the request, which Anthropic's shape has.
    """
    if not answer.message:
        return answer
    document: dict[str, object] = {
        "type": "error",
        "error": {"type": anthropic_type(answer.status), "message": answer.message},
    }
    if request_id and len(request_id) <= _LONGEST_ID:
        document["request_id"] = request_id
    return replace(answer, body=msgspec.json.encode(document))


def anthropic_type(status: int) -> str:
    """Return the ``type`` of an error in Anthropic's shape."""
    kind = "invalid_request_error" if status < 500 else "api_error"
    return _ANTHROPIC_TYPES.get(status, kind)


def refusal_answer(refused: Refused, strategy: str | None = None) -> ErrorAnswer:
    """Return the response to a request that the director refused.

    Args:
        refused: The refusal of the director.
        strategy: The value of the ``routing-strategy`` header, for the message.
    """
    model = refused.model
    match refused.refusal:
        case Refusal.NO_MODEL:
            return _answer(
                400,
                "no_model_in_request",
                "The request names no model. Set the field 'model'.",
                param="model",
                marker=(_NO_MODEL, b"true"),
            )
        case Refusal.UNKNOWN_ALGORITHM:
            return _answer(
                400,
                "invalid_routing_strategy",
                f"Unknown routing strategy {shown(strategy or '')}. "
                f"Known strategies: {', '.join(refused.known)}.",
                param="routing-strategy",
                marker=("x-error-invalid-routing-strategy", b"true"),
            )
        case Refusal.BAD_SELECTOR:
            return _answer(
                400,
                "invalid_external_filter",
                f"Invalid label selector in external-filter: {refused.detail}.",
                param="external-filter",
                marker=("x-error-external-filter", b"true"),
            )
        case Refusal.UNKNOWN_MODEL:
            return _answer(
                404,
                "model_not_found",
                f"The model {shown(model)} does not exist: no pod serves it.",
                param="model",
                marker=(_NO_BACKENDS, model.encode()),
            )
        case Refusal.MODEL_ELSEWHERE:
            return _answer(
                400,
                "model_elsewhere",
                "The request names an ID that only one pod knows, and that pod does not serve the "
                f"model {shown(model)}.",
                param="model",
                marker=(_NO_BACKENDS, model.encode()),
            )
        case Refusal.OVERLOADED:
            return _answer(
                429,
                "overloaded",
                f"All pods that can serve the request are busy{_detail(refused)}. Retry later.",
                kind="rate_limit_error",
                marker=("x-error-overloaded", b"true"),
                headers=(_retry_after(refused.wait),),
            )
        case Refusal.TOO_MANY_HELD:
            return _answer(
                429,
                "too_many_held_requests",
                "All pods that can serve the request are busy, and too many requests already wait "
                "for them. Retry later.",
                kind="rate_limit_error",
                marker=("x-error-overloaded", b"true"),
                headers=(_retry_after(refused.wait),),
            )
        case _:
            return _unavailable_answer(refused)


def _unavailable_answer(refused: Refused) -> ErrorAnswer:
    """Return the response to a request that no pod can serve now."""
    model = refused.model
    match refused.refusal:
        case Refusal.MODELS_UNKNOWN:
            return _unavailable(
                "models_unknown",
                f"No pod is known to serve the model {shown(model)}, but the models of some pods "
                "are not known yet. Retry later.",
                headers=(_RETRY_AFTER,),
            )
        case Refusal.ADAPTER_NOT_LOADED:
            return _unavailable(
                "adapter_not_loaded",
                f"The adapter {shown(model)} is not loaded{_detail(refused)}. Retry later.",
                headers=(_retry_after(refused.wait),),
            )
        case Refusal.NO_READY_POD:
            which = f" for the model {shown(model)}" if model else ""
            return _unavailable(
                "no_ready_pod", f"No pod is ready{which}. Retry later.", headers=(_RETRY_AFTER,)
            )
        case Refusal.NONE_SELECTED:
            return _unavailable(
                "no_pod_selected",
                f"No ready pod that serves the model {shown(model)} matches the label selector and "
                "the gateway's subset.",
            )
        case _:  # Refusal.SHUTTING_DOWN
            return _unavailable(
                "router_draining",
                "The router shut down before it decided about the request. Retry later.",
                headers=(_RETRY_AFTER,),
            )


def _detail(refused: Refused) -> str:
    return f": {refused.detail}" if refused.detail else ""


def _retry_after(wait: float | None) -> tuple[str, bytes]:
    """Return the header that names the seconds after which trying again makes sense."""
    if wait is None:
        return _RETRY_AFTER
    return "retry-after", str(min(max(1, math.ceil(wait)), _LONGEST_RETRY_SECONDS)).encode()


def body_answer(error: BodyError) -> ErrorAnswer:
    """Return the response to a request whose body is invalid."""
    if error.kind is BodyErrorKind.MODEL_TYPE:
        return _answer(
            400, "no_model_in_request", error.message, param="model", marker=(_NO_MODEL, b"true")
        )
    param = "model" if error.kind is BodyErrorKind.MODEL_NAME else None
    return _answer(400, "invalid_request_body", error.message, param=param, marker=(_BODY, b"true"))


def path_answer(path: str, *, is_ambiguous: bool = False) -> ErrorAnswer:
    """Return the response to a request on a path that clients may not use.

    Args:
        path: The decoded path.
        is_ambiguous: Whether the reason is that servers read such a path in different ways.
    """
    reason = (
        ": it is too long, does not begin with a slash, or has a control character, a backslash, "
        "a '.' or '..' segment, or a fragment"
    )
    return _answer(
        404,
        "path_refused",
        f"The path {shown(path)} is not served{reason if is_ambiguous else ''}.",
        marker=(_PATH, b"true"),
    )


def encoding_answer(encoding: str) -> ErrorAnswer:
    """Return the response to a compressed body, in which the router cannot find the model."""
    return _answer(
        415,
        "unsupported_encoding",
        f"The request body has the content-encoding {shown(encoding)}. The router reads the name "
        "of the model, so the body must not be encoded.",
        param="content-encoding",
        marker=(_BODY, b"true"),
        headers=(("accept-encoding", b"identity"),),
    )


def headers_answer(limit: int) -> ErrorAnswer:
    """Return the response to a request with too many headers.

    Args:
        limit: How many headers the gateway allows, including those that the router sets.
    """
    return _answer(
        431,
        "request_headers_too_large",
        f"The request has too many headers: the gateway allows {limit}, including those that it "
        "adds itself.",
        marker=(_HEADERS, b"true"),
    )


def too_large_answer(limit: int) -> ErrorAnswer:
    """Return the response to a body over the limit, in bytes."""
    return _answer(
        413,
        "request_too_large",
        f"The request body exceeds the limit of {limit} bytes.",
        marker=(_BODY, b"true"),
    )


def cut_body_answer() -> ErrorAnswer:
    """Return the response to a body of which the gateway sent only the start."""
    return _answer(
        413,
        "request_too_large",
        "The request body is larger than the gateway's buffer, so the router cannot read the name "
        "of the model.",
        marker=(_BODY, b"true"),
    )


def overloaded_answer() -> ErrorAnswer:
    """Return the response to a body for which the router has no memory."""
    return _answer(
        503,
        "router_overloaded",
        "The router has no memory left for the request body. Retry later.",
        kind="service_unavailable_error",
        marker=("x-error-overloaded", b"true"),
        headers=(_RETRY_AFTER,),
    )


def failure_answer() -> ErrorAnswer:
    """Return the response to a request about which the router cannot decide, for its own fault."""
    return _unavailable(
        "router_unavailable",
        "The router failed before it decided about the request. Retry later.",
        headers=(_RETRY_AFTER,),
    )


def query_answer(param: str, message: str) -> ErrorAnswer:
    """Return the response to a request whose query is invalid."""
    return _answer(400, "invalid_query", message, param=param, marker=(_QUERY, b"true"))


def unread_list_answer() -> ErrorAnswer:
    """Return the response to a request for the models while no pod's list has been read."""
    return _unavailable(
        "models_unknown",
        "The models of the pods are not known yet. Retry later.",
        headers=(_RETRY_AFTER,),
    )


def busy_list_answer() -> ErrorAnswer:
    """Return the response to a request for a list of models that is not made in time."""
    return busy_answer("The router did not finish the list of models in time. Retry later.")


def busy_answer(message: str) -> ErrorAnswer:
    """Return the response to a request that the router has no time for."""
    return _unavailable("router_overloaded", message, headers=(_RETRY_AFTER,))


def id_answer(kind: str, name: str, param: str | None, *, is_gone: bool) -> ErrorAnswer:
    """Return the response to a request that names an ID for which there is no pod.

    Args:
        kind: Of what it is the ID: a response, a file, a batch.
        name: The ID.
        param: The field of the body that names it; ``None``: the path does.
        is_gone: Whether the pod that made the ID is known and gone.
    """
    if is_gone:
        reason = "the pod that made it is gone, and only that pod had it"
    else:
        reason = "no pod is known to have made it, or it was made too long ago"
    return _answer(
        404,
        f"{kind}_not_found",
        f"The {kind} {shown(name)} does not exist: {reason}.",
        param=param,
        marker=(_ID, b"gone" if is_gone else b"unknown"),
    )


def shown(text: str) -> str:
    """Return a client's value in quotes: printable ASCII, at most 80 characters."""
    short = text if len(text) <= 80 else f"{text[:77]}..."
    return "'" + _NOT_PRINTABLE.sub(_escaped, short) + "'"


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _unavailable(
    code: str, message: str, *, headers: tuple[tuple[str, bytes], ...] = ()
) -> ErrorAnswer:
    return _answer(
        503,
        code,
        message,
        kind="service_unavailable_error",
        marker=(_NO_BACKENDS, b"true"),
        headers=headers,
    )


def _answer(
    status: int,
    code: str,
    message: str,
    *,
    marker: tuple[str, bytes],
    kind: str = "invalid_request_error",
    param: str | None = None,
    headers: tuple[tuple[str, bytes], ...] = (),
) -> ErrorAnswer:
    document = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return ErrorAnswer(
        status,
        code,
        (("content-type", b"application/json"), marker, *headers),
        msgspec.json.encode(document),
        message,
    )
