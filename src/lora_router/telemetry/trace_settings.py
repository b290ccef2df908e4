"""Whether requests are traced, by the standard variables of OpenTelemetry.

They are no settings of the router, since operators of OpenTelemetry set them for every service.
What stands here decides whether tracing is on. The SDK reads the other variables itself, from the
process's environment: the sampler, the resource, headers, certificates, timeouts. Those that it
would refuse without naming them, or take without a word, are checked here first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from lora_router.whole_numbers import whole_number

Protocol = Literal["http/protobuf", "grpc"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_TIMEOUTS = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
_MAX_QUEUED, _MAX_BATCH = 2048, 512
"""The SDK's defaults."""
_MOST_QUEUED = 1_000_000
_LONGEST_DELAY = 3_600_000
"""In milliseconds."""


class TraceSettingsError(ValueError):
    """A variable has a value that cannot be used. The message names it."""


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """How spans are sent."""

    protocol: Protocol = "http/protobuf"
    max_queued: int = _MAX_QUEUED
    """Spans that wait to be sent. Further spans are dropped."""
    max_batch: int = _MAX_BATCH
    """Spans that are sent at once. No more than ``max_queued``."""


def trace_settings(environ: Mapping[str, str]) -> TraceSettings | None:
    """Return how spans are sent, or ``None`` if requests are not traced.

    Tracing is on if ``OTEL_TRACES_EXPORTER`` is ``otlp``, or if it is not set and an endpoint is.

    Args:
        environ: The process's environment. An empty variable counts as absent.

    Raises:
        TraceSettingsError: A variable has a value that cannot be used.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter == "none" or not (exporter or any(environ.get(name) for name in _ENDPOINTS)):
        return None
    if exporter not in ("", "otlp"):
        raise TraceSettingsError(f"OTEL_TRACES_EXPORTER={exporter!r}: must be otlp or none")
    protocol = _protocol(environ)
    _check_endpoints(environ, protocol)
    if protocol == "grpc":  # Over HTTP, the SDK warns of them and uses its default.
        _check_timeouts(environ)
    _whole(environ, "OTEL_BSP_SCHEDULE_DELAY", 1, _LONGEST_DELAY)
    queued = _whole(environ, "OTEL_BSP_MAX_QUEUE_SIZE", _MAX_QUEUED, _MOST_QUEUED)
    # The SDK's default would be refused with a smaller queue.
    default = min(_MAX_BATCH, queued)
    return TraceSettings(
        protocol, queued, _whole(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", default, queued)
    )


def _protocol(environ: Mapping[str, str]) -> Protocol:
    for name in _PROTOCOLS:
        value = environ.get(name, "").strip()
        if value in ("http/protobuf", "grpc"):
            return "grpc" if value == "grpc" else "http/protobuf"
        if value:
            raise TraceSettingsError(f"{name}={value!r}: must be http/protobuf or grpc")
    return "http/protobuf"


def _check_endpoints(environ: Mapping[str, str], protocol: Protocol) -> None:
    """Check that spans can be sent there. The SDK would fail with each batch, and drop it."""
    also = ", or host:port" if protocol == "grpc" else ""
    for name in _ENDPOINTS:
        value = environ.get(name, "").strip()
        if value and not (_is_url(value) or (also and _is_url(f"http://{value}", port=True))):
            raise TraceSettingsError(
                f"{name}={value!r}: must be a URL, such as http://collector:4318{also}"
            )


def _is_url(value: str, *, port: bool = False) -> bool:
    """Return whether a text is a URL of HTTP, with a port if that is asked for."""
    try:
        parts = urlsplit(value)
        has_port = parts.port is not None
    except ValueError:  # Such as a port that is no number.
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and has_port >= port


def _check_timeouts(environ: Mapping[str, str]) -> None:
    for name in _TIMEOUTS:
        value = environ.get(name, "").strip()
        try:
            is_number = not value or float(value) > 0
        except ValueError:
            is_number = False
        if not is_number:
            raise TraceSettingsError(f"{name}={value!r}: must be a number of seconds above 0")


def _whole(environ: Mapping[str, str], name: str, default: int, most: int) -> int:
    value = environ.get(name, "").strip()
    if not value:
        return default
    number = whole_number(value, 1, most)
    if number is None:
        raise TraceSettingsError(f"{name}={value!r}: must be a number from 1 to {most}")
    return number
