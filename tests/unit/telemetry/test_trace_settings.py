"""Whether requests are traced, by OpenTelemetry's variables."""

import pytest

from lora_router.telemetry.trace_settings import (
    TraceSettings,
    TraceSettingsError,
    trace_settings,
)

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "router"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_TRACES_EXPORTER": "none"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "True"},
    ],
)
def test_requests_are_not_traced(environ: dict[str, str]) -> None:
    assert trace_settings(environ) is None


@pytest.mark.parametrize(
    ("environ", "protocol"),
    [
        (ENDPOINT, "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, "http/protobuf"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "http/protobuf"),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, "http/protobuf"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc"),
        (
            {
                **ENDPOINT,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            "http/protobuf",
        ),
    ],
)
def test_requests_are_traced(environ: dict[str, str], protocol: str) -> None:
    settings = trace_settings(environ)

    assert settings is not None
    assert (settings.protocol, settings.max_queued) == (protocol, 2048)


def test_the_queue_has_the_size_of_the_variable() -> None:
    settings = trace_settings({**ENDPOINT, "OTEL_BSP_MAX_QUEUE_SIZE": "512"})

    assert settings == TraceSettings(max_queued=512)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "thrift"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "9" * 10_000),
    ],
)
def test_an_error_names_the_variable(name: str, value: str) -> None:
    with pytest.raises(TraceSettingsError, match=f"^{name}='{value[:5]}.*must be"):
        trace_settings({**ENDPOINT, name: value})
