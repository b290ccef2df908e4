"""Whether requests are traced, by the standard variables of OpenTelemetry.

They are no settings of the router, since operators of OpenTelemetry set them for every service.
What stands here decides whether tracing is on. The SDK reads the other variables itself, from the
process's environment: the sampler, the resource, headers, certificates, timeouts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Protocol = Literal["http/protobuf", "grpc"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_MAX_QUEUED = 2048
"""The SDK's default."""


class TraceSettingsError(ValueError):
    """A variable has a value that cannot be used. The message names it."""


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """How spans are sent."""

    protocol: Protocol = "http/protobuf"
    max_queued: int = _MAX_QUEUED
    """Spans that wait to be sent. Further spans are dropped."""


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
    return TraceSettings(_protocol(environ), _max_queued(environ))


def _protocol(environ: Mapping[str, str]) -> Protocol:
    for name in _PROTOCOLS:
        value = environ.get(name, "").strip()
        if value in ("http/protobuf", "grpc"):
            return "grpc" if value == "grpc" else "http/protobuf"
        if value:
            raise TraceSettingsError(f"{name}={value!r}: must be http/protobuf or grpc")
    return "http/protobuf"


def _max_queued(environ: Mapping[str, str]) -> int:
    name = "OTEL_BSP_MAX_QUEUE_SIZE"
    value = environ.get(name, "").strip()
    if not value:
        return _MAX_QUEUED
    if not (value.isascii() and value.isdigit() and 0 < int(value[:10]) <= _MOST_QUEUED):
        raise TraceSettingsError(f"{name}={value!r}: must be a number from 1 to {_MOST_QUEUED}")
    return int(value)


_MOST_QUEUED = 1_000_000
