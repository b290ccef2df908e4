"""Envoy's access log: one JSON object for each request, with what the router decided.

Paths are logged without their query, which may contain secrets. Bodies are not logged.
"""

from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.access_loggers.stream import v3 as stream
from envoy_data_plane.google.protobuf import Any, Struct, Value

from lora_router.config.settings import Settings
from lora_router.extproc.decision_metadata import NAMESPACE

_DECISION = ("pod", "reason", "algorithm", "adapter", "base_model", "held_ms")
"""What the router tells with dynamic metadata. A key that it does not tell is null."""
_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")
"""The same, with the setting ``tokens``."""


def access_logs(settings: Settings) -> list[accesslog.AccessLog]:
    """Return the access logs of the listener for clients: one on standard output, or none."""
    if settings.envoy_access_log == "off":
        return []
    fields = {key: Value(string_value=text) for key, text in log_fields(settings).items()}
    log = stream.StdoutAccessLog(
        log_format=core.SubstitutionFormatString(json_format=Struct(fields=fields))
    )
    return [accesslog.AccessLog(name="envoy.access_loggers.stdout", typed_config=Any.pack(log))]


def log_fields(settings: Settings) -> dict[str, str]:
    """Return the fields of a line of the log, each with Envoy's name for its value.

    Times are milliseconds. ``request_duration``, ``response_duration`` and ``duration`` begin with
    the request: they last until its end arrived, until its answer began to arrive from the pod, and
    until its answer was sent.
    """
    told = _DECISION if settings.tokens == "off" else _DECISION + _TOKENS
    decision = {key: f"%DYNAMIC_METADATA({NAMESPACE}:{key})%" for key in told}
    return {
        "start_time": "%START_TIME%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ)%",
        "protocol": "%PROTOCOL%",
        "model": f"%REQ({settings.model_header})%",
        "status": "%RESPONSE_CODE%",
        "response_flags": "%RESPONSE_FLAGS%",
        "response_code_details": "%RESPONSE_CODE_DETAILS%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "duration": "%DURATION%",
        "request_duration": "%REQUEST_DURATION%",
        "response_duration": "%RESPONSE_DURATION%",
        "response_tx_duration": "%RESPONSE_TX_DURATION%",
        "upstream_host": "%UPSTREAM_HOST%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        **decision,
    }
